//! A real hub on a free port, and the real client.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use trigger_core::identity::Revision;
use trigger_store::conformance;
use trigger_store::hub::HubStore;
use trigger_store::store::{CasOutcome, Change, KeyRange, Store, StoreError, Watch, WatchEvent};

use super::{HubError, HubSettings, backup, database, run};

/// Bounds a failure; measures nothing.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A hub in this process.
struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), HubError>>,
}

impl Running {
    async fn start(data_dir: &Path) -> Self {
        Self::start_on("127.0.0.1:0", data_dir).await
    }

    async fn start_on(listen: &str, data_dir: &Path) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = oneshot::channel();
        let settings = HubSettings { listen: listen.to_owned(), data_dir: data_dir.to_owned() };
        let task = tokio::spawn(run(settings, |address| ready.send(address).unwrap(), async {
            let _ = stopped.await;
        }));
        match is_ready.await {
            Ok(address) => Self { address, stop, task },
            Err(_) => panic!("the hub did not start: {:?}", task.await),
        }
    }

    fn store(&self) -> HubStore {
        HubStore::connect(&self.address.to_string()).unwrap()
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(TIMEOUT, self.task).await.unwrap().unwrap().unwrap();
    }

    /// Sends `request` as it is, but for `HOST`, and answers with status line and body.
    async fn raw(&self, request: &str) -> String {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        let request = request.replace("HOST", &self.address.to_string()).replace('\n', "\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(TIMEOUT, connection.read_to_end(&mut answer)).await.unwrap().unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        format!("{} {body}", head.lines().next().unwrap_or_default().trim_start_matches("HTTP/1.1 "))
    }

    async fn post(&self, path: &str, body: &str) -> String {
        let length = body.len();
        let head = "Host: HOST\nContent-Type: application/json\nConnection: close\nContent-Length";
        self.raw(&format!("POST {path} HTTP/1.1\n{head}: {length}\n\n{body}")).await
    }

    async fn get(&self, path: &str) -> String {
        self.raw(&format!("GET {path} HTTP/1.1\nHost: HOST\nConnection: close\n\n")).await
    }
}

async fn put(store: &HubStore, key: &str, value: &str) -> Revision {
    store.put_many(vec![(key.to_owned(), value.to_owned())]).await.remove(0).unwrap()
}

/// For more than a busy machine may write before a client's patience ends: until all is written.
async fn put_all(store: &HubStore, entries: Vec<(String, String)>) {
    let all_written = async { while !store.put_many(entries.clone()).await.iter().all(Result::is_ok) {} };
    timeout(TIMEOUT, all_written).await.unwrap();
}

async fn values(store: &HubStore) -> Vec<String> {
    let entries = store.read(&[all()]).await.unwrap();
    entries.into_iter().map(|entry| format!("{}={}", entry.key, entry.value)).collect()
}

fn all() -> KeyRange {
    KeyRange::Prefix("/".to_owned())
}

async fn next(watch: &mut Watch) -> Option<Result<WatchEvent, StoreError>> {
    timeout(TIMEOUT, watch.next()).await.unwrap()
}

/// What a hub that does not start says.
async fn start_fails(listen: &str, data_dir: &Path) -> String {
    let settings = HubSettings { listen: listen.to_owned(), data_dir: data_dir.to_owned() };
    let ready = |address| panic!("it must not listen on {address}");
    timeout(TIMEOUT, run(settings, ready, std::future::pending())).await.unwrap().unwrap_err().to_string()
}

#[tokio::test]
async fn it_conforms() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    conformance::check(|| async { hub.store() }).await;
    trigger_fleet::conformance::check(|| async { hub.store() }).await;
    hub.stop().await;
}

