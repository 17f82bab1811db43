//! Revocation lists that the hub fetches.

use std::sync::Mutex;

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use trigger_pki::Pki;

use super::tls::{OK, TlsHub, is_closed};
use super::*;
use crate::CrlFetch;

/// A Puppet server that hands out what `lists` holds.
async fn puppet_server(pki: Pki, lists: Arc<Mutex<String>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = TlsAcceptor::from(pki.server_config(&[b"http/1.1"]).unwrap());
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            assert!(request.starts_with("GET /puppet-ca/v1/crl HTTP/1.1\r\n"), "{request}");
            let body = lists.lock().unwrap().clone();
            let answer = match body.is_empty() {
                true => "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n".to_owned(),
                false => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn a_node_that_a_fetched_list_revokes_is_closed_and_older_lists_do_not_count() {
    let lists = Arc::new(Mutex::new(String::new()));
    let mut hub = TlsHub::start_with_async(async |settings, ca, dir| {
        let server = ca.node(&dir.join("puppet-ssl"), "puppet.example.com").unwrap();
        let address = puppet_server(Pki::open(server).unwrap(), Arc::clone(&lists)).await;
        let file = settings.data_dir.join("crl.pem");
        let files = settings.tls.as_ref().unwrap().files().clone();
        settings.tls = Some(Pki::open_with_more_lists(files, vec![file.clone()]).unwrap());
        let url = format!("https://{address}/puppet-ca/v1/crl").parse().unwrap();
        settings.crl_fetch = Some(CrlFetch { url, interval: Duration::from_millis(50), file });
    })
    .await;
    let issued = hub.ca.issue("bad.example.com").unwrap();
    let bad = hub.pki(&hub.ca, "bad.example.com", &issued);
    let mut watch = hub.watch(&bad).await;
    let before = hub.ca.revocation_lists().unwrap();
    let fetched = async |hub: &mut TlsHub, result: &str| {
        let line = format!("trigger_hub_crl_fetches_total{{result=\"{result}\"}} ");
        let count = |page: &str| {
            page.lines().find_map(|found| found.strip_prefix(&line)?.parse::<u64>().ok()).unwrap_or(0)
        };
        let begun = count(&hub.metrics().await);
        let counted = async { while count(&hub.metrics().await) < begun + 2 {} };
        timeout(TIMEOUT, counted).await.unwrap();
    };
    fetched(&mut hub, "failed").await;
    "nonsense".clone_into(&mut lists.lock().unwrap());
    fetched(&mut hub, "failed").await;
    assert_eq!(hub.health(&bad).await.unwrap(), OK);

    hub.ca.revoke(&issued);
    *lists.lock().unwrap() = hub.ca.revocation_lists().unwrap();
    is_closed(&mut watch).await;
    assert!(hub.metrics().await.contains("closed_connections_total{reason=\"revoked\"} 1"));
    assert!(hub.health(&bad).await.is_err());
    *lists.lock().unwrap() = before;
    fetched(&mut hub, "unchanged").await;
    assert!(hub.health(&bad).await.is_err(), "an older list does not count");
    hub.hub.stop().await;
}
