//! The fleet at a glance, and the removal of a node that is gone, on the store in memory.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says what it expects")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use trigger_core::delivery::{Completion, DeliveryOutcome, DeliveryState};
use trigger_core::event::{DEFAULT_LIFETIME, Event, RunOptions, Target, Targets};
use trigger_core::identity::{Certname, EventId, KeyPrefix, Revision};
use trigger_core::keyspace::{Key, Keyspace};
use trigger_core::lineage::{Lineage, Loops};
use trigger_core::node::{Activity, NodeRecord};
use trigger_core::publication::Publication;
use trigger_core::time::Timestamp;
use trigger_fleet::Fleet;
use trigger_store::memory::MemoryStore;
use trigger_store::store::Store;
use uuid::Uuid;

const NOW: Timestamp = Timestamp::from_unix_ms(1_763_812_800_000);

fn id(n: u128) -> EventId {
    EventId::from_uuid(Uuid::from_u128(n))
}

fn node(name: &str) -> Certname {
    name.parse().unwrap()
}

fn acting(store: &MemoryStore, certname: &str) -> Fleet {
    Fleet::new(Arc::new(store.clone()), Keyspace::default()).acting_as(node(certname))
}

async fn register(store: &MemoryStore, certname: &str, groups: &[&str]) {
    let record = NodeRecord {
        instance: certname.to_owned(),
        lock: None,
        released: true,
        location: "somewhere".to_owned(),
        renewals: 1,
        version: "0.1.0".to_owned(),
        seen_at: NOW,
        groups: groups.iter().map(|group| (group.parse().unwrap(), Revision(0))).collect(),
        activity: Activity::default(),
    };
    let key = Keyspace::default().key(&Key::Node { certname: node(certname) });
    let text = acting(store, certname).codec().encode(&record);
    assert!(store.put_many(vec![(key, text)]).await[0].is_ok());
}

async fn fire(store: &MemoryStore, n: u128, hosts: &[&str], groups: &[&str]) {
    let event = Event {
        id: id(n),
        trigger: "refresh".parse().unwrap(),
        origin: node("web"),
        targets: Targets {
            hosts: hosts.iter().map(|host| node(host)).collect(),
            groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
        },
        options: RunOptions::default(),
        lineage: Lineage::root(id(n)),
        fired_in: None,
        fired_by: None,
        catalog: None,
        loops: Loops::Avoid,
        fired_at: NOW,
        expires_in: DEFAULT_LIFETIME,
    };
    let publication = Publication {
        backend: "memory:".to_owned(),
        prefix: KeyPrefix::default(),
        event,
        suppressed: BTreeMap::new(),
        suppressed_groups: BTreeMap::new(),
    };
    acting(store, "web").publish(&publication, false).await.unwrap();
}

async fn state(store: &MemoryStore, n: u128, certname: &str) -> DeliveryState {
    let status = acting(store, "web").event_status(id(n)).await.unwrap().unwrap();
    status.targets[&node(certname)].state
}

#[tokio::test]
async fn what_waits_for_a_node_that_is_gone_ends_and_nothing_else_does() {
    let store = MemoryStore::default();
    register(&store, "old", &["lb"]).await;
    register(&store, "other", &["lb"]).await;
    fire(&store, 1, &["old", "other"], &[]).await;
    fire(&store, 2, &[], &["lb"]).await;
    fire(&store, 3, &["old"], &[]).await;
    // The node has ended this one itself, and was cut off before it deleted the delivery.
    let refused = Completion {
        event: id(3),
        addressed_as: BTreeSet::from([Target::Group("lb".parse().unwrap())]),
        outcome: DeliveryOutcome::Refused("no".to_owned()),
    };
    acting(&store, "old").finish(&[refused]).await.unwrap();
    // A delivery whose event the backend has lost.
    fire(&store, 4, &["old"], &[]).await;
    let part = Keyspace::default().key(&Key::Part { event: id(4), index: 0 });
    store.delete_many(vec![part]).await.unwrap();

    let operator = acting(&store, "ops");
    let forgotten = operator.forget(&node("old"), "old was removed by ops").await.unwrap();
    assert_eq!((forgotten.expired.as_slice(), forgotten.was_registered), ([id(1), id(2)].as_slice(), true));
    for (event, expected) in
        [(1, DeliveryState::Expired), (2, DeliveryState::Expired), (3, DeliveryState::Refused)]
    {
        assert_eq!(state(&store, event, "old").await, expected, "{event}");
    }
    assert_eq!(state(&store, 1, "other").await, DeliveryState::Pending);
    assert_eq!(state(&store, 2, "other").await, DeliveryState::Pending);
    assert_eq!(operator.open_deliveries(&node("old")).await.unwrap(), []);
    assert_eq!(operator.node(&node("old")).await.unwrap(), None);
    let names = |certnames: &[&str]| certnames.iter().map(|name| node(name)).collect::<BTreeSet<_>>();
    let left = operator.overview(|_, _| true).await.unwrap();
    assert_eq!(left.nodes.into_keys().collect::<BTreeSet<_>>(), names(&["other"]));

    let again = operator.forget(&node("old"), "again").await.unwrap();
    assert_eq!((again.expired.len(), again.was_registered), (0, false));
}

#[tokio::test]
async fn a_registration_that_cannot_be_read_is_shown_all_the_same() {
    let store = MemoryStore::default();
    register(&store, "web", &[]).await;
    let key = Keyspace::default().key(&Key::Node { certname: node("newer") });
    store.put_many(vec![(key, "{\"v\":99,\"body\":{}}".to_owned())]).await;
    let overview = acting(&store, "web").overview(|_, _| true).await.unwrap();
    assert_eq!(overview.nodes.len(), 1);
    assert_eq!(overview.unreadable.into_keys().collect::<Vec<_>>(), [node("newer")]);
}