#[tokio::test]
async fn a_restart_loses_nothing_and_watchers_come_back() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let (store, listen) = (hub.store(), hub.address.to_string());
    let before = put(&store, "/a", "1").await;
    let mut watch = store.watch(vec![all()]).await.unwrap();
    assert!(matches!(next(&mut watch).await, Some(Ok(WatchEvent::Snapshot(_)))));
    hub.stop().await;
    let ended = next(&mut watch).await.unwrap().unwrap_err().to_string();
    assert!(ended.ends_with("is unreachable: the hub ended the watch: the hub is stopping"), "{ended}");
    assert!(next(&mut watch).await.is_none(), "one error, then the end");

    let hub = Running::start_on(&listen, dir.path()).await;
    // The same client, whose kept connection is broken.
    assert_eq!(values(&store).await, ["/a=1"]);
    assert!(put(&store, "/b", "2").await > before);
    let mut watch = store.watch(vec![all()]).await.unwrap();
    let Some(Ok(WatchEvent::Snapshot(entries))) = next(&mut watch).await else { panic!("a snapshot") };
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].revision, before);
    hub.stop().await;
}

#[tokio::test]
async fn revisions_do_not_rewind_after_a_restore() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let store = hub.store();
    put(&store, "/a", "old").await;
    let copy = dir.path().join("copy.sqlite");
    backup(dir.path(), &copy).unwrap();
    let lost = put(&store, "/a", "new").await;
    hub.stop().await;

    let restored = TempDir::new().unwrap();
    std::fs::rename(&copy, database::file(restored.path())).unwrap();
    let hub = Running::start(restored.path()).await;
    let store = hub.store();
    assert_eq!(values(&store).await, ["/a=old"]);
    assert!(put(&store, "/b", "1").await > lost, "a revision never means two things");
    // Whoever knows the key as it was after the backup is not taken for one who knows it now.
    let swap = store.compare_and_swap("/a", "newer", Some(lost)).await.unwrap();
    assert!(matches!(swap, CasOutcome::Changed(Some(_))));
    hub.stop().await;
}

#[tokio::test]
async fn a_deleted_entrys_revision_is_not_given_out_again() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    put(&hub.store(), "/a", "1").await;
    hub.store().delete_many(vec!["/a".to_owned()]).await.unwrap();
    hub.stop().await;
    // As if its clock were set back, so that only the stored position knows.
    let far = i64::MAX / 2;
    let database = Connection::open(database::file(dir.path())).unwrap();
    database.execute("UPDATE position SET revision = ?1", [far]).unwrap();
    drop(database);
    let hub = Running::start(dir.path()).await;
    assert_eq!(put(&hub.store(), "/a", "2").await, Revision(far.cast_unsigned() + 1));
    hub.stop().await;
}

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
    // A watch of what is no directory is refused for good, not retried for ever.
    let mut watch = hub.store().watch(vec![KeyRange::Prefix("/a".to_owned())]).await.unwrap();
    let refused = next(&mut watch).await.unwrap().unwrap_err();
    assert!(matches!(refused, StoreError::Refused { .. }), "{refused}");
    assert_eq!(values(&hub.store()).await, [""; 0], "and the hub lives");
    hub.stop().await;
}

#[tokio::test]
async fn only_loopback_is_listened_on() {
    let dir = TempDir::new().unwrap();
    for listen in ["0.0.0.0:0", "192.0.2.1:8145", "[::]:0"] {
        assert_eq!(
            start_fails(listen, dir.path()).await,
            format!(
                "refusing to listen on {listen}: until TLS exists the hub listens on loopback only, \
                 such as 127.0.0.1:8145"
            )
        );
    }
    for listen in ["", "8145", "hub.example.com:8145", "127.0.0.1", "localhost:port"] {
        let error = start_fails(listen, dir.path()).await;
        assert!(error.starts_with(&format!("'{listen}' is not an address to listen on")), "{error}");
    }
    for listen in ["localhost:0", "[::1]:0"] {
        // Many containers have no IPv6, and then nobody can listen there.
        if std::net::TcpListener::bind(listen).is_err() {
            let error = start_fails(listen, dir.path()).await;
            assert!(error.starts_with(&format!("cannot listen on {listen}")), "{error}");
            continue;
        }
        let hub = Running::start_on(listen, dir.path()).await;
        put(&hub.store(), "/a", "1").await;
        hub.stop().await;
    }
}

