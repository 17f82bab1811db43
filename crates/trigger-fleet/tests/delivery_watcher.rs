//! Deliveries that a watch does not report are read all the same, on the store in memory.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says what it expects")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::{mpsc, watch};
use trigger_core::identity::{Certname, EventId, Revision};
use trigger_core::keyspace::{Key, Keyspace};
use trigger_fleet::Fleet;
use trigger_fleet::claim::ClaimState;
use trigger_fleet::deliveries::Arrival;
use trigger_fleet::delivery_watcher::{Batch, DeliveryWatcher, Outlets, read_again_after};
use trigger_store::meddled::{Meddled, Meddler};
use trigger_store::memory::MemoryStore;
use trigger_store::store::{Change, Entry, KeyRange, Store, StoreError, Watch, WatchEvent};

/// A watch that lives and reports a renewal each minute, and nothing else.
fn blind_watch(key: String) -> Watch {
    let renewals = stream::unfold(1, move |revision| {
        let entry = Entry { key: key.clone(), value: String::new(), revision: Revision(revision) };
        async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Some((Ok(WatchEvent::Changes(vec![Change::Put(entry)])), revision + 1))
        }
    });
    renewals.boxed()
}

/// A store that answers so many reads, and no more.
struct FailsAfter {
    store: MemoryStore,
    reads: AtomicUsize,
}

#[async_trait::async_trait]
impl Meddler for FailsAfter {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    async fn read(&self, ranges: &[KeyRange]) -> Result<Vec<Entry>, StoreError> {
        let left = self.reads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if left.is_err() {
            return Err(StoreError::Unreachable { backend: "here".to_owned(), detail: "a fault".into() });
        }
        self.store.read(ranges).await
    }
}

/// The watcher of lb01, which belongs to the group `lb` since a revision, with both ends of its channels.
struct World {
    watcher: DeliveryWatcher,
    claim: watch::Sender<ClaimState>,
    arrived: mpsc::Receiver<Batch>,
    seen: watch::Receiver<Revision>,
    asked: mpsc::Receiver<Vec<Entry>>,
}

fn world(store: Arc<dyn Store>, joined: u64) -> World {
    let (claim, held) = watch::channel(held(joined));
    let (arrivals, arrived) = mpsc::channel(16);
    let (own_record, seen) = watch::channel(Revision::default());
    let (log_requests, asked) = mpsc::channel(16);
    let outlets = Outlets { arrivals, own_record, log_requests };
    let fleet = Fleet::new(store, Keyspace::default()).acting_as(node());
    World { watcher: DeliveryWatcher::new(fleet, held, outlets), claim, arrived, seen, asked }
}

fn node() -> Certname {
    "lb01".parse().unwrap()
}

fn key(key: &Key) -> String {
    Keyspace::default().key(key)
}

fn delivery(n: u128) -> String {
    key(&Key::Delivery { certname: node(), event: event(n) })
}

fn group_delivery(n: u128) -> String {
    key(&Key::GroupDelivery { group: "lb".parse().unwrap(), event: event(n) })
}

fn outcome(n: u128) -> String {
    key(&Key::Outcome { event: event(n), certname: node() })
}

fn held(joined: u64) -> ClaimState {
    let joined = [("lb".parse().unwrap(), Revision(joined))].into();
    ClaimState::Held { joined, renewed_at: Duration::ZERO }
}

fn event(n: u128) -> EventId {
    EventId::from_uuid(uuid::Uuid::from_u128(n))
}

async fn put(store: &MemoryStore, key: String, value: &str) {
    store.put_many(vec![(key, value.to_owned())]).await.remove(0).unwrap();
}

