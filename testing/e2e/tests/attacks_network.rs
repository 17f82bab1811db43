//! Attacks by those who have a network and no good certificate, on a real hub and a real etcd (C13).

#![allow(clippy::expect_used, reason = "a test fails where its scenery cannot be built")]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use trigger_e2e::{
    Authority, BackendKind, Crl, Fleet, Process, Request, SERVER, Ssl, Validity, eventually, free_port,
    on_each_backend, program,
};

on_each_backend!(
    who_listens_reads_nothing_and_who_changes_bytes_changes_no_event,
    a_client_without_a_good_certificate_is_not_let_in,
    connections_that_finish_no_handshake_hold_up_no_node,
);

const LB: &str = "lb01.example.com";
const WEB: &str = "web01.example.com";

/// A place on the line, which keeps all bytes and spoils some.
struct Tap {
    port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
    /// How many of the next pieces are spoilt.
    to_spoil: Arc<AtomicUsize>,
}

impl Tap {
    fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let own = listener.local_addr().expect("an address").port();
        let tap = Self { port: own, heard: Arc::default(), to_spoil: Arc::default() };
        let (heard, to_spoil) = (Arc::clone(&tap.heard), Arc::clone(&tap.to_spoil));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let ends = client.try_clone().and_then(|from| Ok((from, server.try_clone()?)));
                let Ok((client_in, server_in)) = ends else { continue };
                for (from, to) in [(client_in, server), (server_in, client)] {
                    let (heard, to_spoil) = (Arc::clone(&heard), Arc::clone(&to_spoil));
                    std::thread::spawn(move || carry(from, to, &heard, &to_spoil));
                }
            }
        });
        tap
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, heard: &Mutex<Vec<u8>>, to_spoil: &AtomicUsize) {
    let mut piece = [0; 16_384];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        heard.lock().expect("what was heard").extend(&piece[..length]);
        let spoils = to_spoil.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if spoils.is_ok() {
            // The last byte of a record is one of its authentication code.
            piece[length - 1] ^= 1;
        }
        if to.write_all(&piece[..length]).is_err() {
            break;
        }
    }
    // The other direction ends too.
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}

/// Proves C1 and C13.
fn who_listens_reads_nothing_and_who_changes_bytes_changes_no_event(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let lb = fleet.running(LB);
    let tap = Tap::before(fleet.backend.port());
    let url = fleet.backend.url().replace(&fleet.backend.port().to_string(), &tap.port.to_string());
    let mut web = fleet.node(WEB);
    web.set("backend", &format!("'{url}'")).start_agent();
    let event = web.fire(&["a-name-to-listen-for", "--host", LB, "--host", WEB]).committed();
    web.wait_for(&event, LB, "done");
    web.wait_for(&event, WEB, "done");
    let heard = tap.heard.lock().expect("what was heard").clone();
    assert!(heard.len() > 1000, "all goes through here: {}", heard.len());
    for secret in ["a-name-to-listen-for", event.as_str(), LB, "puppet_trigger"] {
        let found = heard.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{secret} was heard");
    }
    // A connection with a spoilt byte is given up, and the event comes over another one.
    tap.to_spoil.store(4, Ordering::Relaxed);
    let event = web.fire(&["refresh", "--host", LB, "--host", WEB]).event();
    eventually("bytes that were spoilt", || match tap.to_spoil.load(Ordering::Relaxed) {
        0 => Ok(()),
        left => Err(left.to_string()),
    });
    web.wait_for(&event, LB, "done");
    web.wait_for(&event, WEB, "done");
    assert_eq!((lb.runs().len(), web.runs().len()), (2, 2));
}

/// A request as any TLS client sends it, with this certificate.
fn visit(port: u16, ssl: Option<&Ssl>) -> Output {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--insecure", "--max-time", "10"]);
    if let Some(ssl) = ssl {
        curl.arg("--cert").arg(ssl.certificate()).arg("--key").arg(ssl.key());
    }
    curl.arg(format!("https://localhost:{port}/health")).output().expect("curl")
}

