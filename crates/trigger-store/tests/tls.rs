//! Links with TLS: to a real etcd that demands client certificates, and to a server that verifies as a hub does. Each
//! failure is a sentence that names who is at fault.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says what it expects")]

#[path = "../../trigger-fleet/tests/support/etcd_server.rs"]
mod etcd_server;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use etcd_server::EtcdServer;
use futures_util::StreamExt;
use rcgen::date_time_ymd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use trigger_pki::testing::TestCa;
use trigger_pki::{LazyPki, Pki, TlsFiles};
use trigger_store::backend::Backend;
use trigger_store::credentials::Credentials;
use trigger_store::store::{KeyRange, Store, StoreError, WatchEvent};

const HUB: &str = "hub.example.com";
const WEB: &str = "web01.example.com";

struct Site {
    directory: tempfile::TempDir,
    ca: TestCa,
    /// Of the server.
    server: TlsFiles,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut ca = TestCa::new("puppet").unwrap();
        let server = ca.node(&directory.path().join("server"), HUB).unwrap();
        Self { directory, ca, server }
    }

    fn client(&mut self) -> TlsFiles {
        self.ca.node(&self.directory.path().join("client"), WEB).unwrap()
    }

    /// The sentence without the paths of this test.
    fn clean(&self, error: &StoreError) -> String {
        error.to_string().replace(self.directory.path().to_str().unwrap(), "DIR")
    }
}

fn open(url: &str, files: &TlsFiles) -> Arc<dyn Store> {
    let credentials = Credentials { tls: Some(LazyPki::new(files.clone())) };
    Backend::open(&url.parse().unwrap(), &credentials).unwrap().store().unwrap().clone()
}

async fn put(store: &dyn Store) -> Result<(), StoreError> {
    store.put_many(vec![("/p/a".to_owned(), "1".to_owned())]).await.remove(0).map(drop)
}

/// A server that verifies its clients as a hub does, and answers each request as if it had stored one entry.
async fn hub(files: &TlsFiles) -> u16 {
    let pki = Pki::open(files.clone()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            pki.reload().unwrap();
            let handshake = pki.server_handshake(&[b"http/1.1"]).unwrap();
            let acceptor = TlsAcceptor::from(Arc::clone(&handshake.config));
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            while matches!(stream.read(&mut request).await, Ok(length) if length > 0) {
                let body = r#"{"revisions":[1]}"#;
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    port
}

#[tokio::test]
async fn a_request_reaches_a_hub_and_a_reloaded_certificate_is_used_for_the_next_connection() {
    let mut site = Site::new();
    let files = site.client();
    let port = hub(&site.server).await;
    for host in ["127.0.0.1", "localhost"] {
        put(&*open(&format!("hub+https://{host}:{port}"), &files)).await.unwrap();
    }
    // A node whose certificate is not signed yet gets through as soon as it is.
    let certificate = fs::read(&files.certificate).unwrap();
    fs::remove_file(&files.certificate).unwrap();
    let store = open(&format!("hub+https://127.0.0.1:{port}"), &files);
    let error = put(&*store).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    assert!(site.clean(&error).contains("this node has no signed certificate yet"), "{error}");
    fs::write(&files.certificate, certificate).unwrap();
    put(&*store).await.unwrap();
}

/// What a client says whose certificate is wrong, and that nothing was done.
async fn check_refused(site: &Site, files: &TlsFiles, port: u16, expected: &str) {
    let store = open(&format!("hub+https://127.0.0.1:{port}"), files);
    let error = put(&*store).await.unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error:?}");
    let sentence = site.clean(&error);
    assert!(sentence.contains(expected), "{sentence}");
    let watch = store.watch(vec![KeyRange::Key("a".to_owned())]).await.err().unwrap();
    assert!(matches!(watch, StoreError::Unreachable { .. }), "{watch:?}");
    assert!(site.clean(&watch).contains(expected), "{watch}");
}

#[tokio::test]
async fn each_refusal_of_a_hub_is_a_sentence() {
    let mut site = Site::new();
    let port = hub(&site.server).await;
    let directory = site.directory.path().join("client");

    let expired = site.ca.issue_with(WEB, |params| params.not_after = date_time_ymd(2021, 1, 1)).unwrap();
    let files = site.ca.write(&directory, WEB, &expired).unwrap();
    let expected = "refuses this node's certificate DIR/client/certs/web01.example.com.pem (web01.example.com): it is \
                    valid from 2020-01-01 00:00:00 UTC to 2021-01-01 00:00:00 UTC";
    check_refused(&site, &files, port, expected).await;

    let early = site.ca.issue_with(WEB, |params| params.not_before = date_time_ymd(2099, 1, 1)).unwrap();
    let files = site.ca.write(&directory, WEB, &early).unwrap();
    check_refused(&site, &files, port, "it is valid from 2099-01-01 00:00:00 UTC to").await;

    let revoked = site.ca.issue(WEB).unwrap();
    site.ca.revoke(&revoked);
    fs::write(site.server.crl.as_ref().unwrap(), site.ca.revocation_lists().unwrap()).unwrap();
    let files = site.ca.write(&directory, WEB, &revoked).unwrap();
    check_refused(&site, &files, port, "(web01.example.com): it is revoked; a node that").await;

    // Of another CA, although it trusts that of the hub.
    let files = TestCa::new("elsewhere").unwrap().node(&directory, WEB).unwrap();
    fs::write(&files.ca, site.ca.certificates()).unwrap();
    fs::write(files.crl.as_ref().unwrap(), site.ca.revocation_lists().unwrap()).unwrap();
    check_refused(&site, &files, port, "it does not know the CA that issued it").await;

    let files = TestCa::new("elsewhere").unwrap().node(&directory, WEB).unwrap();
    let expected = "is not trusted: the certificate of hub.example.com was issued by Puppet CA: puppet, which is not \
                    among the CAs in DIR/client/certs/ca.pem";
    check_refused(&site, &files, port, expected).await;
}

#[tokio::test]
async fn a_hub_under_another_name_or_without_tls_is_named() {
    let mut site = Site::new();
    let files = site.client();
    let issued = site.ca.issue_with(HUB, |params| drop(params.subject_alt_names.drain(1..))).unwrap();
    let server = site.ca.write(&site.directory.path().join("server"), HUB, &issued).unwrap();
    let port = hub(&server).await;
    let expected = "the certificate of hub.example.com is not for the name 127.0.0.1, only for hub.example.com: use one \
                    of these names in the URL";
    check_refused(&site, &files, port, expected).await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    check_refused(&site, &files, port, "does not speak TLS: use the URL's scheme without TLS").await;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
        }
    });
    check_refused(&site, &files, port, "closed the connection in the TLS handshake: it may have").await;
}

