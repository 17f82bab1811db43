//! A hub that speaks TLS: whom it lets in, and whom it closes out again.

use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trigger_pki::testing::{Issued, TestCa};
use trigger_pki::{Pki, TlsFiles};

use trigger_core::keyspace::Keyspace;
use trigger_fleet::Fleet;
use trigger_pki::LazyPki;
use trigger_store::backend::Backend;
use trigger_store::credentials::Credentials;
use trigger_store::url::BackendUrl;

use super::rights::{done, event_id, publication, states};
use super::*;

const WATCH: &str = "GET /v1/watch HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A hub with its CA and its directory.
pub(super) struct TlsHub {
    pub(super) ca: TestCa,
    pub(super) dir: TempDir,
    pub(super) files: TlsFiles,
    pub(super) hub: Running,
}

impl TlsHub {
    pub(super) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(super) async fn start_with(change: impl FnOnce(&mut HubSettings)) -> Self {
        Self::start_with_async(async |settings, _, _| change(settings)).await
    }

    pub(super) async fn start_with_async(
        change: impl AsyncFnOnce(&mut HubSettings, &mut TestCa, &Path),
    ) -> Self {
        let dir = TempDir::new().unwrap();
        let mut ca = TestCa::new("test").unwrap();
        let files = ca.node(&dir.path().join("hub-ssl"), "hub.example.com").unwrap();
        let mut settings = settings("127.0.0.1:0", &dir.path().join("data"));
        settings.tls = Some(Pki::open(files.clone()).unwrap());
        change(&mut settings, &mut ca, dir.path()).await;
        let hub = Running::spawn(|ready, stopped| run(settings, ready, stopped)).await;
        Self { ca, dir, files, hub }
    }

    /// The certificates of a node, which another CA may have issued.
    pub(super) fn pki(&self, ca: &TestCa, certname: &str, issued: &Issued) -> Pki {
        let dir = self.dir.path().join(certname);
        let mut files = ca.write(&dir, certname, issued).unwrap();
        // It trusts the hub, whoever has issued its own.
        files.ca = self.files.ca.clone();
        files.crl = None;
        Pki::open(files).unwrap()
    }

    pub(super) fn node(&mut self, certname: &str) -> Pki {
        let issued = self.ca.issue(certname).unwrap();
        self.pki(&self.ca, certname, &issued)
    }

