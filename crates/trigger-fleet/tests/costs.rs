//! What `trigger status` without an id and a sweep read of a week of events: 2,000 of 50 targets each, in a fleet of 1,000
//! nodes. `cargo test -p trigger-fleet --test costs -- --nocapture` prints the numbers.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says what it expects"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use trigger_core::delivery::{Completion, DeliveryOutcome};
use trigger_core::event::{DEFAULT_LIFETIME, Event, RunOptions, Target, Targets};
use trigger_core::identity::{Certname, EventId, KeyPrefix, Revision, RunId};
use trigger_core::keyspace::{Key, Keyspace};
use trigger_core::lineage::{Lineage, Loops};
use trigger_core::node::{Activity, NodeRecord};
use trigger_core::publication::Publication;
use trigger_core::run::history::RunHistory;
use trigger_core::run::{CompletedRun, RunOutcome, RunResult};
use trigger_core::time::Timestamp;
use trigger_fleet::Fleet;
use trigger_fleet::sweeping::Swept;
use trigger_store::meddled::{Meddled, Meddler};
use trigger_store::memory::MemoryStore;
use trigger_store::store::{CasOutcome, Entry, KeyRange, Store, StoreError};
use uuid::Uuid;

const NOW: Timestamp = Timestamp::from_unix_ms(1_763_812_800_000);
const EVENTS: u64 = 2_000;
const TARGETS: usize = 50;
const NODES: usize = 1_000;
const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The number of ranges that etcd takes in one transaction.
const RANGES_PER_REQUEST: usize = 128;

/// The requests to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Cost {
    /// Calls, a call with many ranges as often as backends need for it.
    requests: usize,
    /// Keys and values that came back.
    bytes: usize,
    /// Values among them.
    values: usize,
    /// Keys written or deleted.
    writes: usize,
}

#[derive(Default)]
struct Counting {
    store: MemoryStore,
    cost: Mutex<Cost>,
}

impl Counting {
    fn add(&self, cost: Cost) {
        let mut sum = self.cost.lock().unwrap();
        sum.requests += cost.requests;
        sum.bytes += cost.bytes;
        sum.values += cost.values;
        sum.writes += cost.writes;
    }

    fn take(&self) -> Cost {
        std::mem::take(&mut self.cost.lock().unwrap())
    }
}

#[async_trait::async_trait]
impl Meddler for Counting {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    async fn put_many(&self, entries: Vec<(String, String)>) -> Vec<Result<Revision, StoreError>> {
        self.add(Cost { requests: 1, writes: entries.len(), ..Cost::default() });
        self.store.put_many(entries).await
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        value: &str,
        expected: Option<Revision>,
    ) -> Result<CasOutcome, StoreError> {
        self.add(Cost { requests: 1, writes: 1, ..Cost::default() });
        self.store.compare_and_swap(key, value, expected).await
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        self.add(Cost { requests: 1, writes: keys.len(), ..Cost::default() });
        self.store.delete_many(keys).await
    }

    async fn replace(
        &self,
        keys: &[String],
        entries: &[(String, String)],
    ) -> Option<Result<Vec<Revision>, StoreError>> {
        self.add(Cost { requests: 1, writes: keys.len() + entries.len(), ..Cost::default() });
        Some(self.store.replace(keys.to_vec(), entries.to_vec()).await)
    }

    async fn read(&self, ranges: &[KeyRange]) -> Result<Vec<Entry>, StoreError> {
        let entries = self.store.read(ranges).await?;
        self.add(Cost {
            requests: ranges.len().div_ceil(RANGES_PER_REQUEST),
            bytes: entries.iter().map(|entry| entry.key.len() + entry.value.len()).sum(),
            values: entries.len(),
            writes: 0,
        });
        Ok(entries)
    }

    async fn list(&self, ranges: &[KeyRange]) -> Result<Vec<(String, Revision)>, StoreError> {
        let keys = self.store.list(ranges).await?;
        self.add(Cost {
            requests: ranges.len().div_ceil(RANGES_PER_REQUEST),
            bytes: keys.iter().map(|(key, _)| key.len()).sum(),
            ..Cost::default()
        });
        Ok(keys)
    }
}

fn node(n: usize) -> Certname {
    format!("node{n:04}.example.com").parse().unwrap()
}

/// The id of the nth event, made when it was fired.
fn id(n: u64, fired_at: Timestamp) -> EventId {
    let mut random = [0; 10];
    random[..8].copy_from_slice(&n.to_be_bytes());
    EventId::from_uuid(uuid::Builder::from_unix_timestamp_millis(fired_at.as_unix_ms(), &random).into_uuid())
}

