//! Connections between two nodes, without a network: who is let in, and what each end says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what it expects")]

use std::io::Cursor;
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, SanType, date_time_ymd};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Error, ProtocolVersion, ServerConnection};
use trigger_core::time::Timestamp;
use trigger_pki::testing::{Issued, TestCa};
use trigger_pki::{OtherEnd, Pki};

const HUB: &str = "hub.example.com";
const WEB: &str = "web01.example.com";
const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

struct Site {
    directory: tempfile::TempDir,
    ca: TestCa,
    hub: Pki,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut ca = TestCa::new("puppet").unwrap();
        let hub = Pki::open(ca.node(directory.path(), HUB).unwrap()).unwrap();
        Self { directory, ca, hub }
    }

    fn client(&self, issued: &Issued) -> Pki {
        let files = self.ca.write(self.directory.path(), WEB, issued).unwrap();
        self.hub.reload().unwrap();
        Pki::open(files).unwrap()
    }
}

/// What client and server say at the end of a handshake: absent where it was completed.
struct Outcome {
    client: Option<String>,
    server: Option<String>,
    version: Option<ProtocolVersion>,
}

fn handshake(client: &Pki, server: &Pki, name: &str) -> Outcome {
    let client_handshake = client.client_handshake(&[b"h2"]).unwrap();
    let server_handshake = server.server_handshake(&[b"h2", b"http/1.1"]).unwrap();
    let server_name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client_end = ClientConnection::new(Arc::clone(&client_handshake.config), server_name).unwrap();
    let mut server_end = ServerConnection::new(Arc::clone(&server_handshake.config)).unwrap();
    let (mut client_error, mut server_error): (Option<Error>, Option<Error>) = (None, None);
    loop {
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        while client_end.wants_write() {
            client_end.write_tls(&mut to_server).unwrap();
        }
        while server_end.wants_write() {
            server_end.write_tls(&mut to_client).unwrap();
        }
        if to_server.is_empty() && to_client.is_empty() {
            break;
        }
        let mut bytes = Cursor::new(to_server);
        while server_error.is_none() && server_end.read_tls(&mut bytes).unwrap() > 0 {
            server_error = server_end.process_new_packets().err();
        }
        let mut bytes = Cursor::new(to_client);
        while client_error.is_none() && client_end.read_tls(&mut bytes).unwrap() > 0 {
            client_error = client_end.process_new_packets().err();
        }
    }
    let from_server = OtherEnd::Server("hub.example.com:8145");
    let from_client = OtherEnd::Client("192.0.2.7:4711");
    Outcome {
        client: client_error
            .map(|error| client.explain(from_server, &error, client_handshake.refusal().as_ref())),
        server: server_error
            .map(|error| server.explain(from_client, &error, server_handshake.refusal().as_ref())),
        version: client_end.protocol_version(),
    }
}

#[test]
fn two_nodes_of_a_ca_connect() {
    let mut site = Site::new();
    let issued = site.ca.issue(WEB).unwrap();
    let client = site.client(&issued);
    for name in [HUB, "localhost", "127.0.0.1"] {
        let outcome = handshake(&client, &site.hub, name);
        assert_eq!((outcome.client, outcome.server), (None, None));
        assert_eq!(outcome.version, Some(ProtocolVersion::TLSv1_3));
    }
}

#[test]
fn a_server_under_another_name_is_refused_with_its_names() {
    let mut site = Site::new();
    let issued = site.ca.issue(WEB).unwrap();
    let outcome = handshake(&site.client(&issued), &site.hub, "puppet.example.com");
    assert_eq!(
        outcome.client.unwrap(),
        "the server hub.example.com:8145 is not trusted: the certificate of hub.example.com is not for the name \
         puppet.example.com, only for hub.example.com, localhost, 127.0.0.1: use one of these names in the URL, or add \
         the name to the certificate (`dns_alt_names`)"
    );
    assert_eq!(
        outcome.server.unwrap(),
        format!(
            "the client at 192.0.2.7:4711 refuses this node's certificate {} (hub.example.com), and says only \
             `BadCertificate`: see its log; it has to trust the CA of this node, and the certificate must not be \
             expired or revoked",
            site.hub.files().certificate.display()
        )
    );
}

#[test]
fn a_certificate_with_the_name_of_another_node_proves_its_own_certname_only() {
    let mut site = Site::new();
    let change = |params: &mut CertificateParams| {
        params.subject_alt_names = vec![SanType::DnsName(HUB.try_into().unwrap())];
    };
    let issued = site.ca.issue_with(WEB, change).unwrap();
    let client = site.client(&issued);
    let peer = site.hub.trust().verify(client.identity().certificate_der(), &[], NOW).unwrap();
    assert_eq!(peer.certname.as_str(), WEB);
}

fn check_refused(change: impl FnOnce(&mut CertificateParams), client_says: &str, server_says: &str) {
    let mut site = Site::new();
    let issued = site.ca.issue_with(WEB, change).unwrap();
    let outcome = handshake(&site.client(&issued), &site.hub, HUB);
    let (client, server) = (outcome.client.unwrap(), outcome.server.unwrap());
    assert!(client.contains(client_says), "{client}");
    assert!(server.contains(server_says), "{server}");
}

#[test]
fn an_expired_client_learns_its_dates() {
    check_refused(
        |params| params.not_after = date_time_ymd(2021, 1, 1),
        "it is valid from 2020-01-01 00:00:00 UTC to 2021-01-01 00:00:00 UTC, and not at the time of the clock there",
        "the client at 192.0.2.7:4711 is not trusted: the certificate of web01.example.com expired at 2021-01-01",
    );
}

#[test]
fn a_client_that_is_not_valid_yet_learns_its_dates() {
    check_refused(
        |params| params.not_before = date_time_ymd(2099, 1, 1),
        "it is valid from 2099-01-01 00:00:00 UTC to",
        "the certificate of web01.example.com is valid from 2099-01-01",
    );
}

#[test]
fn a_revoked_client_learns_that_it_is() {
    let mut site = Site::new();
    let issued = site.ca.issue(WEB).unwrap();
    site.ca.revoke(&issued);
    let outcome = handshake(&site.client(&issued), &site.hub, HUB);
    assert!(outcome.client.unwrap().contains("it is revoked"));
    assert!(outcome.server.unwrap().contains("the certificate of web01.example.com is revoked"));
}

#[test]
fn ends_of_two_cas_refuse_each_other_by_name() {
    let site = Site::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let client = Pki::open(TestCa::new("elsewhere").unwrap().node(elsewhere.path(), WEB).unwrap()).unwrap();
    let outcome = handshake(&client, &site.hub, HUB);
    assert!(outcome.client.unwrap().contains("issued by Puppet CA: puppet, which is not among the CAs in"));
    assert!(outcome.server.unwrap().contains("does not know the CA that issued it"));
}

#[test]
fn a_name_that_is_no_certname_is_not_let_in() {
    let mut site = Site::new();
    let change = |params: &mut CertificateParams| {
        params.distinguished_name.push(DnType::OrganizationName, "a second name");
        params.distinguished_name.push(DnType::CommonName, "-web01");
    };
    let issued = site.ca.issue_with(WEB, change).unwrap();
    let files = site.ca.write(site.directory.path(), WEB, &issued).unwrap();
    assert!(Pki::open(files).unwrap_err().to_string().contains("is not a Puppet node's"));
}