#[tokio::test]
async fn etcd_is_read_written_and_watched_by_certificate() {
    let mut site = Site::new();
    let files = site.client();
    let etcd = EtcdServer::start_with_tls(&site.server, &[]).await;
    let store = open(&format!("etcds://{}", etcd.tls_endpoint()), &files);
    put(&*store).await.unwrap();
    let mut watch = store.watch(vec![KeyRange::Key("/p/a".to_owned())]).await.unwrap();
    let WatchEvent::Snapshot(entries) = watch.next().await.unwrap().unwrap() else { panic!("a snapshot") };
    assert_eq!(entries.len(), 1);
    store.delete_many(vec!["/p/a".to_owned()]).await.unwrap();
    assert!(matches!(watch.next().await.unwrap().unwrap(), WatchEvent::Changes { .. }));
    assert!(store.read(&[KeyRange::Key("/p/a".to_owned())]).await.unwrap().is_empty());
}

#[tokio::test]
async fn etcds_refusals_are_sentences() {
    let mut site = Site::new();
    let etcd = EtcdServer::start_with_tls(&site.server, &[]).await;
    let url = format!("etcds://{}", etcd.tls_endpoint());
    let directory = site.directory.path().join("client");
    let check = async |site: &Site, files: &TlsFiles, expected: &str| {
        let error = put(&*open(&url, files)).await.unwrap_err();
        let sentence = site.clean(&error);
        assert!(sentence.contains(expected), "{sentence}");
    };
    let files = TestCa::new("elsewhere").unwrap().node(&directory, WEB).unwrap();
    check(
        &site,
        &files,
        "is not trusted: the certificate of hub.example.com was issued by Puppet CA: puppet",
    )
    .await;
    fs::write(&files.ca, site.ca.certificates()).unwrap();
    fs::write(files.crl.as_ref().unwrap(), site.ca.revocation_lists().unwrap()).unwrap();
    check(&site, &files, "refuses this node's certificate DIR/client/certs/web01.example.com.pem").await;
    let expired = site.ca.issue_with(WEB, |params| params.not_after = date_time_ymd(2021, 1, 1)).unwrap();
    let files = site.ca.write(Path::new(&directory), WEB, &expired).unwrap();
    check(&site, &files, "refuses this node's certificate DIR/client/certs/web01.example.com.pem").await;
}

#[test]
fn without_certificates_a_url_with_tls_is_refused_as_configuration() {
    for url in ["hub+https://hub.example.com:8145", "etcds://a:2379"] {
        let error = Backend::open(&url.parse().unwrap(), &Credentials::default()).err().unwrap().to_string();
        assert!(
            error.starts_with(&format!("'{url}' needs this node's certificates, and there are none")),
            "{error}"
        );
    }
}
