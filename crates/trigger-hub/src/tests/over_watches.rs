//! Requests over the WebSocket of an open watch.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use tokio::net::TcpListener;
use trigger_store::meddled::{Meddled, Meddler};
use trigger_store::memory::MemoryStore;
use trigger_store::store::CasOutcome;

use super::*;

/// A hub behind a relay that counts connections, and a client of it.
struct Relayed {
    hub: Running,
    store: HubStore,
    connections: Arc<AtomicUsize>,
}

impl Relayed {
    async fn start(data_dir: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let settings = HubSettings {
            allowed_hosts: vec![address.parse().unwrap()],
            ..settings("127.0.0.1:0", data_dir)
        };
        let hub = Running::spawn(|ready, stopped| run(settings, ready, stopped)).await;
        let (target, connections) = (hub.address, Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(target).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { hub, store: HubStore::connect(&address).unwrap(), connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Opens a watch of everything whose events are read and dropped.
pub(super) async fn open_watch(store: &HubStore, range: KeyRange) -> JoinHandle<()> {
    let mut watch = store.watch(vec![range]).await.unwrap();
    assert!(matches!(next(&mut watch).await, Some(Ok(WatchEvent::Snapshot(_)))));
    tokio::spawn(async move { while watch.next().await.is_some_and(|event| event.is_ok()) {} })
}

#[tokio::test]
async fn an_agent_needs_one_connection() {
    let dir = TempDir::new().unwrap();
    let relayed = Relayed::start(dir.path()).await;
    let store = &relayed.store;
    // What an agent asks before it watches is on the connection that becomes the watch.
    assert_eq!(values(store).await, [""; 0]);
    let watch = open_watch(store, all()).await;
    let revision = put(store, "/a", "1").await;
    let written = store.compare_and_swap("/a", "2", Some(revision)).await.unwrap();
    assert!(matches!(written, CasOutcome::Written(_)), "{written:?}");
    let changed = store.compare_and_swap("/a", "3", Some(revision)).await.unwrap();
    assert!(matches!(changed, CasOutcome::Changed(Some(entry)) if entry.value == "2"));
    assert_eq!(values(store).await, ["/a=2"]);
    store.delete_many(vec!["/a".to_owned()]).await.unwrap();
    assert_eq!(values(store).await, [""; 0]);
    assert!(store.clock_difference().is_some(), "an answer over a watch has the hub's time");
    let refused = store.compare_and_swap("", "1", None).await.unwrap_err();
    assert!(matches!(refused, StoreError::Refused { .. }), "{refused:?}");
    assert_eq!(relayed.connections(), 1);
    // Without a watch, requests have a connection of their own.
    watch.abort();
    let _ = watch.await;
    put(store, "/b", "1").await;
    assert_eq!(relayed.connections(), 2);
    relayed.hub.stop().await;
}

/// A fleet that comes back at once costs its hub one handshake for each node.
#[tokio::test]
async fn what_is_asked_while_a_watch_is_opened_makes_no_further_connection() {
    let dir = TempDir::new().unwrap();
    let relayed = Relayed::start(dir.path()).await;
    let store = &relayed.store;
    let put_some = async || {
        // More than a watch takes at once.
        let keys: Vec<String> = (0..12).map(|n| format!("/{n}")).collect();
        futures_util::future::join_all(keys.iter().map(|key| put(store, key, "1"))).await;
    };
    let (watch, ()) = tokio::join!(open_watch(store, all()), put_some());
    assert_eq!(relayed.connections(), 1, "the watch was first");
    watch.abort();
    let _ = watch.await;
    let ((), _watch) = tokio::join!(put_some(), open_watch(store, all()));
    assert_eq!(relayed.connections(), 2, "the requests were first");
    relayed.hub.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_prepared_is_that_of_the_next_request() {
    let dir = TempDir::new().unwrap();
    let relayed = Relayed::start(dir.path()).await;
    let store = &relayed.store;
    tokio::join!(store.prepare(), put(store, "/a", "1"));
    assert_eq!(relayed.connections(), 1, "the request waited for it");
    assert_eq!(values(store).await, ["/a=1"]);
    let _watch = open_watch(store, all()).await;
    store.prepare().await;
    assert_eq!(values(store).await, ["/a=1"]);
    assert_eq!(relayed.connections(), 1, "a watch carries requests");
    relayed.hub.stop().await;
}

#[tokio::test]
async fn what_is_large_takes_a_connection_of_its_own() {
    let dir = TempDir::new().unwrap();
    let relayed = Relayed::start(dir.path()).await;
    let store = &relayed.store;
    let _watch = open_watch(store, KeyRange::Key("/none".to_owned())).await;
    let large = "x".repeat(128 * 1024);
    put(store, "/small", "1").await;
    // The outcomes of a run with the history of runs, in many frames.
    let usual = "é".repeat(12 * 1024);
    put(store, "/usual", &usual).await;
    // Parts of some events, which are read in small pages.
    let parts: Vec<_> = (0..4).map(|n| (format!("/parts/{n}"), "z".repeat(3000))).collect();
    put_all(store, parts.clone()).await;
    let read = store.read(&[KeyRange::Prefix("/parts/".to_owned())]).await.unwrap();
    assert_eq!(read.len(), parts.len());
    assert_eq!(relayed.connections(), 1);
    let read = store.read(&[KeyRange::Key("/usual".to_owned())]).await.unwrap();
    assert_eq!(read[0].value, usual, "the answer is in a page that is too large for the watch");
    put(store, "/large", &large).await;
    assert_eq!(relayed.connections(), 2, "a large body, and a large page before");
    let changed = store.compare_and_swap("/large", "1", None).await.unwrap();
    assert!(matches!(changed, CasOutcome::Changed(Some(entry)) if entry.value == large), "a large answer");
    // In pages, of which one is too large for the watch.
    let many: Vec<_> = (0..100).map(|n| (format!("/many/{n:03}"), "y".repeat(500))).collect();
    put_all(store, many).await;
    let read = store.read(&[all()]).await.unwrap();
    assert_eq!(read.len(), 107);
    assert_eq!(read[0].value, large);
    relayed.hub.stop().await;
}

/// A hub takes 16 connections from one node. An agent whose run covers hundreds of superseded deliveries stores as many
/// outcomes side by side; refused for its many connections, it would try all of them again, and never get to an end.
#[tokio::test]
async fn any_number_of_requests_at_once_takes_few_connections() {
    let dir = TempDir::new().unwrap();
    let relayed = Relayed::start(dir.path()).await;
    let store = &relayed.store;
    let swap_all = async |prefix: &str| {
        let keys: Vec<String> = (0..300).map(|n| format!("{prefix}{n:03}")).collect();
        let swaps = keys.iter().map(|key| store.compare_and_swap(key, "1", None));
        for swapped in futures_util::future::join_all(swaps).await {
            let swapped = swapped.unwrap();
            assert!(matches!(swapped, CasOutcome::Written(_)), "{swapped:?}");
        }
    };
    swap_all("/without/").await;
    // On a busy machine they take long enough for a second one, which may become the watch or not.
    assert!(relayed.connections() <= 2, "{}", relayed.connections());
    let _watch = open_watch(store, KeyRange::Key("/none".to_owned())).await;
    swap_all("/with/").await;
    assert!(relayed.connections() <= 4, "{}", relayed.connections());
    assert_eq!(store.list(&[all()]).await.unwrap().len(), 600);
    relayed.hub.stop().await;
}

/// A store that takes its time.
#[derive(Debug, Default)]
struct Slow(MemoryStore);

#[async_trait]
impl Meddler for Slow {
    fn store(&self) -> &dyn Store {
        &self.0
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        value: &str,
        expected: Option<Revision>,
    ) -> Result<CasOutcome, StoreError> {
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.0.compare_and_swap(key, value, expected).await
    }
}

impl ServedStore for Meddled<Slow> {}

/// The limit of a write is two seconds.
#[tokio::test]
async fn the_time_in_which_a_request_waits_for_others_is_not_the_hubs() {
    let hub = Running::serving(Meddled(Slow::default())).await;
    let store = hub.store();
    let swap_all = async |prefix: &str| {
        let keys: Vec<String> = (0..12).map(|n| format!("{prefix}{n:02}")).collect();
        let swaps = keys.iter().map(|key| store.compare_and_swap(key, "1", None));
        for swapped in futures_util::future::join_all(swaps).await {
            assert!(matches!(swapped, Ok(CasOutcome::Written(_))), "{swapped:?}");
        }
    };
    swap_all("/without/").await;
    let _watch = open_watch(&store, KeyRange::Key("/none".to_owned())).await;
    swap_all("/with/").await;
    hub.stop().await;
}

/// An agent reads what a change is about before it takes the next change.
#[tokio::test]
async fn a_reader_that_is_busy_with_its_own_requests_is_answered() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let store = hub.store();
    let mut watch = store.watch(vec![all()]).await.unwrap();
    assert!(matches!(next(&mut watch).await, Some(Ok(WatchEvent::Snapshot(_)))));
    for n in 0..50 {
        put(&store, &format!("/{n:02}"), "1").await;
    }
    let mut seen = 0;
    while seen < 50 {
        let Some(Ok(WatchEvent::Changes(changes))) = next(&mut watch).await else { panic!("changes") };
        for change in changes {
            assert!(matches!(change, Change::Put(entry) if entry.key == format!("/{seen:02}")));
            seen += 1;
        }
    }
    hub.stop().await;
}

/// A command that has what it waited for ends its watch, and deletes what it had asked with.
#[tokio::test]
async fn what_is_asked_while_a_watch_ends_is_done() {
    let dir = TempDir::new().unwrap();
    let relayed = Relayed::start(dir.path()).await;
    let store = &relayed.store;
    for n in 0..20 {
        let mut watch = store.watch(vec![all()]).await.unwrap();
        assert!(matches!(next(&mut watch).await, Some(Ok(WatchEvent::Snapshot(_)))));
        let key = format!("/{n}");
        put(store, &key, "1").await;
        drop(watch);
        store.delete_many(vec![key]).await.unwrap();
    }
    assert_eq!(values(store).await, [""; 0]);
    relayed.hub.stop().await;
}

#[tokio::test]
async fn a_request_whose_watch_ends_is_in_doubt_and_the_next_has_another_way() {
    let dir = TempDir::new().unwrap();
    let relayed = Relayed::start(dir.path()).await;
    let watch = open_watch(&relayed.store, all()).await;
    relayed.hub.stop().await;
    timeout(TIMEOUT, watch).await.unwrap().unwrap();
    let error = relayed.store.put_many(vec![("/a".to_owned(), "1".to_owned())]).await.remove(0).unwrap_err();
    assert!(matches!(error, StoreError::Unreachable { .. } | StoreError::Ambiguous { .. }), "{error:?}");
    assert_eq!(relayed.connections.load(Ordering::SeqCst), 2, "a connection of its own was tried");
}