fn publication(n: u64) -> Publication {
    let age = WEEK.as_millis() as u64 * (EVENTS - n) / EVENTS;
    let fired_at = Timestamp::from_unix_ms(NOW.as_unix_ms() - age);
    let id = id(n, fired_at);
    let hosts = (0..TARGETS).map(|target| node((n as usize * 7 + target) % NODES)).collect();
    Publication {
        backend: "memory:".to_owned(),
        prefix: KeyPrefix::default(),
        event: Event {
            id,
            trigger: "refresh load balancers".parse().unwrap(),
            origin: node(n as usize % NODES),
            targets: Targets { hosts, ..Targets::default() },
            options: RunOptions::default(),
            lineage: Lineage::root(id),
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

fn record(n: usize, seen_at: Timestamp) -> NodeRecord {
    NodeRecord {
        instance: Uuid::from_u128(n as u128).to_string(),
        lock: Some("0123456789abcdef".to_owned()),
        released: false,
        location: format!("node{n:04}, pid 4711, /var/lib/trigger"),
        renewals: 10_000,
        version: "0.1.0".to_owned(),
        seen_at,
        groups: BTreeMap::new(),
        activity: Activity::default(),
    }
}

/// The end of the nth run.
fn done(n: u64, at: Timestamp) -> DeliveryOutcome {
    let result = RunResult {
        outcome: RunOutcome::Changed,
        reason: None,
        reported_noop: false,
        drift: Default::default(),
        started_at: at,
        finished_at: at,
    };
    DeliveryOutcome::Done(CompletedRun::new(RunId::from_uuid(Uuid::from_u128(u128::from(n))), false, result))
}

/// A week of events, all of which have ended but for one target of each of the latest ten.
async fn a_week_of_events() -> (Arc<Meddled<Counting>>, Fleet) {
    let store = Arc::new(Meddled(Counting::default()));
    let fleet = Fleet::new(store.clone(), Keyspace::default());
    register(&fleet, NOW).await;
    for n in 1..=EVENTS {
        let publication = publication(n);
        let at = publication.event.fired_at;
        fleet.publish(&publication, false).await.unwrap();
        let outcome = fleet.codec().encode(&done(n, at));
        let ended = publication.event.targets.hosts.into_iter().skip(usize::from(n > EVENTS - 10));
        let event = publication.event.id;
        let (mut outcomes, mut deliveries) = (Vec::new(), Vec::new());
        for certname in ended {
            let key = |key: &Key| fleet.keyspace().key(key);
            outcomes.push((key(&Key::Outcome { event, certname: certname.clone() }), outcome.clone()));
            deliveries.push(key(&Key::Delivery { certname, event }));
        }
        store.store.put_many(outcomes).await;
        store.store.delete_many(deliveries).await.unwrap();
    }
    store.take();
    (store, fleet)
}

async fn register(fleet: &Fleet, now: Timestamp) {
    let registrations = (0..NODES).map(|n| {
        let key = fleet.keyspace().key(&Key::Node { certname: node(n) });
        (key, fleet.codec().encode(&record(n, now)))
    });
    fleet.store().put_many(registrations.collect()).await;
}

#[tokio::test]
async fn the_end_of_a_run_is_one_request() {
    let store = Arc::new(Meddled(Counting::default()));
    let fleet = Fleet::new(store.clone(), Keyspace::default());
    let (first, second) = (publication(1), publication(2));
    let target = first.event.targets.hosts.first().unwrap().clone();
    let completions = [(1, &first), (2, &second)].map(|(n, publication)| Completion {
        event: publication.event.id,
        addressed_as: [Target::Node(target.clone())].into(),
        outcome: done(n, NOW),
    });
    fleet.publish(&first, false).await.unwrap();
    store.take();
    let fleet = fleet.acting_as(target);
    fleet.finish_runs(&completions, Some(&RunHistory::default())).await.unwrap();
    assert_eq!(store.take(), Cost { requests: 1, writes: 3 + 2, ..Cost::default() });
    let left = store.store.read(&fleet.delivery_ranges([])).await.unwrap();
    assert_eq!(left, [], "its delivery is gone");
}

/// Proves C12.
#[tokio::test]
async fn status_and_sweeps_read_what_they_need_of_a_week_of_events() {
    let (store, fleet) = a_week_of_events().await;

    let latest = fleet.latest_events(20).await.unwrap();
    let cost = store.take();
    println!("status, 20 events: {cost:?}");
    assert_eq!(latest.len(), 20);
    assert_eq!(latest[0].event.id, publication(EVENTS).event.id);
    // The keys of all events; 20 parts with their outcomes; the nodes whose deliveries are open.
    let nodes = latest.iter().flat_map(|status| &status.targets).filter(|(_, target)| !target.state.is_end());
    let nodes: std::collections::BTreeSet<_> = nodes.map(|(certname, _)| certname).collect();
    assert_eq!((cost.requests, cost.values), (3, 20 + 20 * TARGETS - 10 + nodes.len()));

    let sweep = async |hours: u64| {
        let now = NOW.plus(Duration::from_secs(hours * 60 * 60));
        register(&fleet, now).await;
        store.take();
        let swept = fleet.sweep(now, None).await.unwrap();
        let cost = store.take();
        println!("a sweep after {hours} h: {swept:?} {cost:?}");
        (swept, cost)
    };
    // The first one looks at every event that is over, and notes that it has settled.
    let (swept, cost) = sweep(0).await;
    assert_eq!((swept, cost.requests > 3_000), (Swept::default(), true));
    // Then it reads the events of the last day, and as a whole those that came due since.
    for hours in [1, 2] {
        let (swept, cost) = sweep(hours).await;
        assert_eq!(swept, Swept::default());
        assert!(cost.requests <= 30 && cost.bytes < 1_100_000 && cost.writes <= 12, "{cost:?}");
    }
    let (swept, _) = sweep(26).await;
    assert_eq!(swept, Swept { expired: 10, removed: 22 }, "what is due is done");
    let (swept, cost) = sweep(27).await;
    assert_eq!(swept, Swept { expired: 0, removed: 12 });
    assert!(cost.requests <= 5 + 12 * 5, "{cost:?}");
    // In the end nothing is left but the nodes and their registrations.
    sweep(24 * 30).await;
    sweep(24 * 30 + 1).await;
    let left = store.store.list(&[KeyRange::Prefix("/".to_owned())]).await.unwrap();
    assert_eq!(left.len(), NODES);
}
