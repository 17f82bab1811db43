//! Connections between two nodes, without a network: who is let in, and what each end says.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what it expects")]

use std::fs;
use std::io::Cursor;
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, SanType, date_time_ymd};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, Error, ProtocolVersion, RootCertStore, ServerConfig, ServerConnection,
};
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

const FROM_SERVER: OtherEnd<'static> = OtherEnd::Server("hub.example.com:8145");
const FROM_CLIENT: OtherEnd<'static> = OtherEnd::Client("192.0.2.7:4711");

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
    let (client_error, server_error) = exchange(&mut client_end, &mut server_end);
    Outcome {
        client: client_error
            .map(|error| client.explain(FROM_SERVER, &error, client_handshake.refusal().as_ref())),
        server: server_error
            .map(|error| server.explain(FROM_CLIENT, &error, server_handshake.refusal().as_ref())),
        version: client_end.protocol_version(),
    }
}

/// Carries bytes between two ends until both are silent; returns the error of each.
fn exchange(client: &mut ClientConnection, server: &mut ServerConnection) -> (Option<Error>, Option<Error>) {
    let (mut client_error, mut server_error): (Option<Error>, Option<Error>) = (None, None);
    loop {
        let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
        while client.wants_write() {
            client.write_tls(&mut to_server).unwrap();
        }
        while server.wants_write() {
            server.write_tls(&mut to_client).unwrap();
        }
        if to_server.is_empty() && to_client.is_empty() {
            return (client_error, server_error);
        }
        let mut bytes = Cursor::new(to_server);
        while server_error.is_none() && server.read_tls(&mut bytes).unwrap() > 0 {
            server_error = server.process_new_packets().err();
        }
        let mut bytes = Cursor::new(to_client);
        while client_error.is_none() && client.read_tls(&mut bytes).unwrap() > 0 {
            client_error = client.process_new_packets().err();
        }
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

/// The certificates of a node, as a program of another make would use them.
fn pem(pki: &Pki) -> (RootCertStore, Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_file_iter(&pki.files().ca).unwrap() {
        roots.add(ca.unwrap()).unwrap();
    }
    (roots, pki.identity().chain().to_vec(), PrivateKeyDer::from_pem_file(&pki.files().key).unwrap())
}

#[test]
fn ends_that_speak_tls_1_2_only_connect_and_are_verified() {
    let mut site = Site::new();
    let issued = site.ca.issue(WEB).unwrap();
    let client = site.client(&issued);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let old = [&rustls::version::TLS12];

    let (roots, chain, key) = pem(&client);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&old);
    let config = builder.unwrap().with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
    let check = |server: &Pki, refusal: Option<&str>| {
        let handshake = server.server_handshake(&[]).unwrap();
        let name = ServerName::try_from(HUB).unwrap();
        let mut client_end = ClientConnection::new(Arc::new(config.clone()), name).unwrap();
        let mut server_end = ServerConnection::new(Arc::clone(&handshake.config)).unwrap();
        let (_, error) = exchange(&mut client_end, &mut server_end);
        assert_eq!(server_end.protocol_version(), Some(ProtocolVersion::TLSv1_2));
        let said = error.map(|error| server.explain(FROM_CLIENT, &error, handshake.refusal().as_ref()));
        assert_eq!(said.is_some(), refusal.is_some(), "{said:?}");
        assert!(said.unwrap_or_default().contains(refusal.unwrap_or_default()));
    };
    check(&site.hub, None);

    let (_, chain, key) = pem(&site.hub);
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&old).unwrap();
    let config = Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap());
    for (name, refusal) in
        [(HUB, None), ("puppet.example.com", Some("is not for the name puppet.example.com"))]
    {
        let handshake = client.client_handshake(&[]).unwrap();
        let server_name = ServerName::try_from(name).unwrap();
        let mut client_end = ClientConnection::new(Arc::clone(&handshake.config), server_name).unwrap();
        let mut server_end = ServerConnection::new(Arc::clone(&config)).unwrap();
        let (error, _) = exchange(&mut client_end, &mut server_end);
        assert_eq!(client_end.protocol_version(), Some(ProtocolVersion::TLSv1_2));
        let said = error.map(|error| client.explain(FROM_SERVER, &error, handshake.refusal().as_ref()));
        assert_eq!(said.is_some(), refusal.is_some(), "{said:?}");
        assert!(said.unwrap_or_default().contains(refusal.unwrap_or_default()));
    }

    site.ca.revoke(&issued);
    fs::write(site.hub.files().crl.as_ref().unwrap(), site.ca.revocation_lists().unwrap()).unwrap();
    site.hub.reload().unwrap();
    check(&site.hub, Some("the certificate of web01.example.com is revoked"));
}

#[test]
fn tls_1_1_is_refused_by_both_ends() {
    let mut site = Site::new();
    let issued = site.ca.issue(WEB).unwrap();
    let client = site.client(&issued);
    let sentence = "speaks neither TLS 1.2 nor TLS 1.3: enable one of the two there";

    // A hello of TLS 1.1: the version, random bytes, no session, one cipher suite, no compression, no extensions.
    let body = [&[3, 2][..], &[7; 32], &[0, 0, 2, 0xc0, 0x13, 1, 0]].concat();
    let server_handshake = site.hub.server_handshake(&[]).unwrap();
    let mut server_end = ServerConnection::new(Arc::clone(&server_handshake.config)).unwrap();
    server_end.read_tls(&mut Cursor::new(hello(1, &body))).unwrap();
    let error = server_end.process_new_packets().unwrap_err();
    let said = site.hub.explain(FROM_CLIENT, &error, None);
    assert_eq!(said, format!("the client at 192.0.2.7:4711 {sentence}"));

    // The answer of a server that knows nothing newer.
    let body = [&[3, 2][..], &[7; 32], &[0, 0xc0, 0x13, 0]].concat();
    let client_handshake = client.client_handshake(&[]).unwrap();
    let name = ServerName::try_from(HUB).unwrap();
    let mut client_end = ClientConnection::new(Arc::clone(&client_handshake.config), name).unwrap();
    client_end.read_tls(&mut Cursor::new(hello(2, &body))).unwrap();
    let error = client_end.process_new_packets().unwrap_err();
    let said = client.explain(FROM_SERVER, &error, None);
    assert_eq!(said, format!("the server hub.example.com:8145 {sentence}"));
}

/// A record of TLS 1.1 with one message of the handshake.
fn hello(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = |length: usize| u8::try_from(length).unwrap();
    let message = [&[kind, 0, 0, length(body.len())], body].concat();
    [&[22, 3, 2, 0, length(message.len())], message.as_slice()].concat()
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
