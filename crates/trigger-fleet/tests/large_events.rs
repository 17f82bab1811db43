//! The cost of huge events and of many events: only the needed entries are read, and an entry that was written is not
//! written again.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says what it expects")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use trigger_core::delivery::DeliveryOutcome;
use trigger_core::event::{DEFAULT_LIFETIME, Event, RunOptions, Targets};
use trigger_core::identity::{Certname, EventId, KeyPrefix, Revision};
use trigger_core::keyspace::{Key, Keyspace, Range};
use trigger_core::lineage::{Lineage, Loops};
use trigger_core::publication::Publication;
use trigger_core::time::Timestamp;
use trigger_fleet::Fleet;
use trigger_fleet::sweeping::Swept;
use trigger_store::meddled::{Meddled, Meddler};
use trigger_store::memory::MemoryStore;
use trigger_store::store::{Entry, KeyRange, Store, StoreError};
use uuid::Uuid;

const NOW: Timestamp = Timestamp::from_unix_ms(1_763_812_800_000);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// A store that notes what it is asked, and takes an entry only when it has refused it so often before.
struct Witness {
    store: MemoryStore,
    refusals: fn(&str) -> usize,
    refused: Mutex<BTreeMap<String, usize>>,
    /// How many entries each `put_many` brought.
    offered: Mutex<Vec<usize>>,
    /// The keys whose values were read.
    read: Mutex<Vec<String>>,
}

impl Witness {
    fn that_refuses(refusals: fn(&str) -> usize) -> (Fleet, Arc<Meddled<Self>>) {
        let (refused, offered, read) = Default::default();
        with_fleet(Meddled(Self { store: MemoryStore::default(), refusals, refused, offered, read }))
    }

    fn values_read(&self) -> Vec<String> {
        std::mem::take(&mut self.read.lock().unwrap())
    }

    fn offered(&self) -> Vec<usize> {
        self.offered.lock().unwrap().clone()
    }

    async fn count(&self, range: Range) -> usize {
        self.count_below(Keyspace::default().range(&range)).await
    }

    async fn count_below(&self, prefix: String) -> usize {
        self.store.list(&[KeyRange::Prefix(prefix)]).await.unwrap().len()
    }
}

#[async_trait::async_trait]
impl Meddler for Witness {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    async fn put_many(&self, entries: Vec<(String, String)>) -> Vec<Result<Revision, StoreError>> {
        self.offered.lock().unwrap().push(entries.len());
        let mut results = Vec::new();
        for (key, value) in entries {
            let is_taken = {
                let mut refused = self.refused.lock().unwrap();
                let times = refused.entry(key.clone()).or_default();
                *times += 1;
                *times > (self.refusals)(&key)
            };
            results.push(if is_taken {
                self.store.put_many(vec![(key, value)]).await.remove(0)
            } else {
                Err(StoreError::Ambiguous { backend: "here".to_owned(), detail: "a fault".into() })
            });
        }
        results
    }

    async fn read(&self, ranges: &[KeyRange]) -> Result<Vec<Entry>, StoreError> {
        let entries = self.store.read(ranges).await?;
        self.read.lock().unwrap().extend(entries.iter().map(|entry| entry.key.clone()));
        Ok(entries)
    }
}

fn with_fleet<S: Store + 'static>(store: S) -> (Fleet, Arc<S>) {
    let store = Arc::new(store);
    (Fleet::new(store.clone(), Keyspace::default()), store)
}

fn id(n: u128) -> EventId {
    EventId::from_uuid(Uuid::from_u128(n))
}

/// An event for so many hosts, fired so many hours before [`NOW`].
fn publication(n: u128, hosts: usize, hours_ago: u64) -> Publication {
    let fired_at = Timestamp::from_unix_ms(NOW.as_unix_ms() - hours_ago * 3_600_000);
    let hosts = (0..hosts).map(|n| format!("host{n:05}").parse().unwrap()).collect();
    Publication {
        backend: "memory:".to_owned(),
        prefix: KeyPrefix::default(),
        event: Event {
            id: id(n),
            trigger: "t".parse().unwrap(),
            origin: "web01".parse().unwrap(),
            targets: Targets { hosts, ..Targets::default() },
            options: RunOptions::default(),
            lineage: Lineage::root(id(n)),
            fired_in: None,
            fired_by: None,
            catalog: None,
            loops: Loops::Avoid,
            fired_at,
            expires_in: DEFAULT_LIFETIME,
        },
        suppressed: BTreeMap::new(),
        suppressed_groups: BTreeMap::new(),
    }
}

#[tokio::test]
async fn publishing_goes_on_with_what_a_failing_backend_did_not_take() {
    // A quarter of the keys is taken at once, the next quarter when it is offered again, and so on.
    let (fleet, store) = Witness::that_refuses(|key| key.bytes().map(usize::from).sum::<usize>() % 4);
    fleet.publish(&publication(1, 5000, 0), false).await.unwrap();
    assert_eq!(store.count(Range::Events).await, 40);
    assert_eq!(store.count_below("/puppet_trigger/events/deliveries/".to_owned()).await, 5000);
    let offered = store.offered();
    assert_eq!(offered.len(), 8, "parts, then deliveries: {offered:?}");
    let (parts, deliveries) = offered.split_at(4);
    assert_eq!((parts[0], deliveries[0]), (40, 5000));
    assert!(parts.is_sorted_by(|a, b| a > b) && deliveries.is_sorted_by(|a, b| a > b), "{offered:?}");
}

