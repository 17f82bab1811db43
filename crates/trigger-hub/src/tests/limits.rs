//! What one node may use of a hub, and that others do not notice one that uses all of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::tls::{OK, TlsHub};
use super::*;

/// A request that keeps its connection.
/// A request in which a node writes its own run history; `padding` makes the body larger, and not the value.
fn put(node: &str, value: &str, padding: &str) -> String {
    let key = format!("/puppet_trigger/events/run-history/{node}.example.com");
    let body = format!(r#"{{{padding}"entries":[{{"key":"{key}","value":"{value}"}}]}}"#);
    format!(
        "POST /v1/put HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends a request on a connection that is kept, and returns the head of the answer.
async fn send(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), request: &str) -> Option<String> {
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    Some(head)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greedy_node_is_slowed_down_and_others_do_not_notice() {
    let mut hub = TlsHub::start().await;
    let (greedy, modest) = (hub.node("greedy.example.com"), hub.node("modest.example.com"));
    let since = Instant::now();
    let stored = Arc::new(AtomicU64::new(0));
    for _ in 0..16 {
        let mut stream = hub.connect(&greedy).await.unwrap();
        let stored = Arc::clone(&stored);
        tokio::spawn(async move {
            let value = "x".repeat(10_000);
            while send(&mut stream, &put("greedy", &value, "")).await.is_some() {
                stored.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let is_over_its_burst = async {
        while stored.load(Ordering::Relaxed) < 450 {
            tokio::task::yield_now().await;
        }
    };
    timeout(TIMEOUT, is_over_its_burst).await.unwrap();

    let mut stream = hub.connect(&modest).await.unwrap();
    let mut longest = Duration::ZERO;
    for n in 0..100 {
        let begun = Instant::now();
        let head =
            timeout(TIMEOUT, send(&mut stream, &put("modest", &n.to_string(), ""))).await.unwrap().unwrap();
        longest = longest.max(begun.elapsed());
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    }
    let (stored, elapsed) = (stored.load(Ordering::Relaxed), since.elapsed());
    hub.hub.stop().await;
    let most = 400.0 + 100.0 * elapsed.as_secs_f64() + 16.0;
    assert!((stored as f64) < most, "{stored} in {elapsed:?}");
    // Far less than a client waits, on a machine that is busy with other tests too.
    assert!(longest < Duration::from_secs(2), "{longest:?}");
}

#[tokio::test]
async fn a_node_that_owes_too_much_is_told_when_to_come_back() {
    let mut hub = TlsHub::start().await;
    let node = hub.node("greedy.example.com");
    let head = "POST /v1/put HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 60000000\r\n\r\n";
    let mut stream = hub.connect(&node).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let refused = async {
        loop {
            let answer = hub.health(&node).await.unwrap();
            if answer != OK {
                break answer;
            }
        }
    };
    let answer = timeout(TIMEOUT, refused).await.unwrap();
    assert!(
        answer.starts_with("429 Too Many Requests {\"error\":\"greedy.example.com sends more"),
        "{answer}"
    );
    let mut another = hub.connect(&node).await.unwrap();
    let head = send(&mut another, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    assert!(head.contains("retry-after: "), "{head}");
    assert!(hub.metrics().await.contains("trigger_hub_limited_requests_total "));
    hub.hub.stop().await;
}

#[tokio::test]
async fn a_node_with_too_many_connections_is_told_so_and_others_are_not_affected() {
    let mut hub = TlsHub::start().await;
    let (greedy, modest) = (hub.node("greedy.example.com"), hub.node("modest.example.com"));
    let mut watches = Vec::new();
    for _ in 0..16 {
        watches.push(hub.watch(&greedy).await);
    }
    let answer = hub.health(&greedy).await.unwrap();
    assert!(
        answer.starts_with("429 Too Many Requests {\"error\":\"greedy.example.com 127.0.0.1:"),
        "{answer}"
    );
    assert!(answer.contains("has 16 connections open"), "{answer}");
    assert_eq!(hub.health(&modest).await.unwrap(), OK);
    watches.pop();
    let is_let_in = async { while hub.health(&greedy).await.unwrap() != OK {} };
    timeout(TIMEOUT, is_let_in).await.unwrap();
    hub.hub.stop().await;
}

#[tokio::test]
async fn large_bodies_of_one_node_come_one_after_another() {
    let mut hub = TlsHub::start().await;
    let (greedy, modest) = (hub.node("greedy.example.com"), hub.node("modest.example.com"));
    let large = "POST /v1/put HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9000000\r\n\r\n";
    let mut begun = Vec::new();
    for _ in 0..10 {
        let mut stream = hub.connect(&greedy).await.unwrap();
        stream.write_all(large.as_bytes()).await.unwrap();
        begun.push(stream);
    }
    let padding = " ".repeat(2_000_000);
    let mut stream = hub.connect(&modest).await.unwrap();
    let head = timeout(TIMEOUT, send(&mut stream, &put("modest", "1", &padding))).await.unwrap().unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    drop(begun);
    hub.hub.stop().await;
}
