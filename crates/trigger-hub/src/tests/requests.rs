//! The requests that the server accepts and refuses, and its answers.

use super::*;

#[tokio::test]
async fn a_web_page_cannot_write() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let body = r#"{"keys":["/a"]}"#;
    let json = "Content-Type: application/json";
    for (headers, expected) in [
        (format!("Host: HOST\n{json}"), "200 OK {\"deleted\":0}"),
        (format!("Host: HOST\n{json}; charset=utf-8"), "200 OK {\"deleted\":0}"),
        (format!("Host: HOST\n{json}\nOrigin: http://HOST"), "200 OK {\"deleted\":0}"),
        (format!("Host: evil.example\n{json}"), "403 Forbidden {\"error\":\"the request's Host is not"),
        (format!("Host: HOST\nHost: evil.example\n{json}"), "403 Forbidden"),
        (
            format!("Host: HOST\n{json}\nOrigin: http://evil.example"),
            "403 Forbidden {\"error\":\"the request comes from",
        ),
        (format!("Host: HOST\n{json}\nOrigin: null"), "403 Forbidden"),
        (
            "Host: HOST\nContent-Type: text/plain".to_owned(),
            "415 Unsupported Media Type {\"error\":\"the request needs",
        ),
        ("Host: HOST".to_owned(), "415 Unsupported Media Type"),
    ] {
        let length = body.len();
        let request = format!(
            "POST /v1/delete HTTP/1.1\n{headers}\nConnection: close\nContent-Length: {length}\n\n{body}"
        );
        let answer = hub.raw(&request).await;
        assert!(answer.starts_with(expected), "{headers}: {answer}");
    }
    let upgrade = "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let answer = hub.raw(&format!("GET /v1/watch HTTP/1.1\nHost: HOST\n{upgrade}\nOrigin: http://evil.example\nConnection: close\n\n")).await;
    assert!(answer.starts_with("403 Forbidden"), "{answer}");
    hub.stop().await;
}