#[tokio::test]
async fn publishing_gives_up_where_nothing_is_taken_and_where_something_never_is() {
    let (fleet, away) = Witness::that_refuses(|_| usize::MAX);
    assert!(fleet.publish(&publication(1, 5000, 0), false).await.unwrap_err().is_transient());
    assert_eq!(away.offered(), [40], "its parts, once");
    let (fleet, stubborn) = Witness::that_refuses(|key| if key.ends_with("/7") { usize::MAX } else { 0 });
    assert!(fleet.publish(&publication(1, 5000, 0), false).await.unwrap_err().is_transient());
    assert_eq!(stubborn.offered(), [40, 1]);
    // Another is taken at each offer, so that there is always some progress.
    let (fleet, slow) =
        Witness::that_refuses(|key| key.rsplit('/').next().unwrap().parse().unwrap_or_default());
    assert!(fleet.publish(&publication(1, 5000, 0), false).await.unwrap_err().is_transient());
    assert_eq!(slow.offered(), [40, 39, 38, 37, 36, 35, 34, 33], "and then others have their turn");
}

#[tokio::test]
async fn the_latest_events_are_read_and_no_others() {
    let (fleet, store) = Witness::that_refuses(|_| 0);
    for n in 1..=20 {
        fleet.publish(&publication(n, 300, 0), false).await.unwrap();
    }
    store.values_read();
    let latest = fleet.latest_events(2).await.unwrap();
    assert_eq!(latest.iter().map(|status| status.event.id).collect::<Vec<_>>(), [id(20), id(19)]);
    assert!(latest.iter().all(|status| status.targets.len() == 300 && status.unreadable_parts.is_empty()));
    assert_eq!(store.values_read().len(), 6, "three parts each");
    assert_eq!(fleet.latest_events(0).await.unwrap(), []);
}

#[tokio::test]
async fn a_sweep_reads_one_part_of_what_is_not_due_and_no_outcome() {
    let (fleet, store) = Witness::that_refuses(|_| 0);
    let keyspace = Keyspace::default();
    for n in 1..=200 {
        fleet.publish(&publication(n, 300, 0), false).await.unwrap();
    }
    // Long over, and just over: all ended but one target, which never answered.
    for (n, hours_ago) in [(300, 9 * 24 + 2), (301, 24 + 2)] {
        let publication = publication(n, 300, hours_ago);
        fleet.publish(&publication, false).await.unwrap();
        let outcomes = publication.event.targets.hosts.iter().skip(usize::from(n == 301));
        let expired = fleet.codec().encode(&DeliveryOutcome::Expired(None));
        let key = |host: &Certname| keyspace.key(&Key::Outcome { event: id(n), certname: host.clone() });
        let outcomes = outcomes.map(|host| (key(host), expired.clone()));
        assert!(store.store.put_many(outcomes.collect()).await.iter().all(Result::is_ok));
    }
    store.values_read();
    let swept = fleet.sweep(NOW, None).await.unwrap();
    assert_eq!(swept, Swept { expired: 1, removed: 1 });
    let read = store.values_read();
    assert_eq!(read.len(), 202 + 2 * 3, "{read:?}");
    assert!(read.iter().all(|key| key.starts_with(&keyspace.range(&Range::Events))), "{read:?}");
    assert_eq!(store.count(Range::Event(id(300))).await, 0);
    assert_eq!(store.count(Range::Outcomes(id(300))).await, 0);
    assert_eq!(store.count(Range::Outcomes(id(301))).await, 300);
    assert_eq!(store.count(Range::Event(id(1))).await, 3);
}

#[tokio::test]
async fn an_unreadable_first_part_hides_no_event_from_a_sweep() {
    let (fleet, store) = Witness::that_refuses(|_| 0);
    fleet.publish(&publication(1, 300, 24 + 2), false).await.unwrap();
    let part = Keyspace::default().key(&Key::Part { event: id(1), index: 0 });
    store.store.put_many(vec![(part, "garbage".to_owned())]).await.remove(0).unwrap();
    let swept = fleet.sweep(NOW, None).await.unwrap();
    assert_eq!(swept, Swept { expired: 300 - 128, removed: 0 });
    let much_later = NOW.plus(9 * 24 * HOUR);
    assert_eq!(fleet.sweep(much_later, None).await.unwrap(), Swept { expired: 0, removed: 1 });
}

/// A backend that is restored from a backup after its first answer: what that call had written is gone.
struct Restored {
    store: MemoryStore,
    calls: AtomicUsize,
}

#[async_trait::async_trait]
impl Meddler for Restored {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    async fn put_many(&self, entries: Vec<(String, String)>) -> Vec<Result<Revision, StoreError>> {
        let keys = entries.iter().map(|(key, _)| key.clone()).collect();
        let results = self.store.put_many(entries).await;
        if self.calls.fetch_add(1, Ordering::Relaxed) == 0 {
            self.store.delete_many(keys).await.unwrap();
        }
        results
    }
}

#[tokio::test]
async fn an_event_whose_parts_a_restored_backend_lost_is_not_committed() {
    let (fleet, store) =
        with_fleet(Meddled(Restored { store: MemoryStore::default(), calls: AtomicUsize::new(0) }));
    let large = publication(1, 200, 0);
    let error = fleet.publish(&large, false).await.unwrap_err();
    assert!(error.is_transient(), "it stays in the outbox: {error}");
    fleet.publish(&large, false).await.unwrap();
    let parts =
        store.list(&[KeyRange::Prefix(Keyspace::default().range(&Range::Event(id(1))))]).await.unwrap();
    assert_eq!(parts.len(), 2);
}