#[tokio::test]
async fn what_is_taken_is_named() {
    let (dir, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let hub = Running::start(dir.path()).await;
    let listen = hub.address.to_string();
    assert_eq!(
        start_fails(&listen, other.path()).await,
        format!(
            "cannot listen on {listen}: the port is in use; stop what uses it (another hub?) \
             or give another --listen"
        )
    );
    assert_eq!(
        start_fails("127.0.0.1:0", dir.path()).await,
        format!(
            "the data directory {} is in use by another hub (process {}): a data directory serves one hub",
            dir.path().display(),
            std::process::id()
        )
    );
    put(&hub.store(), "/a", "1").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_data_dir_that_cannot_be_used_is_named() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let error = start_fails("127.0.0.1:0", &file.join("data")).await;
    assert!(
        error.starts_with(&format!("cannot use the data directory {}/data: Not a directory", file.display())),
        "{error}"
    );

    let foreign = TempDir::new().unwrap();
    std::fs::write(database::file(foreign.path()), "this is no database, whatever it is called").unwrap();
    let error = start_fails("127.0.0.1:0", foreign.path()).await;
    assert!(error.contains("file is not a database"), "{error}");
}

#[tokio::test]
async fn a_newer_or_foreign_database_is_left_alone() {
    let dir = TempDir::new().unwrap();
    Running::start(dir.path()).await.stop().await;
    let path = database::file(dir.path());
    let alter = |sql| Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    alter("PRAGMA user_version = 2");
    let error = start_fails("127.0.0.1:0", dir.path()).await;
    assert!(
        error.contains("was written by a newer version of trigger (schema 2; this one knows 1)"),
        "{error}"
    );
    alter("PRAGMA user_version = 1; PRAGMA application_id = 1");
    let error = start_fails("127.0.0.1:0", dir.path()).await;
    assert!(error.ends_with("is a database, but not a hub's: give another --data-dir"), "{error}");
}

#[tokio::test]
async fn a_backup_of_a_busy_hub_is_whole() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let store = hub.store();
    let out = TempDir::new().unwrap();
    // Each put is a pair in one transaction: a copy of two moments would show half of one.
    let write = async {
        for n in 0..300 {
            let pair = ["left", "right"].map(|side| (format!("/{side}/{n:03}"), "x".repeat(500)));
            assert!(store.put_many(pair.to_vec()).await.iter().all(Result::is_ok));
        }
    };
    let copy = async {
        for n in 0..10 {
            let (data_dir, file) = (dir.path().to_owned(), out.path().join(format!("{n}.sqlite")));
            tokio::task::spawn_blocking(move || backup(&data_dir, &file)).await.unwrap().unwrap();
        }
    };
    tokio::join!(write, copy);
    for n in 0..10 {
        let copy = Connection::open(out.path().join(format!("{n}.sqlite"))).unwrap();
        let count = |side: &str| -> i64 {
            copy.query_row("SELECT count(*) FROM entries WHERE key LIKE ?1", [side], |row| row.get(0))
                .unwrap()
        };
        assert_eq!(count("/left/%"), count("/right/%"));
    }
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 10, "nothing unfinished stays");
    hub.stop().await;
    backup(dir.path(), &out.path().join("stopped.sqlite")).unwrap();
}

#[tokio::test]
async fn a_backup_put_beside_a_killed_hubs_log_is_not_ruined_by_it() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let store = hub.store();
    put(&store, "/a", "old").await;
    let restored = TempDir::new().unwrap();
    backup(dir.path(), &database::file(restored.path())).unwrap();
    let more = (0..500).map(|n| (format!("/{n}"), "x".repeat(500))).collect();
    assert!(store.put_many(more).await.iter().all(Result::is_ok));
    // What a kill -9 would leave there.
    let log = |dir: &TempDir| dir.path().join("hub.sqlite-wal");
    std::fs::copy(log(&dir), log(&restored)).unwrap();
    hub.stop().await;

    let hub = Running::start(restored.path()).await;
    assert_eq!(values(&hub.store()).await, ["/a=old"]);
    assert!(restored.path().join("hub.sqlite-wal.replaced").exists(), "quarantined, not deleted");
    hub.stop().await;
}

#[tokio::test]
async fn a_killed_hub_is_backed_up_with_its_log() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    put(&hub.store(), "/a", "1").await;
    let killed = TempDir::new().unwrap();
    for name in ["hub.sqlite", "hub.sqlite-wal"] {
        std::fs::copy(dir.path().join(name), killed.path().join(name)).unwrap();
    }
    hub.stop().await;
    let copy = killed.path().join("copy.sqlite");
    backup(killed.path(), &copy).unwrap();
    let count: i64 = Connection::open(copy)
        .unwrap()
        .query_row("SELECT count(*) FROM entries", (), |row| row.get(0))
        .unwrap();
    assert_eq!(count, 1);
    let hub = Running::start(killed.path()).await;
    assert_eq!(values(&hub.store()).await, ["/a=1"]);
    hub.stop().await;
}

