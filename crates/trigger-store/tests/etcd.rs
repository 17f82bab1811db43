//! The etcd backend against real servers, on good days and bad ones.

#![allow(clippy::expect_used, reason = "a test says what it expects")]

#[path = "../../trigger-fleet/tests/support/etcd_server.rs"]
mod etcd_server;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use etcd_client::{CompactionOptions, PutOptions};
use etcd_server::{EtcdServer, free_port};
use futures_util::{StreamExt, stream};
use trigger_core::identity::Revision;
use trigger_store::conformance;
use trigger_store::etcd::EtcdStore;
use trigger_store::store::{CasOutcome, Change, Entry, KeyRange, Store, StoreError, Watch, WatchEvent};

/// Until a request to a server that is gone or silent must be answered. What is promised is about two
/// seconds; a busy machine may take longer.
const PROMPT: Duration = Duration::from_secs(8);
/// Until a watch must report, or notice that it cannot (keep-alive: 15 s).
const TIMEOUT: Duration = Duration::from_secs(40);

fn store(endpoints: &[String]) -> EtcdStore {
    EtcdStore::connect(endpoints).expect("endpoints that are addresses")
}

async fn server_and_store(flags: &[&str]) -> (EtcdServer, EtcdStore) {
    let server = EtcdServer::start(flags).await;
    let store = store(&[server.endpoint()]);
    (server, store)
}

fn prefix(path: &str) -> KeyRange {
    KeyRange::Prefix(path.to_owned())
}

fn pairs(path: &str, count: usize, bytes: usize) -> Vec<(String, String)> {
    (0..count).map(|n| (format!("{path}{n:05}"), "v".repeat(bytes))).collect()
}

fn pair(key: &str, value: &str) -> Vec<(String, String)> {
    vec![(key.to_owned(), value.to_owned())]
}

async fn put(store: &EtcdStore, key: &str, value: &str) -> Result<Revision, StoreError> {
    store.put_many(pair(key, value)).await.remove(0)
}

async fn read(store: &EtcdStore, path: &str) -> Vec<Entry> {
    store.read(&[prefix(path)]).await.expect("a read")
}

async fn next(watch: &mut Watch) -> Option<Result<WatchEvent, StoreError>> {
    tokio::time::timeout(TIMEOUT, watch.next()).await.expect("a watch that neither reports nor ends hangs")
}

async fn snapshot(watch: &mut Watch) -> Vec<String> {
    match next(watch).await {
        Some(Ok(WatchEvent::Snapshot(entries))) => entries.into_iter().map(|entry| entry.key).collect(),
        other => panic!("a snapshot was due: {other:?}"),
    }
}

/// Runs it, and fails if that is not prompt.
async fn promptly<T>(what: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let result = what.await;
    assert!(began.elapsed() < PROMPT, "it took {:?}", began.elapsed());
    result
}

#[tokio::test]
async fn it_conforms() {
    let server = EtcdServer::start(&[]).await;
    conformance::check(|| async { store(&[server.endpoint()]) }).await;
}

#[tokio::test]
async fn any_number_of_keys_can_be_written_and_deleted() {
    let (_server, store) = server_and_store(&[]).await;
    for count in [1, 127, 128, 129, 256, 1000] {
        let path = format!("/count/{count}/");
        let results = store.put_many(pairs(&path, count, 10)).await;
        let revisions: Vec<_> = results.into_iter().map(|result| result.expect("a put")).collect();
        let entries = read(&store, &path).await;
        assert_eq!(entries.iter().map(|entry| entry.revision).collect::<Vec<_>>(), revisions, "{count}");
        store.delete_many(entries.into_iter().map(|entry| entry.key).collect()).await.expect("a delete");
        assert_eq!(read(&store, &path).await, [], "{count}");
    }
}

#[tokio::test]
async fn a_key_written_twice_in_one_call_is_no_error() {
    let (_server, store) = server_and_store(&[]).await;
    let results = store.put_many([pair("/a", "1"), pair("/b", "1"), pair("/a", "1")].concat()).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    store.delete_many(vec!["/a".into(), "/a".into(), "/b".into()]).await.expect("a delete");
    assert_eq!(read(&store, "/").await, []);
}