/// Proves C13.
fn a_client_without_a_good_certificate_is_not_let_in(kind: BackendKind) {
    let mut fleet = Fleet::on(kind);
    let ca = Authority::puppet();
    let at = |name: &str| fleet.directory(name);
    let good = ca.node(WEB, &at("good"));
    let foreign = Authority::stranger().node(WEB, &at("foreign"));
    let expired = ca.issue(&Request::of(WEB).valid(Validity::Expired), &at("expired"));
    let early = ca.issue(&Request::of(WEB).valid(Validity::NotYet), &at("early"));
    let revoked = ca.node(LB, &at("revoked"));
    let lists = ca.crl(&Crl { revoked: vec![&revoked], number: 2, ..Crl::default() });
    fleet.backend.ssl().set_crl(&lists);
    let more = match kind.is_hub() {
        true => Vec::new(),
        false => vec!["--client-crl-file".to_owned(), fleet.backend.ssl().crl().display().to_string()],
    };
    fleet.backend.restart_with(&more);
    let port = fleet.backend.port();
    assert!(visit(port, Some(&good)).status.success(), "{:?}", visit(port, Some(&good)));
    for (what, ssl) in [
        ("no certificate", None),
        ("another CA's", Some(&foreign)),
        ("expired", Some(&expired)),
        ("not yet valid", Some(&early)),
        ("revoked", Some(&revoked)),
    ] {
        let answer = visit(port, ssl);
        assert!(!answer.status.success(), "{what}: {answer:?}");
        assert!(answer.stdout.is_empty(), "{what}: {answer:?}");
    }
    if kind.is_hub() {
        for reason in ["no certificate", "issued by", "expired", "valid from", "revoked"] {
            eventually("a refusal in the hub's log", || {
                let log = fleet.backend.log();
                if log.contains(reason) { Ok(()) } else { Err(format!("'{reason}' is missing in {log}")) }
            });
        }
    }
    // Nor in the clear.
    let mut plain = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    plain
        .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("a request");
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said);
    assert!(!said.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&said));
}

/// Proves C13.
fn connections_that_finish_no_handshake_hold_up_no_node(kind: BackendKind) {
    const MANY: usize = 400;
    let fleet = Fleet::on(kind);
    let _lb = fleet.running(LB);
    let silent: Vec<TcpStream> = (0..MANY)
        .map(|n| {
            let mut stream = TcpStream::connect(("127.0.0.1", fleet.backend.port())).expect("a connection");
            if n % 2 == 0 {
                // The beginning of a TLS record that never comes.
                let _ = stream.write_all(&[22, 3, 1, 2, 0]);
            }
            stream
        })
        .collect();
    let web = fleet.node(WEB);
    let event = web.fire(&["refresh", "--host", LB]).event();
    web.wait_for(&event, LB, "done");
    assert_eq!(silent.len(), MANY);
}

/// Proves C13: no certificate of the CA that is good for another name, and no other CA's for this name, is the server's.
/// What a node says to each of them is in `tls.rs`.
#[test]
fn a_server_that_poses_as_the_hub_gets_no_event() {
    let fleet = Fleet::on(BackendKind::Hub);
    for (name, impostor) in [
        ("foreign", Authority::stranger().server(&fleet.directory("foreign"))),
        ("node", Authority::puppet().node("evil.example.com", &fleet.directory("node"))),
    ] {
        let port = free_port();
        let mut server = openssl_server("-WWW", port, &impostor, &fleet.directory(name));
        let mut web = fleet.node_in(&format!("web-{name}"), WEB);
        web.set("backend", &format!("'hub+https://localhost:{port}'"));
        let answer = web.fire(&["a-name-to-listen-for", "--host", LB]);
        answer.spooled();
        assert!(answer.warnings().contains("is not trusted"), "{answer:?}");
        assert!(!server.log().contains("a-name-to-listen-for"), "{}", server.log());
        server.kill();
    }
}