#[tokio::test]
async fn nonsense_is_answered_with_a_sentence() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let check = async |answer: String, expected: &str| assert_eq!(answer, expected);
    check(
        hub.post("/v1/put", "{").await,
        r#"400 Bad Request {"error":"the request is not what /v1/put takes: EOF while parsing an object at line 1 column 1"}"#,
    )
    .await;
    check(
        hub.post("/v1/put", r#"{"entries":[{"key":"","value":"1"}]}"#).await,
        r#"400 Bad Request {"error":"'' cannot be a key: it has 1 to 1024 bytes and no control characters"}"#,
    )
    .await;
    check(
        hub.post("/v1/put", r#"{"entries":[{"key":"/a","value":"1"}],"delete":["/b","/a"]}"#).await,
        r#"400 Bad Request {"error":"'/a' is to be written, and to be deleted with that"}"#,
    )
    .await;
    let many = vec![r#""/a""#; 32_769].join(",");
    check(
        hub.post("/v1/delete", &format!(r#"{{"keys":[{many}]}}"#)).await,
        r#"400 Bad Request {"error":"32769 keys are more than a hub writes at once (32768)"}"#,
    )
    .await;
    check(
        hub.post("/v1/read", r#"{"ranges":[{"prefix":"/a"}]}"#).await,
        r#"400 Bad Request {"error":"'/a' is not a prefix: it ends with '/'"}"#,
    )
    .await;
    check(hub.get("/nothing").await, r#"404 Not Found {"error":"there is nothing at '/nothing' on a hub"}"#)
        .await;
    check(hub.get("/v1/put").await, r#"405 Method Not Allowed {"error":"'/v1/put' does not take GET"}"#)
        .await;
    let answer = hub.get("/v1/watch").await;
    assert!(answer.starts_with(r#"400 Bad Request {"error":"/v1/watch speaks WebSocket: "#), "{answer}");
    let head = "Host: HOST\nContent-Type: application/json\nConnection: close\nContent-Length: 99999999";
    check(
        hub.raw(&format!("POST /v1/put HTTP/1.1\n{head}\n\n")).await,
        r#"413 Payload Too Large {"error":"the request is larger than a hub takes (64 MiB)"}"#,
    )
    .await;
    // A watch of an invalid prefix is refused permanently, not retried.
    let mut watch = hub.store().watch(vec![KeyRange::Prefix("/a".to_owned())]).await.unwrap();
    let refused = next(&mut watch).await.unwrap().unwrap_err();
    assert!(matches!(refused, StoreError::Refused { .. }), "{refused}");
    assert_eq!(values(&hub.store()).await, [""; 0], "and the hub lives");
    hub.stop().await;
}

#[tokio::test]
async fn health_and_metrics_tell_what_happened() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let store = hub.store();
    put(&store, "/a", "1").await;
    put(&store, "/b", "1").await;
    let last = put(&store, "/b", "2").await;
    let _watch = store.watch(vec![all()]).await.unwrap();
    hub.post("/v1/put", "{").await;
    assert_eq!(hub.get("/healthz").await, r#"200 OK {"status":"ok","version":"0.1.0"}"#);
    let page = hub.get("/metrics").await;
    for line in [
        "trigger_hub_requests_total{kind=\"put\",result=\"ok\"} 3",
        "trigger_hub_requests_total{kind=\"put\",result=\"refused\"} 1",
        "trigger_hub_requests_total{kind=\"watch\",result=\"ok\"} 1",
        "trigger_hub_watchers 1",
        "trigger_hub_entries 2",
        "trigger_hub_commit_duration_seconds_count 3",
        &format!("trigger_hub_revision {}", last.0),
        "trigger_hub_build_info{version=\"0.1.0\",sqlite=\"3.",
    ] {
        assert!(page.lines().any(|found| found.starts_with(line)), "{line} in:\n{page}");
    }
    hub.stop().await;
}

/// A forwarded port has a name that the hub does not know. No client may give an event up for that.
#[tokio::test]
async fn a_name_that_the_hub_does_not_know_is_refused_for_now_and_can_be_allowed() {
    let dir = TempDir::new().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let forwarded = listener.local_addr().unwrap();
    let hub = Running::start(dir.path()).await;
    let forward = |listener: tokio::net::TcpListener, address: SocketAddr| async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = TcpStream::connect(address).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    };
    let forwarding = tokio::spawn(forward(listener, hub.address));
    let store = HubStore::connect(&forwarded.to_string()).unwrap();
    let write = store.put_many(vec![("/a".to_owned(), "1".to_owned())]).await.remove(0).unwrap_err();
    let read = store.read(&[all()]).await.unwrap_err();
    let watched = store.watch(vec![all()]).await.err().unwrap();
    for error in [write, read, watched] {
        assert!(error.is_transient(), "{error}");
        let sentence = error.to_string();
        assert!(sentence.contains("403 Forbidden"), "{sentence}");
        assert!(sentence.contains(&format!("'--allowed-host {forwarded}'")), "{sentence}");
    }
    forwarding.abort();
    let _ = forwarding.await;
    hub.stop().await;

    let mut settings = settings("127.0.0.1:0", dir.path());
    settings.allowed_hosts = vec![forwarded.to_string().parse().unwrap()];
    let hub = Running::spawn(|ready, stopped| run(settings, ready, stopped)).await;
    let listener = tokio::net::TcpListener::bind(forwarded).await.unwrap();
    let forwarding = tokio::spawn(forward(listener, hub.address));
    let store = HubStore::connect(&forwarded.to_string()).unwrap();
    put(&store, "/a", "1").await;
    let mut watch = store.watch(vec![all()]).await.unwrap();
    assert!(matches!(next(&mut watch).await, Some(Ok(WatchEvent::Snapshot(_)))));
    drop(watch);
    forwarding.abort();
    hub.stop().await;
}

#[tokio::test]
async fn a_question_asks_for_a_hundred_events_at_most() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let ask = async |wanted: String| {
        hub.post("/v1/status", &format!(r#"{{"prefix":"/p","wanted":{wanted}}}"#)).await
    };
    let latest = |count: usize| format!(r#"{{"latest":{count}}}"#);
    let these = |count: usize| {
        let ids: Vec<_> = (0..count).map(|n| format!(r#""0192a000-0000-7000-8000-{n:012x}""#)).collect();
        format!(r#"{{"events":[{}]}}"#, ids.join(","))
    };
    for most in [latest(100), these(100)] {
        let answer = ask(most).await;
        assert!(answer.starts_with(r#"200 OK {"events":[],"#), "{answer}");
    }
    for too_many in [latest(101), these(101)] {
        assert_eq!(
            ask(too_many).await,
            r#"400 Bad Request {"error":"101 events are more than one question takes (100)"}"#
        );
    }
    hub.stop().await;
}