#[tokio::test]
async fn large_values_pass_up_to_what_etcd_takes() {
    let (_server, store) = server_and_store(&[]).await;
    let mut entries = pairs("/large/", 40, 700_000);
    entries[7].1 = "v".repeat(1_500_000);
    // Above etcd's limit for a request, and above gRPC's.
    entries[8].1 = "v".repeat(1_900_000);
    entries[9].1 = "v".repeat(5_000_000);
    let results = store.put_many(entries).await;
    for (index, result) in results.iter().enumerate() {
        match (index, result) {
            (8 | 9, Err(StoreError::Refused { detail, .. })) => assert!(detail.contains("larg"), "{detail}"),
            (8 | 9, other) => panic!("too large: {other:?}"),
            (_, result) => assert!(result.is_ok(), "{index}: {result:?}"),
        }
    }
    // 28 MB: more than one answer may hold, so it comes in smaller ones.
    let read = read(&store, "/large/").await;
    assert_eq!(read.len(), 38);
    assert_eq!(read[7].value.len(), 1_500_000);
    let mut watch = store.watch(vec![prefix("/large/"), prefix("/other/")]).await.expect("a watch");
    assert_eq!(snapshot(&mut watch).await.len(), 38);
}

#[tokio::test]
async fn one_refused_key_does_not_harm_its_neighbours() {
    let (_server, store) = server_and_store(&[]).await;
    let results = store.put_many([pair("/a", "1"), pair("", "no key"), pair("/b", "1")].concat()).await;
    assert!(matches!(&results[1], Err(StoreError::Refused { .. })), "{results:?}");
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
}

#[tokio::test]
async fn a_large_prefix_and_many_ranges_are_read_at_one_revision() {
    let (_server, store) = server_and_store(&[]).await;
    let results = store.put_many(pairs("/many/", 20_000, 100)).await;
    assert!(results.iter().all(Result::is_ok));
    // The first and the last key, twenty answers apart, and one in another range are rewritten together,
    // round after round: at any one revision they agree.
    let writer = async {
        for round in 0.. {
            let value = round.to_string();
            let keys = ["/many/00000", "/many/19999", "/twin/1"].map(|key| pair(key, &value)).concat();
            assert!(store.put_many(keys).await.iter().all(Result::is_ok));
        }
    };
    let reader = async {
        // The first reads may be of the time before the first round.
        let mut rounds = BTreeSet::new();
        while rounds.len() < 5 {
            let entries = store.read(&[prefix("/many/"), prefix("/twin/")]).await.expect("a read");
            let values: BTreeSet<_> =
                entries.iter().map(|entry| &entry.value).filter(|value| value.len() < 100).collect();
            assert!(values.len() <= 1, "keys of different revisions: {values:?}");
            rounds.extend(values.into_iter().cloned());
        }
    };
    tokio::select! {
        () = writer => {}
        () = reader => {}
    }
    let ranges: Vec<_> = (0..300).map(|n| KeyRange::Key(format!("/many/{n:05}"))).collect();
    let entries = store.read(&ranges).await.expect("a read of more ranges than operations");
    assert_eq!(entries.len(), 300);
    let mut watch = store.watch(ranges).await.expect("a watch of as many");
    assert_eq!(snapshot(&mut watch).await.len(), 300);
    put(&store, "/many/00299", "new").await.expect("a put");
    match next(&mut watch).await {
        Some(Ok(WatchEvent::Changes(changes))) => assert_eq!(changes.len(), 1),
        other => panic!("the last range is watched too: {other:?}"),
    }
}

/// A member answers once for each range, and all at once. An HTTP/2 client that is slow must not take that for an attack.
#[tokio::test]
async fn a_watch_of_thousands_of_keys_goes_on() {
    let (_server, store) = server_and_store(&[]).await;
    let ranges = (0..3000).map(|n| KeyRange::Key(format!("/many/{n:05}"))).collect();
    let mut watch = store.watch(ranges).await.expect("a watch");
    assert_eq!(snapshot(&mut watch).await.len(), 0);
    put(&store, "/many/02999", "new").await.expect("a put");
    assert!(matches!(next(&mut watch).await, Some(Ok(WatchEvent::Changes(changes))) if changes.len() == 1));
}