/// A TLS server for the files of a directory, which `-HTTP` takes for whole answers. It prints what it is asked.
fn openssl_server(answers: &str, port: u16, ssl: &Ssl, directory: &Path) -> Process {
    let mut command = Command::new("openssl");
    command.args(["s_server", answers, "-accept", &port.to_string()]).current_dir(directory);
    command.arg("-cert").arg(ssl.certificate()).arg("-key").arg(ssl.key());
    let server = Process::start(&mut command, &directory.join("log"), "openssl");
    eventually("a server that listens", || {
        TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|error| error.to_string())
    });
    server
}

/// Proves C13: a hub whose own file of lists is stale has the newer one from the Puppet server.
#[test]
fn a_hub_with_a_stale_list_fetches_the_one_that_revokes() {
    let mut fleet = Fleet::on(BackendKind::Hub);
    let evil = fleet.running("evil.example.com");
    let ca = Authority::puppet();
    let port = free_port();
    let puppet = fleet.directory("puppet");
    let name = "puppet-ca/v1/certificate_revocation_list";
    fs::create_dir_all(puppet.join(name)).expect("a directory");
    let ssl = evil.ssl();
    let lists = Crl { revoked: vec![&ssl], number: 2, ..Crl::default() };
    // openssl sends a file as it is: it has the answer's head.
    let list = ca.crl(&lists);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{list}",
        list.len()
    );
    fs::write(puppet.join(name).join("ca"), answer).expect("a list");
    let server = ca.server(&fleet.directory("puppet-ssl"));
    let _puppet = openssl_server("-HTTP", port, &server, &puppet);
    let url = format!("https://localhost:{port}/{name}/ca");
    fleet.backend.restart_with(&[format!("crl_url = '{url}'")]);
    evil.wait_until_disconnected("it is revoked");
    assert_eq!(SERVER, "puppet.example.test", "the server's certificate has the name localhost too");
}

/// Proves C13: a web page that a browser on the hub's machine shows.
#[test]
fn a_web_page_sends_the_hub_nothing() {
    let fleet = Fleet::on(BackendKind::PlainHub);
    let port = fleet.backend.port();
    let key = "/puppet_trigger/events/nodes/evil.example.com";
    let body = format!(r#"{{"entries":[{{"key":"{key}","value":"x"}}]}}"#);
    let send = |headers: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--data-raw", &body]);
        curl.args(headers.iter().flat_map(|header| ["--header", header]));
        let output = curl.arg(format!("http://127.0.0.1:{port}/v1/put")).output().expect("curl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let json = "Content-Type: application/json";
    for headers in [
        // A page of another site; a form; a name of another site that resolves to this machine.
        &[json, "Origin: https://evil.example.com"][..],
        &["Content-Type: text/plain"],
        &[json, "Host: evil.example.com"],
    ] {
        let status = send(headers);
        assert!(status.starts_with('4'), "{headers:?}: {status}");
    }
    assert_eq!(fleet.backend.get(key), None);
    assert_eq!(send(&[json]), "200", "without them it is a client's request");
}

/// Proves C13: nothing crosses a network in the clear.
#[test]
fn a_hub_without_tls_listens_on_loopback_only_and_is_spoken_to_there_only() {
    let fleet = Fleet::on(BackendKind::PlainHub);
    let config = fleet.path().join("hub.toml");
    fs::write(&config, "[hub]\ntls = false\n").expect("a configuration");
    let mut hub = Command::new(program());
    hub.args(["hub", "--listen", &format!("0.0.0.0:{}", free_port()), "--config"]).arg(&config);
    let output = hub.arg("--data-dir").arg(fleet.path().join("data")).output().expect("trigger");
    assert!(!output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("without TLS, since other machines reach that address"), "{said}");
    let mut node = fleet.node(WEB);
    node.set("backend", "'hub+http://192.0.2.1:8145'");
    let answer = node.fire(&["refresh", "--host", LB]);
    assert!([2, 3].contains(&answer.code), "{answer:?}");
    assert!(answer.json["error"].to_string().contains("hub+https"), "{answer:?}");
}