/// Puts a delivery whose event is not there, which is enough for it to be read.
async fn deliver(store: &MemoryStore, key: String) {
    put(store, key, r#"{"v":1,"body":{"part":0}}"#).await;
}

/// Follows for as long as it takes to read everything; what came, batch by batch.
async fn everything(world: &mut World) -> Vec<Arrival> {
    let mut all = Vec::new();
    let watch = world.watcher.connect().await.unwrap();
    tokio::select! {
        error = world.watcher.follow(watch, |_| std::future::pending()) => panic!("{error}"),
        () = async {
            while let Some(batch) = world.arrived.recv().await {
                all.extend(batch.arrivals);
                if batch.is_all {
                    return;
                }
            }
        } => {}
    }
    all
}

/// Proves C3.
#[tokio::test(start_paused = true)]
async fn a_watch_with_other_changes_does_not_delay_the_reading() {
    let store = MemoryStore::default();
    let World { mut watcher, mut arrived, seen, claim: _claim, .. } = world(Arc::new(store.clone()), 0);
    deliver(&store, delivery(1)).await;

    let soon = read_again_after(0.5);
    let pause = |_| tokio::time::sleep(soon);
    let began = tokio::time::Instant::now();
    drop(watcher.connect().await.unwrap());
    tokio::select! {
        error = watcher.follow(blind_watch(key(&Key::Node { certname: node() })), pause) => panic!("{error}"),
        read = arrived.recv() => {
            let batch = read.expect("all there is");
            assert!(batch.is_all && batch.arrivals.len() == 1, "{batch:?}");
        },
    }
    assert_eq!(began.elapsed(), soon);
    assert!(*seen.borrow() >= Revision(9), "and the renewals that it reported meanwhile count");
}

/// Proves C3.
#[tokio::test]
async fn a_backend_that_counts_from_the_start_is_watched_again() {
    let store = MemoryStore::default();
    let mut world = world(Arc::new(store.clone()), 1_000_000);
    let watch = world.watcher.connect().await.unwrap();
    world.claim.send_replace(held(0));
    let error = world.watcher.follow(watch, |_| std::future::pending::<()>()).await;
    assert!(error.to_string().contains("its revisions start again"), "{error}");

    deliver(&store, group_delivery(1)).await;
    let arrivals = everything(&mut world).await;
    assert_eq!(arrivals.len(), 1, "an event of now, fired at its group: {arrivals:?}");
}

#[tokio::test]
async fn what_can_be_read_counts_though_the_rest_cannot() {
    let store = MemoryStore::default();
    for n in 1..=200 {
        deliver(&store, delivery(n)).await;
        put(&store, outcome(n), "{}").await;
    }
    let failing = Meddled(FailsAfter { store, reads: AtomicUsize::new(2) });
    let mut world = world(Arc::new(failing), 0);
    let watch = world.watcher.connect().await.unwrap();
    let error = world.watcher.follow(watch, |_| std::future::pending::<()>()).await;
    assert!(error.to_string().contains("a fault"), "{error}");
    let mut read = 0;
    while let Ok(batch) = world.arrived.try_recv() {
        assert!(!batch.is_all, "it is not");
        read += batch.arrivals.len();
    }
    assert_eq!(read, 120, "two requests of three were answered");
}

#[tokio::test(start_paused = true)]
async fn a_groups_event_that_has_ended_here_is_looked_up_once_a_connection() {
    let store = MemoryStore::default();
    put(&store, outcome(1), "{}").await;
    deliver(&store, group_delivery(1)).await;
    let counting = Arc::new(Meddled(FailsAfter { store, reads: AtomicUsize::new(usize::MAX) }));
    let mut world = world(counting.clone(), 0);
    let watch = world.watcher.connect().await.unwrap();
    let again = |_| tokio::time::sleep(Duration::from_secs(600));
    tokio::select! {
        error = world.watcher.follow(watch, again) => panic!("{error}"),
        () = async {
            let mut looked_up = Vec::new();
            while looked_up.len() < 3 {
                let batch = world.arrived.recv().await.expect("a batch");
                if batch.is_all {
                    looked_up.push(usize::MAX - counting.reads.load(Ordering::Relaxed));
                }
            }
            // The deliveries at the watch's start, then once every ten minutes.
            assert_eq!(looked_up, [1, 2, 3]);
        } => {}
    }
    drop(everything(&mut world).await);
    assert_eq!(
        usize::MAX - counting.reads.load(Ordering::Relaxed),
        4,
        "a new connection may be to a restored backend"
    );
}

/// The receiver waits for the rest of a reading, which must end.
#[tokio::test(start_paused = true)]
async fn a_reading_in_portions_has_an_end_even_if_the_rest_cannot_be_read() {
    for reads in [usize::MAX, 1] {
        let store = MemoryStore::default();
        for n in 1..=70 {
            deliver(&store, delivery(n)).await;
            put(&store, outcome(n), "{}").await;
        }
        let store = Arc::new(Meddled(FailsAfter { store, reads: AtomicUsize::new(reads) }));
        let mut world = world(store, 0);
        let watch = world.watcher.connect().await.unwrap();
        let follow = world.watcher.follow(watch, |_| std::future::pending());
        let read = async {
            let mut portions = Vec::new();
            loop {
                let batch = world.arrived.recv().await.unwrap();
                portions.push((batch.arrivals.len(), batch.is_all));
                if !batch.more_follow {
                    return portions;
                }
            }
        };
        let (_, portions) = tokio::join!(tokio::time::timeout(Duration::from_secs(1), follow), read);
        let expected = if reads == 1 {
            vec![(60, false), (0, false)]
        } else {
            vec![(60, false), (10, false), (0, true)]
        };
        assert_eq!(portions, expected);
    }
}

fn log_request() -> String {
    key(&Key::LogRequest { certname: node(), reader: "ops01".parse().unwrap() })
}

#[tokio::test]
async fn requests_for_logs_come_beside_the_deliveries_and_hold_none_up() {
    let store = MemoryStore::default();
    let mut world = world(Arc::new(store.clone()), 0);
    deliver(&store, delivery(1)).await;
    put(&store, log_request(), "x").await;
    // More than there is room for: what is dropped is asked again.
    for _ in 0..20 {
        assert_eq!(everything(&mut world).await.len(), 1);
    }
    let asked = world.asked.recv().await.unwrap();
    assert_eq!((asked.len(), asked[0].key.as_str()), (1, log_request().as_str()));
}

/// A store that may refuse requests for logs, as an older hub does, and counts who asks.
#[derive(Clone, Default)]
struct Older {
    store: MemoryStore,
    shows_logs: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Older {
    fn refuses(&self, ranges: &[KeyRange]) -> bool {
        !self.shows_logs.load(Ordering::Relaxed) && asks_for_logs(ranges)
    }
}

#[async_trait::async_trait]
impl Meddler for Older {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    async fn list(&self, ranges: &[KeyRange]) -> Result<Vec<(String, Revision)>, StoreError> {
        if asks_for_logs(ranges) {
            self.asked.fetch_add(1, Ordering::Relaxed);
        }
        if self.refuses(ranges) { Err(refused()) } else { self.store.list(ranges).await }
    }

    async fn watch(&self, ranges: Vec<KeyRange>) -> Result<Watch, StoreError> {
        if self.refuses(&ranges) {
            return Ok(stream::iter([Err(refused())]).boxed());
        }
        self.store.watch(ranges).await
    }
}

fn asks_for_logs(ranges: &[KeyRange]) -> bool {
    ranges.iter().any(|range| range.contains(&log_request()))
}

fn refused() -> StoreError {
    StoreError::Refused { backend: "here".to_owned(), detail: "not a key".into() }
}

#[tokio::test]
async fn a_backend_that_refuses_requests_for_logs_still_delivers_and_one_that_shows_them_is_asked_once() {
    let older = Older::default();
    let mut world = world(Arc::new(Meddled(older.clone())), 0);
    deliver(&older.store, delivery(1)).await;
    let asked = || older.asked.load(Ordering::Relaxed);
    assert_eq!(everything(&mut world).await.len(), 1);
    assert_eq!(asked(), 2, "with what else may be watched, and alone");
    older.shows_logs.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        assert_eq!(everything(&mut world).await.len(), 1);
    }
    assert_eq!(asked(), 3, "what it allows is remembered");
    older.shows_logs.store(false, Ordering::Relaxed);
    let watch = world.watcher.connect().await.unwrap();
    let ended = world.watcher.follow(watch, |_| std::future::pending()).await;
    assert!(matches!(ended, StoreError::Refused { .. }), "{ended}");
    assert_eq!(everything(&mut world).await.len(), 1, "an older hub in its place is asked again");
    assert_eq!(asked(), 5);
}