    /// Connects as a node. With TLS 1.3 a refusal comes with the first answer only.
    pub(super) async fn connect(&self, node: &Pki) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.hub.address).await?;
        let connector = TlsConnector::from(node.client_config(&[b"http/1.1"]).unwrap());
        connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
    }

    /// Sends a request on a connection of its own, and returns the status line and the body, or the error.
    pub(super) async fn ask(&self, node: &Pki, request: &str) -> Result<String, String> {
        let asked = async {
            let mut stream = self.connect(node).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            Ok::<_, std::io::Error>(String::from_utf8(answer).unwrap())
        };
        let answer = timeout(TIMEOUT, asked).await.unwrap().map_err(|error| error.to_string())?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        Ok(format!("{} {body}", head.lines().next().unwrap_or_default().trim_start_matches("HTTP/1.1 ")))
    }

    pub(super) async fn health(&self, node: &Pki) -> Result<String, String> {
        self.ask(node, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await
    }

    pub(super) async fn metrics(&mut self) -> String {
        let node = self.node("metrics.example.com");
        self.ask(&node, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await
            .unwrap()
    }

    pub(super) async fn watch(&self, node: &Pki) -> TlsStream<TcpStream> {
        let mut stream = self.connect(node).await.unwrap();
        stream.write_all(WATCH.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(TIMEOUT, stream.read_u8()).await.unwrap().unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101"));
        stream
    }

    /// Replaces the revocation lists of the hub.
    pub(super) fn publish_lists(&self) {
        replace(self.files.crl.as_ref().unwrap(), self.ca.revocation_lists().unwrap());
    }
}

/// Replaces a file by a whole one.
fn replace(path: &Path, text: String) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// Whether the hub closes a connection.
pub(super) async fn is_closed(stream: &mut TlsStream<TcpStream>) {
    let reading = async {
        let mut bytes = [0; 1024];
        while matches!(stream.read(&mut bytes).await, Ok(1..)) {}
    };
    timeout(TIMEOUT, reading).await.unwrap();
}

pub(super) const OK: &str = r#"200 OK {"status":"ok","version":"0.1.0"}"#;

#[tokio::test]
async fn a_node_of_the_ca_is_let_in() {
    let mut hub = TlsHub::start().await;
    let node = hub.node("web01.example.com");
    assert_eq!(hub.health(&node).await.unwrap(), OK);
    let body = format!(r#"{{"entries":[{{"key":"{OWN_HISTORY}","value":"1"}}]}}"#);
    let put = format!(
        "POST /v1/put HTTP/1.1\r\nHost: any.name:1\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert!(hub.ask(&node, &put).await.unwrap().starts_with("200 OK"));
    let page = put.replace("Connection", "Origin: https://any.name:1\r\nConnection");
    assert!(hub.ask(&node, &page).await.unwrap().starts_with("403 Forbidden"));
    let metrics = hub.metrics().await;
    assert!(metrics.contains("trigger_hub_handshakes_total{result=\"ok\"} 4"), "{metrics}");
    hub.hub.stop().await;
}

/// A key that `web01.example.com` may write.
const OWN_HISTORY: &str = "/puppet_trigger/events/run-history/web01.example.com";

/// Proves C13: who a client is follows from its certificate, and what it may do from who it is.
#[tokio::test]
async fn the_certname_decides_what_a_node_may_do() {
    let mut hub = TlsHub::start_with(|settings| {
        settings.rights.operators.certnames.insert("ops01.example.com".parse().unwrap());
        settings.rights.operators.auth_roles.insert("trigger".to_owned());
    })
    .await;
    let post = |path: &str, body: &str| {
        format!(
            "POST /v1/{path} HTTP/1.1\r\nHost: any.name:1\r\nContent-Type: application/json\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let put = post("put", &format!(r#"{{"entries":[{{"key":"{OWN_HISTORY}","value":"1"}}]}}"#));
    let read_all = post("read", r#"{"ranges":[{"prefix":"/puppet_trigger/events/"}]}"#);
    let (web01, web02) = (hub.node("web01.example.com"), hub.node("web02.example.com"));
    assert!(hub.ask(&web01, &put).await.unwrap().starts_with("200 OK"));
    assert_eq!(
        hub.ask(&web02, &put).await.unwrap(),
        "403 Forbidden {\"error\":\"web02.example.com may not write run-history/web01.example.com: a node writes its \
         own registration, run history and certificates\",\"denied\":true}"
    );
    let role = rcgen::CustomExtension::from_oid_content(
        &[1, 3, 6, 1, 4, 1, 34380, 1, 3, 13],
        [&[0x0c, 7][..], b"trigger"].concat(),
    );
    let issued = hub.ca.issue_with("mon01.example.com", |params| params.custom_extensions = vec![role]);
    let by_role = hub.pki(&hub.ca, "mon01.example.com", &issued.unwrap());
    let own = Pki::open(hub.files.clone()).unwrap();
    for operator in [hub.node("ops01.example.com"), by_role, own] {
        assert!(hub.ask(&operator, &read_all).await.unwrap().contains(OWN_HISTORY));
        assert!(hub.ask(&operator, &put).await.unwrap().starts_with("403 Forbidden"));
    }
    assert!(hub.ask(&web01, &read_all).await.unwrap().starts_with("403 Forbidden"));
    hub.hub.stop().await;
}

/// A node's own client over TLS: it fires, the target finishes, and the hub is left to sweep.
#[tokio::test]
async fn nodes_fire_and_finish_over_tls() {
    let mut hub = TlsHub::start().await;
    let url: BackendUrl = format!("hub+https://localhost:{}", hub.hub.address.port()).parse().unwrap();
    let fleet = |node: &Pki, certname: &str| {
        let credentials = Credentials { tls: Some(LazyPki::new(node.files().clone())) };
        let backend = Backend::open(&url, &credentials).unwrap();
        let fleet = Fleet::new(Arc::clone(backend.store().unwrap()), Keyspace::default());
        fleet.acting_as(certname.parse().unwrap())
    };
    let (web01, lb01) = (hub.node("web01"), hub.node("lb01"));
    let (origin, target) = (fleet(&web01, "web01"), fleet(&lb01, "lb01"));
    assert!(origin.store().sweeps_itself());
    origin.publish(&publication(1, "web01", "lb01"), false).await.unwrap();
    assert_eq!(target.open_deliveries(target.identity().unwrap()).await.unwrap(), [event_id(1)]);
    let forged = origin.publish(&publication(2, "lb01", "web01"), false).await.unwrap_err();
    assert!(!forged.is_transient(), "it goes to quarantine: {forged}");
    assert!(forged.to_string().contains("a node fires as itself only"), "{forged}");
    target.finish(&[done(1, "lb01")]).await.unwrap();
    assert_eq!(states(&origin, 1).await, "lb01=done");
    assert_eq!(states(&target, 1).await, "lb01=done for lb01 only");
    hub.hub.stop().await;
}

#[tokio::test]
async fn others_are_refused_with_a_reason() {
    let mut hub = TlsHub::start().await;
    let mut other_ca = TestCa::new("other").unwrap();
    let stranger = other_ca.issue("web01.example.com").unwrap();
    let stranger = hub.pki(&other_ca, "stranger", &stranger);
    let expired = hub.ca.issue_with("expired.example.com", |params| {
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let expired = hub.pki(&hub.ca, "expired.example.com", &expired.unwrap());
    let early = hub.ca.issue_with("early.example.com", |params| {
        params.not_before = rcgen::date_time_ymd(2090, 1, 1);
    });
    let early = hub.pki(&hub.ca, "early.example.com", &early.unwrap());
    let revoked = hub.ca.issue("revoked.example.com").unwrap();
    hub.ca.revoke(&revoked);
    let revoked = hub.pki(&hub.ca, "revoked.example.com", &revoked);
    hub.publish_lists();
    let reloaded = async { while !hub.metrics().await.contains("tls_reloads_total{result=\"ok\"} 1") {} };
    timeout(TIMEOUT, reloaded).await.unwrap();
    for (node, reason) in
        [(stranger, "unknown_issuer"), (expired, "expired"), (early, "not_yet_valid"), (revoked, "revoked")]
    {
        let error = hub.health(&node).await.unwrap_err();
        assert!(error.contains("alert"), "{reason}: {error}");
        let counted = format!("trigger_hub_handshakes_total{{result=\"{reason}\"}} 1");
        let metrics = hub.metrics().await;
        assert!(metrics.contains(&counted), "{reason}: {metrics}");
    }

    // One without any certificate, and one that does not even speak TLS.
    let node = hub.node("web01.example.com");
    let mut config = (*node.client_config(&[b"http/1.1"]).unwrap()).clone();
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    let stream = TcpStream::connect(hub.hub.address).await.unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await;
    if let Ok(mut stream) = stream {
        let refused = timeout(TIMEOUT, stream.read(&mut [0; 1])).await.unwrap().unwrap_err().to_string();
        assert!(refused.contains("CertificateRequired"), "{refused}");
    }
    let plain = hub.hub.raw("GET /healthz HTTP/1.1\nHost: HOST\nConnection: close\n\n").await;
    assert!(!plain.contains("200 OK"), "{plain}");
    let metrics = hub.metrics().await;
    for reason in ["no_certificate", "not_tls"] {
        assert!(metrics.contains(&format!("handshakes_total{{result=\"{reason}\"}} 1")), "{metrics}");
    }
    hub.hub.stop().await;
}

/// A client that presents nothing.
#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn one_that_is_revoked_while_connected_is_closed_at_once_and_others_are_not() {
    let mut hub = TlsHub::start().await;
    let issued = hub.ca.issue("bad.example.com").unwrap();
    let bad = hub.pki(&hub.ca, "bad.example.com", &issued);
    let good = hub.node("good.example.com");
    let (mut bad_watch, mut good_watch) = (hub.watch(&bad).await, hub.watch(&good).await);
    let mut bad_idle = hub.connect(&bad).await.unwrap();
    hub.ca.revoke(&issued);
    hub.publish_lists();
    is_closed(&mut bad_watch).await;
    is_closed(&mut bad_idle).await;
    assert!(hub.health(&bad).await.is_err());
    goes_on(&mut good_watch).await;
    let metrics = hub.metrics().await;
    assert!(metrics.contains("closed_connections_total{reason=\"revoked\"} 2"), "{metrics}");
    hub.hub.stop().await;
}

/// A session goes on: it answers a message that is no request for a watch.
async fn goes_on(watch: &mut TlsStream<TcpStream>) {
    let masked = [0x81, 0x81, 0, 0, 0, 0, b'x'];
    watch.write_all(&masked).await.unwrap();
    let mut answer = [0; 256];
    let length = timeout(TIMEOUT, watch.read(&mut answer)).await.unwrap().unwrap();
    let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
    assert!(answer.contains("the message is not what a watch takes"), "{answer}");
}

/// A CA that was made again has the name of the former one, and a fleet has nodes of both until all are renewed.
#[tokio::test]
async fn one_whose_ca_is_removed_while_connected_is_closed_at_once_and_others_are_not() {
    let mut former_ca = TestCa::new("test").unwrap();
    let mut hub = TlsHub::start_with_async(async |settings, ca, _| {
        let files = settings.tls.as_ref().unwrap().files().clone();
        replace(&files.ca, former_ca.certificates() + &ca.certificates());
        let lists = [&former_ca, &*ca].map(|ca| ca.revocation_lists().unwrap());
        replace(files.crl.as_ref().unwrap(), lists.concat());
        settings.tls = Some(Pki::open(files).unwrap());
    })
    .await;
    let issued = former_ca.issue("former.example.com").unwrap();
    let former = hub.pki(&former_ca, "former.example.com", &issued);
    let present = hub.node("present.example.com");
    assert_eq!(hub.health(&former).await.unwrap(), OK);
    let (mut former_watch, mut present_watch) = (hub.watch(&former).await, hub.watch(&present).await);
    replace(&hub.files.ca, hub.ca.certificates());
    is_closed(&mut former_watch).await;
    let refused = hub.health(&former).await.unwrap_err();
    assert!(refused.contains("alert"), "{refused}");
    goes_on(&mut present_watch).await;
    assert_eq!(hub.health(&present).await.unwrap(), OK);
    let metrics = hub.metrics().await;
    for counted in [
        "closed_connections_total{reason=\"unknown_issuer\"} 1",
        "handshakes_total{result=\"unknown_issuer\"} 1",
    ] {
        assert!(metrics.contains(counted), "{metrics}");
    }
    hub.hub.stop().await;
}

#[tokio::test]
async fn a_renewed_certificate_of_the_hub_disturbs_nobody() {
    let mut hub = TlsHub::start().await;
    let node = hub.node("web01.example.com");
    let mut watch = hub.watch(&node).await;
    let before = hub.connect(&node).await.unwrap();
    let renewed = hub.ca.issue("hub.example.com").unwrap();
    hub.ca.write(&hub.dir.path().join("hub-ssl"), "hub.example.com", &renewed).unwrap();
    let certificate =
        |stream: &TlsStream<TcpStream>| stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    let is_used = async {
        while certificate(&hub.connect(&node).await.unwrap()) == certificate(&before) {
            tokio::task::yield_now().await;
        }
    };
    timeout(TIMEOUT, is_used).await.unwrap();
    watch.write_all(&[0x89, 0x80, 0, 0, 0, 0]).await.unwrap();
    let mut pong = [0; 2];
    timeout(TIMEOUT, watch.read_exact(&mut pong)).await.unwrap().unwrap();
    assert_eq!(pong, [0x8a, 0]);
    hub.hub.stop().await;
}

#[tokio::test]
async fn files_that_do_not_fit_leave_the_old_ones_in_use() {
    let mut hub = TlsHub::start().await;
    let node = hub.node("web01.example.com");
    std::fs::write(&hub.files.key, "nonsense").unwrap();
    let counted = async { while !hub.metrics().await.contains("tls_reloads_total{result=\"failed\"} 1") {} };
    timeout(TIMEOUT, counted).await.unwrap();
    assert_eq!(hub.health(&node).await.unwrap(), OK);
    hub.hub.stop().await;
}

#[tokio::test]
async fn handshakes_that_take_long_hold_up_nobody() {
    let mut hub = TlsHub::start().await;
    let node = hub.node("web01.example.com");
    let mut slow = Vec::new();
    for bytes in [&b""[..], b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01"] {
        for _ in 0..10 {
            let mut stream = TcpStream::connect(hub.hub.address).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            slow.push(stream);
        }
    }
    assert_eq!(hub.health(&node).await.unwrap(), OK);
    for mut stream in slow {
        let mut bytes = Vec::new();
        let closed = timeout(TIMEOUT, stream.read_to_end(&mut bytes)).await.unwrap();
        assert!(closed.is_err() || bytes.is_empty());
    }
    let metrics = hub.metrics().await;
    assert!(metrics.contains("handshakes_total{result=\"timed_out\"} 30"), "{metrics}");
    hub.hub.stop().await;
}

#[tokio::test]
async fn health_checks_of_this_machine_need_no_certificate() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let hub = TlsHub::start_with(|settings| {
        // Another address, whose free port cannot be the same one.
        settings.listen = "127.0.0.2:0".to_owned();
        settings.health_listen = Some(format!("127.0.0.1:{port}"));
    })
    .await;
    let health = Running { address: ([127, 0, 0, 1], port).into(), ..hub.hub };
    assert_eq!(health.get("/healthz").await, OK);
    assert!(health.get("/metrics").await.contains("trigger_hub_tls_connections 0"));
    assert!(health.post("/v1/put", "{}").await.starts_with("404 Not Found"));
    health.stop().await;
}