#[tokio::test]
async fn a_backup_overwrites_nothing() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("copy.sqlite");
    assert_eq!(
        backup(dir.path(), &file).unwrap_err().to_string(),
        format!("there is no hub's database in {}: give the --data-dir of the hub", dir.path().display())
    );
    Running::start(dir.path()).await.stop().await;
    std::fs::write(&file, "precious").unwrap();
    assert_eq!(
        backup(dir.path(), &file).unwrap_err().to_string(),
        format!(
            "{} exists already: a backup never overwrites a file; give another name or remove it",
            file.display()
        )
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    let error = backup(dir.path(), &dir.path().join("missing/copy.sqlite")).unwrap_err().to_string();
    assert!(error.contains("No such file or directory"), "{error}");
}

#[tokio::test]
async fn a_watcher_that_does_not_read_stalls_nobody_and_is_cut() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let store = hub.store();
    let mut watch = store.watch(vec![all()]).await.unwrap();
    assert!(matches!(next(&mut watch).await, Some(Ok(WatchEvent::Snapshot(_)))));
    // More than its backlog and the sockets' buffers hold.
    let value = "x".repeat(1024 * 1024);
    for n in 0..60 {
        put(&store, &format!("/{}", n % 4), &value).await;
    }
    let ended = loop {
        match next(&mut watch).await.unwrap() {
            Ok(WatchEvent::Changes(_)) => {}
            Ok(WatchEvent::Snapshot(_)) => panic!("one snapshot"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(ended.ends_with("the hub ended the watch: the watcher fell too far behind"), "{ended}");
    hub.stop().await;
}

#[tokio::test]
async fn watches_opened_while_others_write_miss_nothing() {
    const KEYS: usize = 1000;
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let store = hub.store();
    let write = async {
        for n in 0..KEYS {
            put(&store, &format!("/{n}"), "1").await;
        }
    };
    // One after the other, so that each opens at another moment of the writing.
    let watch = async |store: HubStore| {
        for _ in 0..20 {
            let mut watch = store.watch(vec![all()]).await.unwrap();
            let mut seen = std::collections::BTreeSet::new();
            let Some(Ok(WatchEvent::Snapshot(entries))) = next(&mut watch).await else {
                panic!("a snapshot")
            };
            let known = entries.len();
            seen.extend(entries.into_iter().map(|entry| entry.key));
            while seen.len() < (known + 20).min(KEYS) {
                let Some(Ok(WatchEvent::Changes(changes))) = next(&mut watch).await else {
                    panic!("changes")
                };
                for change in changes {
                    let Change::Put(entry) = change else { panic!("nothing is deleted") };
                    assert_eq!(entry.key, format!("/{}", seen.len()), "each once, in order, none left out");
                    seen.insert(entry.key);
                }
            }
        }
    };
    tokio::join!(write, watch(hub.store()), watch(hub.store()), watch(hub.store()));
    hub.stop().await;
}

#[tokio::test]
async fn large_ranges_come_in_pieces_and_whole() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let store = hub.store();
    let entries: Vec<_> = (0..6000).map(|n| (format!("/a/{n:05}"), "x".repeat(700))).collect();
    put_all(&store, entries).await;
    put(&store, "/big", &"y".repeat(3 * 1024 * 1024)).await;
    // The second range is within the first: each key comes once.
    let ranges = [all(), KeyRange::Prefix("/a/".to_owned()), KeyRange::Key("/big".to_owned())];
    let read = store.read(&ranges).await.unwrap();
    assert_eq!(read.len(), 6001);
    assert!(read.is_sorted_by(|a, b| a.key < b.key));
    let mut watch = store.watch(ranges.to_vec()).await.unwrap();
    let Some(Ok(WatchEvent::Snapshot(seen))) = next(&mut watch).await else { panic!("a snapshot") };
    assert_eq!(seen, read);
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