#[tokio::test]
async fn what_is_not_utf8_is_read_lossily() {
    let (server, store) = server_and_store(&[]).await;
    let mut raw = server.raw().await;
    raw.put("/bytes/a", vec![b'o', b'k', 0xff, 0xfe], None).await.expect("a raw put");
    let mut watch = store.watch(vec![prefix("/bytes/")]).await.expect("a watch");
    assert_eq!(read(&store, "/bytes/").await[0].value, "ok\u{fffd}\u{fffd}");
    assert_eq!(snapshot(&mut watch).await, ["/bytes/a"]);
    raw.put("/bytes/b", vec![0xc3], None).await.expect("a raw put");
    match next(&mut watch).await {
        Some(Ok(WatchEvent::Changes(changes))) => {
            assert!(matches!(&changes[..], [Change::Put(entry)] if entry.value == "\u{fffd}"));
        }
        other => panic!("a change was due: {other:?}"),
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable_at_once() {
    let store = store(&[format!("127.0.0.1:{}", free_port())]);
    promptly(async {
        let results = store.put_many(pairs("/many/", 10_000, 60)).await;
        for result in results {
            match result {
                Err(StoreError::Unreachable { detail, .. }) => {
                    assert!(detail.contains("refused"), "{detail}")
                }
                other => panic!("nothing listens: {other:?}"),
            }
        }
        assert!(matches!(store.read(&[prefix("/")]).await, Err(StoreError::Unreachable { .. })));
        assert!(matches!(store.watch(vec![prefix("/")]).await, Err(StoreError::Unreachable { .. })));
        let swap = store.compare_and_swap("/a", "1", None).await;
        assert!(matches!(swap, Err(StoreError::Unreachable { .. })));
    })
    .await;
}

#[tokio::test]
async fn no_endpoint_and_a_bad_one_are_refused() {
    assert!(matches!(EtcdStore::connect(&[]), Err(StoreError::Refused { .. })));
    assert!(matches!(EtcdStore::connect(&["no port here".to_owned()]), Err(StoreError::Refused { .. })));
}

#[tokio::test]
async fn a_silent_server_leaves_writes_ambiguous_and_a_later_read_tells() {
    let (server, store) = server_and_store(&[]).await;
    let first = put(&store, "/claim", "old").await.expect("a put");
    server.stop();
    promptly(async {
        let results = store.put_many(pairs("/many/", 10_000, 60)).await;
        assert!(matches!(&results[0], Err(StoreError::Ambiguous { .. })), "{:?}", results[0]);
        assert!(results.iter().all(|result| result.as_ref().is_err_and(StoreError::is_transient)));
    })
    .await;
    let swap = promptly(store.compare_and_swap("/claim", "new", Some(first))).await;
    assert!(matches!(swap, Err(StoreError::Ambiguous { .. })), "{swap:?}");
    let unread = promptly(store.read(&[prefix("/")])).await;
    assert!(matches!(unread, Err(StoreError::Unreachable { .. })), "{unread:?}");
    server.go_on();
    let results = store.put_many(pairs("/many/", 10_000, 60)).await;
    assert!(results.iter().all(Result::is_ok), "repeating a put does no harm");
    assert_eq!(read(&store, "/many/").await.len(), 10_000);
    // Whether the swap was done is there to be read; if it was not, it can be asked again.
    let claim = &store.read(&[KeyRange::Key("/claim".to_owned())]).await.expect("a read")[0];
    if claim.value != "new" {
        assert_eq!(claim.revision, first);
        let swap = store.compare_and_swap("/claim", "new", Some(first)).await;
        assert!(matches!(swap, Ok(CasOutcome::Written(_))), "{swap:?}");
    }
}

#[tokio::test]
async fn a_watch_ends_with_its_server_and_the_next_begins_with_what_was_missed() {
    let (mut server, store) = server_and_store(&[]).await;
    put(&store, "/watched/a", "1").await.expect("a put");
    let mut watch = store.watch(vec![prefix("/watched/")]).await.expect("a watch");
    assert_eq!(snapshot(&mut watch).await, ["/watched/a"]);
    server.kill();
    let ended = next(&mut watch).await;
    assert!(matches!(ended, Some(Err(StoreError::Unreachable { .. }))), "{ended:?}");
    assert!(next(&mut watch).await.is_none(), "one error, then the end");
    let failed = promptly(put(&store, "/watched/b", "1")).await;
    assert!(matches!(failed, Err(StoreError::Unreachable { .. })), "nothing was asked: {failed:?}");
    let server = server.restart().await;
    let mut raw = server.raw().await;
    raw.put("/watched/b", "1", None).await.expect("a put by another client");
    put(&store, "/watched/c", "1").await.expect("the same store connects again");
    let mut watch = store.watch(vec![prefix("/watched/")]).await.expect("a new watch");
    assert_eq!(snapshot(&mut watch).await, ["/watched/a", "/watched/b", "/watched/c"]);
}

#[tokio::test]
async fn a_silent_server_ends_the_watch() {
    let (server, store) = server_and_store(&[]).await;
    let mut watch = store.watch(vec![prefix("/watched/")]).await.expect("a watch");
    assert_eq!(snapshot(&mut watch).await, [""; 0]);
    server.stop();
    let ended = next(&mut watch).await;
    assert!(matches!(ended, Some(Err(StoreError::Unreachable { .. }))), "{ended:?}");
    assert!(next(&mut watch).await.is_none());
    let refused = promptly(store.watch(vec![prefix("/watched/")])).await.map(drop);
    assert!(matches!(refused, Err(StoreError::Unreachable { .. })), "{refused:?}");
}

/// Proves C3.
#[tokio::test]
async fn a_watch_overtaken_by_compaction_reads_again() {
    let (server, store) = server_and_store(&[]).await;
    let mut watch = store.watch(vec![prefix("/busy/"), prefix("/idle/")]).await.expect("a watch");
    assert_eq!(snapshot(&mut watch).await, [""; 0]);
    // No task reads the watch while this is written: its stream's window fills, then the server's queue
    // for it (1024 answers in etcd 3.4), then the server puts it aside to catch up later, from history.
    let mut last = Revision(0);
    for round in 0..2 {
        let puts = stream::iter(0..2500).map(|n| {
            let (store, key) = (&store, format!("/busy/{n:05}"));
            async move { put(store, &key, &"v".repeat(500 + round)).await.expect("a put") }
        });
        last = puts.buffer_unordered(64).fold(last, |last, revision| async move { last.max(revision) }).await;
    }
    let physical = CompactionOptions::new().with_physical();
    let newest = i64::try_from(last.0).expect("a revision");
    server.raw().await.compact(newest, Some(physical)).await.expect("a compaction");
    let mut changes = 0;
    let entries = loop {
        match next(&mut watch).await {
            Some(Ok(WatchEvent::Changes(more))) => changes += more.len(),
            Some(Ok(WatchEvent::Snapshot(entries))) => break entries,
            other => panic!("after {changes} changes: {other:?}"),
        }
        assert!(changes < 5000, "all 5000 changes came: the watch was never behind, so this tests nothing");
    };
    assert_eq!(entries.len(), 2500);
    assert!(entries.iter().all(|entry| entry.value.len() == 501), "the snapshot is the newest state");
    put(&store, "/idle/a", "1").await.expect("a put");
    match next(&mut watch).await {
        Some(Ok(WatchEvent::Changes(changes))) => {
            assert!(matches!(&changes[..], [Change::Put(entry)] if entry.key == "/idle/a"), "{changes:?}");
        }
        other => panic!("the watch goes on after its snapshot: {other:?}"),
    }
}

#[tokio::test]
async fn a_full_server_is_transient_and_says_what_to_do() {
    let (server, store) = server_and_store(&["--quota-backend-bytes", "3000000"]).await;
    let mut raw = server.raw().await;
    for n in 0..100 {
        if raw.put(format!("/fill/{n}"), "v".repeat(500_000), None::<PutOptions>).await.is_err() {
            break;
        }
    }
    let results = store.put_many(pairs("/many/", 1000, 60)).await;
    for result in results {
        let Err(error @ StoreError::Full { .. }) = result else { panic!("full: {result:?}") };
        let said = error.to_string();
        assert!(
            ["space exceeded", "compact", "defrag", "alarm disarm"].iter().all(|word| said.contains(word))
        );
    }
    let swap = store.compare_and_swap("/claim", "new", None).await;
    assert!(matches!(swap, Err(StoreError::Full { .. })), "known not to be done: {swap:?}");
    assert!(!read(&store, "/fill/").await.is_empty(), "reading still works");
    // A transaction is refused now, also one that only deletes (3.5.1), and yet room must be made.
    let keys = (0..100).map(|n| format!("/fill/{n}")).collect();
    store.delete_many(keys).await.expect("deleting too");
    assert_eq!(read(&store, "/fill/").await, []);
}

#[tokio::test]
async fn a_dead_member_is_passed_over() {
    let server = EtcdServer::start(&[]).await;
    let dead = || format!("127.0.0.1:{}", free_port());
    // Each store begins with a member of its own choice.
    for n in 0..6 {
        let store = store(&[dead(), server.endpoint(), dead()]);
        let key = format!("/failover/{n}");
        promptly(put(&store, &key, "1")).await.expect("a put");
        assert!(read(&store, "/failover/").await.len() > n);
        let mut watch = promptly(store.watch(vec![KeyRange::Key(key.clone())])).await.expect("a watch");
        assert_eq!(snapshot(&mut watch).await, [key]);
    }
}

#[tokio::test]
async fn a_silent_member_is_passed_over_except_by_a_swap() {
    let (silent, server) = (EtcdServer::start(&[]).await, EtcdServer::start(&[]).await);
    silent.stop();
    for _ in 0..4 {
        let store = store(&[silent.endpoint(), server.endpoint()]);
        promptly(put(&store, "/a", "1")).await.expect("a put is asked again elsewhere");
        let swap = promptly(store.compare_and_swap("/a", "2", Some(Revision(0)))).await;
        assert!(matches!(swap, Ok(CasOutcome::Changed(Some(_)))), "it remembers who answers: {swap:?}");
    }
    let swaps = stream::iter(0..6).map(|_| async {
        store(&[silent.endpoint(), server.endpoint()]).compare_and_swap("/b", "1", None).await
    });
    for swap in swaps.buffer_unordered(6).collect::<Vec<_>>().await {
        assert!(matches!(swap, Ok(_) | Err(StoreError::Ambiguous { .. })), "never asked twice: {swap:?}");
    }
}

#[tokio::test]
async fn a_cluster_survives_a_minority_and_says_when_it_has_no_leader() {
    let [mut first, mut second, third] = EtcdServer::start_three().await;
    let store = store(&[first.endpoint(), second.endpoint(), third.endpoint()]);
    let last = EtcdStore::connect(&[third.endpoint()]).expect("an address");
    put(&store, "/a", "1").await.expect("a put");
    let mut watch = last.watch(vec![prefix("/")]).await.expect("a watch of the member that stays");
    assert_eq!(snapshot(&mut watch).await, ["/a"]);
    first.kill();
    // Until the others have elected a leader, writes may fail, but only transiently.
    while let Err(error) = promptly(put(&store, "/b", "1")).await {
        assert!(error.is_transient(), "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(read(&store, "/").await.iter().any(|entry| entry.key == "/b"));
    second.kill();
    // The member that is left notices after its election time-out that it has no followers.
    let said = loop {
        match promptly(put(&store, "/c", "1")).await {
            Err(StoreError::Unreachable { detail, .. }) if detail.contains("no leader") => break detail,
            Err(error) if error.is_transient() => tokio::time::sleep(Duration::from_millis(100)).await,
            other => panic!("there is no majority: {other:?}"),
        }
    };
    assert!(said.contains(&third.endpoint()), "{said}");
    loop {
        match next(&mut watch).await {
            // It may first deliver earlier changes, or (between leaders) end already.
            Some(Ok(_)) => {}
            Some(Err(StoreError::Unreachable { .. })) => break,
            other => panic!("a watch that can tell nothing must not live on: {other:?}"),
        }
    }
    let _second = second.restart().await;
    put(&store, "/c", "1").await.expect("a majority again");
}
