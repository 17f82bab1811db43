//! The layer above the store trait, on the store in memory: publishing, deliveries, outcomes, registry.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says what it expects")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use trigger_core::delivery::{Completion, DeliveryOutcome, DeliveryState};
use trigger_core::event::{DEFAULT_LIFETIME, Event, RunOptions, Target, Targets};
use trigger_core::identity::{Certname, EventId, GroupName, KeyPrefix, Revision, RunId};
use trigger_core::keyspace::{Key, Keyspace, Range};
use trigger_core::lineage::{Chain, Hop, Lineage, Loops};
use trigger_core::node::{Activity, HeldDelivery, NodeRecord, Running};
use trigger_core::publication::Publication;
use trigger_core::run::history::{PastRun, RunHistory};
use trigger_core::run::{CompletedRun, RunOutcome, RunResult};
use trigger_core::time::Timestamp;
use trigger_fleet::Fleet;
use trigger_fleet::cancelling::{Asked, Scope};
use trigger_fleet::deliveries::Arrival;
use trigger_fleet::publishing::PublishError;
use trigger_fleet::status::EventStatus;
use trigger_fleet::sweeping::Swept;
use trigger_store::meddled::{Meddled, Meddler};
use trigger_store::memory::MemoryStore;
use trigger_store::store::{Entry, KeyRange, Store, StoreError};
use uuid::Uuid;

const NOW: Timestamp = Timestamp::from_unix_ms(1_763_812_800_000);

fn id(n: u128) -> EventId {
    EventId::from_uuid(Uuid::from_u128(n))
}

fn node(name: &str) -> Certname {
    name.parse().unwrap()
}

fn fleet(store: &MemoryStore) -> Fleet {
    Fleet::new(Arc::new(store.clone()), Keyspace::default())
}

fn acting(store: &MemoryStore, certname: &str) -> Fleet {
    fleet(store).acting_as(node(certname))
}

fn key(key: &Key) -> String {
    Keyspace::default().key(key)
}

fn delivery(certname: &str, n: u128) -> String {
    key(&Key::Delivery { certname: node(certname), event: id(n) })
}

fn publication(n: u128, hosts: &[&str], groups: &[&str]) -> Publication {
    Publication {
        backend: "memory:".to_owned(),
        prefix: KeyPrefix::default(),
        event: Event {
            id: id(n),
            trigger: "refresh load balancers".parse().unwrap(),
            origin: node("web01"),
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
        },
        suppressed: BTreeMap::new(),
        suppressed_groups: BTreeMap::new(),
    }
}

fn record(instance: &str, groups: &[(&str, u64)]) -> NodeRecord {
    NodeRecord {
        instance: instance.to_owned(),
        lock: None,
        released: false,
        location: format!("the place of {instance}"),
        renewals: 1,
        version: "0".to_owned(),
        seen_at: NOW,
        groups: groups.iter().map(|(group, joined)| (group.parse().unwrap(), Revision(*joined))).collect(),
        activity: Activity::default(),
    }
}

async fn register(store: &MemoryStore, certname: &str, record: &NodeRecord) {
    let key = key(&Key::Node { certname: node(certname) });
    assert!(store.put_many(vec![(key, fleet(store).codec().encode(record))]).await[0].is_ok());
}

/// The deliveries that `certname` would find now, read.
async fn arrivals(store: &MemoryStore, certname: &str, joined: &[(&str, u64)]) -> Vec<Arrival> {
    let fleet = acting(store, certname);
    let joined: BTreeMap<GroupName, Revision> =
        joined.iter().map(|(group, revision)| (group.parse().unwrap(), Revision(*revision))).collect();
    let ranges = fleet.delivery_ranges(joined.keys().cloned());
    let entries: Vec<Entry> = store.read(&ranges).await.unwrap();
    fleet.read_deliveries(&joined, &entries).await.unwrap()
}

fn pending(arrivals: &[Arrival]) -> Vec<EventId> {
    let event = |arrival: &Arrival| match arrival {
        Arrival::Pending(cause) => Some(cause.event.id),
        _ => None,
    };
    arrivals.iter().filter_map(event).collect()
}

async fn status(store: &MemoryStore, n: u128) -> EventStatus {
    fleet(store).event_status(id(n)).await.unwrap().expect("a published event is known")
}

fn states(status: &EventStatus) -> Vec<String> {
    status.targets.iter().map(|(certname, target)| format!("{certname} {}", target.state)).collect()
}

fn done(n: u128) -> DeliveryOutcome {
    DeliveryOutcome::Done(ended(n, RunOutcome::Changed))
}

fn failed(n: u128) -> DeliveryOutcome {
    DeliveryOutcome::Failed(ended(n, RunOutcome::Failed))
}

fn ended(n: u128, outcome: RunOutcome) -> CompletedRun {
    let result = RunResult {
        outcome,
        reason: None,
        reported_noop: false,
        drift: Default::default(),
        started_at: NOW,
        finished_at: NOW,
    };
    CompletedRun { run_id: RunId::from_uuid(Uuid::from_u128(n)), noop: false, result }
}

async fn finish(store: &MemoryStore, certname: &str, n: u128, end: DeliveryOutcome) {
    let completion =
        Completion { event: id(n), addressed_as: [Target::Node(node(certname))].into(), outcome: end };
    acting(store, certname).finish(&[completion]).await.unwrap();
}

/// The state of a delivery after these outcomes were stored one after the other.
async fn state_after(ends: &[DeliveryOutcome]) -> String {
    let store = MemoryStore::default();
    fleet(&store).publish(&publication(1, &["lb01"], &[]), false).await.unwrap();
    for end in ends {
        finish(&store, "lb01", 1, end.clone()).await;
    }
    states(&status(&store, 1).await).concat()
}

/// Proves C6.
#[tokio::test]
async fn a_done_wins_over_every_other_end_whichever_comes_later() {
    for other in [failed(8), DeliveryOutcome::Superseded(id(2)), DeliveryOutcome::Expired(None)] {
        assert_eq!(state_after(&[other.clone(), done(7)]).await, "lb01 done", "a later done wins");
        assert_eq!(
            state_after(&[done(7), other]).await,
            "lb01 done",
            "a late word of an agent that is no more"
        );
    }
}

/// Proves C6.
#[tokio::test]
async fn an_end_without_a_run_undoes_no_stored_end() {
    assert_eq!(state_after(&[failed(7), DeliveryOutcome::Expired(None)]).await, "lb01 failed");
    assert_eq!(
        state_after(&[DeliveryOutcome::Expired(None), DeliveryOutcome::Superseded(id(2))]).await,
        "lb01 expired"
    );
    assert_eq!(
        state_after(&[DeliveryOutcome::Expired(None), failed(7)]).await,
        "lb01 failed",
        "its run says more than a sweeper"
    );
}

#[tokio::test]
async fn who_sees_an_outcome_finds_its_run() {
    let (store, lb01) = (MemoryStore::default(), node("lb01"));
    let fleet = acting(&store, "lb01");
    let DeliveryOutcome::Done(run) = done(7) else { panic!("done is a run's end") };
    let run = PastRun {
        run,
        tags: Default::default(),
        environment: None,
        causes: Default::default(),
        superseded: 0,
        fired: Default::default(),
    };
    let history = RunHistory { runs: vec![run] };
    let completion =
        Completion { event: id(1), addressed_as: [Target::Node(lb01.clone())].into(), outcome: done(7) };
    fleet.finish_runs(&[completion], Some(&history)).await.unwrap();
    let keys = [
        KeyRange::Key(key(&Key::RunHistory { certname: lb01.clone() })),
        KeyRange::Key(key(&Key::Outcome { event: id(1), certname: lb01 })),
    ];
    let found = store.read(&keys).await.unwrap();
    assert_eq!(fleet.codec().decode::<RunHistory>(&found[0].value), Ok(history.clone()));
    assert!(found[0].revision < found[1].revision, "{found:?}");

    // A run that could not happen ends no delivery, and its history is stored all the same.
    fleet.finish_runs(&[], Some(&history)).await.unwrap();
    assert!(store.read(&keys).await.unwrap()[0].revision > found[0].revision);
}

#[tokio::test]
async fn an_event_reaches_its_targets_and_no_other_node() {
    let store = MemoryStore::default();
    fleet(&store).publish(&publication(1, &["lb01", "lb02"], &[]), false).await.unwrap();
    assert_eq!(pending(&arrivals(&store, "lb01", &[]).await), [id(1)]);
    assert_eq!(pending(&arrivals(&store, "lb02", &[]).await), [id(1)]);
    assert_eq!(arrivals(&store, "lb0", &[]).await, []);
    assert_eq!(states(&status(&store, 1).await), ["lb01 pending", "lb02 pending"]);
}

#[tokio::test]
async fn a_large_event_is_cut_into_parts_and_read_whole() {
    let store = MemoryStore::default();
    let names: Vec<String> = (0..1000).map(|n| format!("node{n:04}")).collect();
    let hosts: Vec<&str> = names.iter().map(String::as_str).collect();
    fleet(&store).publish(&publication(1, &hosts, &[]), false).await.unwrap();
    assert_eq!(pending(&arrivals(&store, "node0999", &[]).await), [id(1)]);
    let status = status(&store, 1).await;
    assert_eq!(status.targets.len(), 1000);
    assert_eq!(status.unreadable_parts, [] as [&str; 0]);
}

/// Proves C1.
#[tokio::test]
async fn publishing_twice_leaves_what_publishing_once_leaves() {
    let store = MemoryStore::default();
    let publication = publication(1, &["lb01"], &[]);
    fleet(&store).publish(&publication, false).await.unwrap();
    finish(&store, "lb01", 1, done(7)).await;
    // The firing node crashed before it could empty its outbox.
    fleet(&store).publish(&publication, false).await.unwrap();
    let again = arrivals(&store, "lb01", &[]).await;
    assert_eq!(
        again,
        [Arrival::HasOutcome { event: id(1), target: Target::Node(node("lb01")) }],
        "an outcome: no second run"
    );
    assert_eq!(states(&status(&store, 1).await), ["lb01 done"]);
}

#[tokio::test]
async fn a_finished_delivery_is_gone_and_its_outcome_stays() {
    let store = MemoryStore::default();
    fleet(&store).publish(&publication(1, &["lb01", "lb02"], &[]), false).await.unwrap();
    finish(&store, "lb01", 1, done(7)).await;
    assert_eq!(arrivals(&store, "lb01", &[]).await, []);
    let status = status(&store, 1).await;
    assert_eq!(states(&status), ["lb01 done", "lb02 pending"]);
    assert!(!status.is_over());
    finish(&store, "lb02", 1, DeliveryOutcome::Superseded(id(2))).await;
    assert!(self::status(&store, 1).await.is_over());
}

#[tokio::test]
async fn a_delivery_is_all_that_is_left_where_its_outcome_is_gone() {
    let store = MemoryStore::default();
    for n in [1, 2] {
        fleet(&store).publish(&publication(n, &["lb01"], &[]), false).await.unwrap();
    }
    let outcome = key(&Key::Outcome { event: id(1), certname: node("lb01") });
    store.put_many(vec![(outcome, fleet(&store).codec().encode(&done(7)))]).await.remove(0).unwrap();
    let both = [1, 2].map(|n| (id(n), [Target::Node(node("lb01"))].into()));
    acting(&store, "lb01").delete_deliveries_with_outcome(&both).await.unwrap();
    assert_eq!(pending(&arrivals(&store, "lb01", &[]).await), [id(2)]);
}

#[tokio::test]
async fn a_suppressed_target_gets_an_outcome_and_no_delivery() {
    let store = MemoryStore::default();
    let mut publication = publication(1, &["lb01", "lb02"], &[]);
    publication.suppressed.insert(node("lb01"), "loop: because".to_owned());
    fleet(&store).publish(&publication, false).await.unwrap();
    assert_eq!(arrivals(&store, "lb01", &[]).await, []);
    let status = status(&store, 1).await;
    assert_eq!(states(&status), ["lb01 suppressed", "lb02 pending"]);
    assert_eq!(status.targets[&node("lb01")].reason.as_deref(), Some("loop: because"));
}

#[tokio::test]
async fn a_group_is_one_write_that_members_read_if_they_joined_before() {
    let store = MemoryStore::default();
    register(&store, "lb01", &record("a", &[("lb", 1)])).await;
    register(&store, "web09", &record("b", &[("web", 1)])).await;
    let committed = fleet(&store).publish(&publication(1, &[], &["lb"]), false).await.unwrap().revision;
    assert_eq!(pending(&arrivals(&store, "lb01", &[("lb", 1)]).await), [id(1)]);
    assert_eq!(arrivals(&store, "lb77", &[("lb", committed.0)]).await, [], "joined after");
    assert_eq!(arrivals(&store, "web09", &[("web", 1)]).await, []);
    assert_eq!(states(&status(&store, 1).await), ["lb01 pending"], "the members at fire time show");

    let completion = Completion {
        event: id(1),
        addressed_as: [Target::Group("lb".parse().unwrap())].into(),
        outcome: done(7),
    };
    acting(&store, "lb01").finish(&[completion]).await.unwrap();
    assert_eq!(states(&status(&store, 1).await), ["lb01 done"]);
    let group = KeyRange::Prefix(Keyspace::default().range(&Range::GroupDeliveries("lb".parse().unwrap())));
    assert_eq!(store.read(&[group]).await.unwrap().len(), 1, "the other members' delivery stays");
}

#[tokio::test]
async fn an_empty_group_is_reported() {
    let store = MemoryStore::default();
    register(&store, "lb01", &record("a", &[("lb", 1)])).await;
    let published = fleet(&store).publish(&publication(1, &[], &["lb", "bl"]), false).await.unwrap();
    assert_eq!(published.empty_groups, ["bl".parse().unwrap()]);
}

#[tokio::test]
async fn members_that_will_find_a_loop_are_named_and_get_their_delivery() {
    let store = MemoryStore::default();
    for name in ["lb01", "lb02", "lb03"] {
        register(&store, name, &record(name, &[("lb", 1)])).await;
    }
    let mut publication = publication(1, &["lb02"], &["lb"]);
    let hops =
        ["lb01", "lb02"].map(|name| Hop { trigger: publication.event.trigger.clone(), certname: node(name) });
    publication.event.lineage = Lineage { chains: vec![Chain { root: id(9), hops: hops.to_vec() }] };
    let published = fleet(&store).publish(&publication, false).await.unwrap();
    let warned: Vec<String> =
        published.repeating_members.iter().map(|(member, why)| format!("{member}: {why}")).collect();
    assert_eq!(warned.len(), 1, "lb02 was asked for by name, lb03 is in no chain: {warned:?}");
    assert!(
        warned[0].starts_with("lb01: loop: 'refresh load balancers' already made lb01 run"),
        "{warned:?}"
    );
    assert_eq!(pending(&arrivals(&store, "lb01", &[("lb", 1)]).await), [id(1)], "it judges for itself");
    publication.event.loops = Loops::Allow;
    assert!(fleet(&store).publish(&publication, false).await.unwrap().repeating_members.is_empty());
}

#[tokio::test]
async fn the_members_of_a_suppressed_group_get_outcomes_and_no_delivery() {
    let store = MemoryStore::default();
    for name in ["lb01", "lb02"] {
        register(&store, name, &record(name, &[("lb", 1)])).await;
    }
    let mut publication = publication(1, &["lb02"], &[]);
    publication.suppressed_groups.insert("lb".parse().unwrap(), "loop guard: because".to_owned());
    fleet(&store).publish(&publication, false).await.unwrap();
    assert_eq!(arrivals(&store, "lb01", &[("lb", 1)]).await, []);
    assert_eq!(pending(&arrivals(&store, "lb02", &[("lb", 1)]).await), [id(1)], "meant by name too");
    assert_eq!(states(&status(&store, 1).await), ["lb01 suppressed", "lb02 pending"]);
}

#[tokio::test]
async fn a_prefix_without_registrations_is_an_error() {
    let store = MemoryStore::default();
    let error = fleet(&store).publish(&publication(1, &["lb01"], &[]), true).await.unwrap_err();
    assert!(matches!(error, PublishError::NobodyThere { .. }) && !error.is_transient(), "{error}");
    register(&store, "somebody", &record("a", &[])).await;
    assert!(fleet(&store).publish(&publication(1, &["lb01"], &[]), true).await.is_ok());
}

#[tokio::test]
async fn an_unreachable_backend_is_transient() {
    let store = MemoryStore::default();
    store.set_unreachable(true);
    let error = fleet(&store).publish(&publication(1, &["lb01"], &[]), false).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
}

#[tokio::test]
async fn what_cannot_be_used_is_reported_and_harms_no_neighbour() {
    let store = MemoryStore::default();
    fleet(&store).publish(&publication(5, &["lb01"], &[]), false).await.unwrap();
    fleet(&store).publish(&publication(6, &["other"], &[]), false).await.unwrap();
    let garbage = [
        (format!("{}not-a-uuid", Keyspace::default().range(&Range::Deliveries(node("lb01")))), "x"),
        (delivery("lb01", 1), "\u{fffd}"),
        (delivery("lb01", 2), r#"{"v":1,"body":{"part":0}}"#),
        (delivery("lb01", 3), r#"{"v":9,"body":{"part":0}}"#),
        (delivery("lb01", 4), r#"{"v":1,"body":{"part":0}}"#),
        (key(&Key::Part { event: id(4), index: 0 }), r#"{"v":2,"is":"new"}"#),
        // A delivery to this node that points to an event for another.
        (delivery("lb01", 6), r#"{"v":1,"body":{"part":0}}"#),
    ];
    store.put_many(garbage.into_iter().map(|(key, value)| (key, value.to_owned())).collect()).await;
    let arrivals = arrivals(&store, "lb01", &[]).await;
    assert_eq!(pending(&arrivals), [id(5)]);
    let mut others: Vec<String> = arrivals
        .iter()
        .filter_map(|arrival| match arrival {
            Arrival::TooNew(HeldDelivery { event, .. }) => {
                Some(format!("held {}", event.to_string().split_off(35)))
            }
            Arrival::Refused { event, .. } => Some(format!("refused {}", event.to_string().split_off(35))),
            Arrival::Unreadable { key, .. } => {
                Some(format!("unreadable {}", key.clone().split_off(key.len() - 1)))
            }
            _ => None,
        })
        .collect();
    others.sort();
    assert_eq!(others, ["held 3", "held 4", "refused 6", "unreadable 1", "unreadable 2", "unreadable d"]);
}

#[tokio::test]
async fn status_says_what_the_node_says_of_itself() {
    let store = MemoryStore::default();
    for n in 1..=3 {
        fleet(&store).publish(&publication(n, &["lb01"], &[]), false).await.unwrap();
    }
    assert!(
        status(&store, 1).await.targets[&node("lb01")]
            .reason
            .as_deref()
            .unwrap()
            .contains("no agent has registered")
    );
    let mut node_record = record("a", &[]);
    node_record.activity.running =
        Some(Running { run_id: RunId::from_uuid(Uuid::from_u128(9)), started_at: NOW, causes: vec![id(1)] });
    node_record.activity.held =
        vec![HeldDelivery { event: id(2), reason: "disabled: maintenance".to_owned() }];
    register(&store, "lb01", &node_record).await;
    assert_eq!(states(&status(&store, 1).await), ["lb01 running"]);
    assert_eq!(states(&status(&store, 2).await), ["lb01 held"]);
    assert_eq!(states(&status(&store, 3).await), ["lb01 pending"]);
    // An outcome counts more than what a node says.
    finish(&store, "lb01", 1, done(9)).await;
    assert_eq!(status(&store, 1).await.targets[&node("lb01")].state, DeliveryState::Done);
}

#[tokio::test]
async fn the_latest_events_come_in_the_backends_order() {
    let store = MemoryStore::default();
    for n in [3, 1, 2] {
        fleet(&store).publish(&publication(n, &["lb01"], &[]), false).await.unwrap();
    }
    let latest = fleet(&store).latest_events(2).await.unwrap();
    assert_eq!(latest.iter().map(|status| status.event.id).collect::<Vec<_>>(), [id(2), id(1)]);
}

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn sweep(store: &MemoryStore, after: Duration) -> Swept {
    fleet(store).sweep(NOW.plus(after), None).await.unwrap()
}

async fn everything(store: &MemoryStore) -> Vec<Entry> {
    store.read(&[KeyRange::Prefix("/".to_owned())]).await.unwrap()
}

#[tokio::test]
async fn a_sweep_leaves_alone_what_may_still_run() {
    let store = MemoryStore::default();
    fleet(&store).publish(&publication(1, &["lb01"], &[]), false).await.unwrap();
    let before = everything(&store).await;
    assert_eq!(sweep(&store, DAY + HOUR).await, Swept::default());
    assert_eq!(everything(&store).await, before);
}

#[tokio::test]
async fn what_its_target_never_saw_expires_visibly() {
    let store = MemoryStore::default();
    fleet(&store).publish(&publication(1, &["lb01", "gone"], &[]), false).await.unwrap();
    finish(&store, "lb01", 1, done(7)).await;
    assert_eq!(sweep(&store, DAY + 2 * HOUR).await, Swept { expired: 1, removed: 0 });
    assert_eq!(states(&status(&store, 1).await), ["gone expired", "lb01 done"]);
    assert_eq!(arrivals(&store, "gone", &[]).await, []);
    // It comes back after all, has just run, and says so.
    finish(&store, "gone", 1, done(8)).await;
    assert_eq!(states(&status(&store, 1).await), ["gone done", "lb01 done"]);
}

#[tokio::test]
async fn a_delivery_that_its_node_holds_is_expired_by_another_a_week_late() {
    let store = MemoryStore::default();
    fleet(&store).publish(&publication(1, &["lb01"], &[]), false).await.unwrap();
    let mut holding = record("a", &[]);
    holding.activity.held = vec![HeldDelivery { event: id(1), reason: "disabled".to_owned() }];
    register(&store, "lb01", &holding).await;
    assert_eq!(sweep(&store, 8 * DAY).await, Swept::default());
    assert_eq!(states(&status(&store, 1).await), ["lb01 held"]);
    assert_eq!(sweep(&store, 8 * DAY + HOUR).await, Swept { expired: 1, removed: 0 });
    assert_eq!(states(&status(&store, 1).await), ["lb01 expired"]);
}

#[tokio::test]
async fn an_ended_event_goes_after_its_time_with_all_that_belongs_to_it() {
    let store = MemoryStore::default();
    register(&store, "lb01", &record("a", &[("lb", 1)])).await;
    fleet(&store).publish(&publication(1, &["web02"], &["lb"]), false).await.unwrap();
    for certname in ["lb01", "web02"] {
        finish(&store, certname, 1, done(7)).await;
    }
    assert_eq!(sweep(&store, 8 * DAY).await, Swept::default(), "still to be looked at");
    assert_eq!(sweep(&store, 9 * DAY).await, Swept { expired: 0, removed: 1 });
    let left: Vec<String> = everything(&store).await.into_iter().map(|entry| entry.key).collect();
    assert_eq!(left, [key(&Key::Node { certname: node("lb01") })]);
}

/// Proves C12.
#[tokio::test]
async fn a_sweeper_whose_clock_is_years_ahead_does_nothing() {
    let store = MemoryStore::default();
    for name in ["lb01", "lb02"] {
        register(&store, name, &record(name, &[])).await;
    }
    fleet(&store).publish(&publication(1, &["lb01"], &[]), false).await.unwrap();
    assert_eq!(sweep(&store, 3650 * DAY).await, Swept::default());
}

/// Proves C12.
#[tokio::test]
async fn no_note_of_an_events_end_keeps_it_beyond_its_time() {
    let store = MemoryStore::default();
    let note = key(&Key::Settled { event: id(1) });
    let put_note =
        async |text: &str| store.put_many(vec![(note.clone(), text.to_owned())]).await.remove(0).unwrap();
    fleet(&store).publish(&publication(1, &["lb01"], &[]), false).await.unwrap();
    finish(&store, "lb01", 1, done(7)).await;
    assert_eq!(sweep(&store, DAY + 2 * HOUR).await, Swept::default());
    assert_eq!(store.list(&[KeyRange::Key(note.clone())]).await.unwrap().len(), 1, "it has settled");

    // The event is published again, and reaches one more target that never answers.
    fleet(&store).publish(&publication(1, &["lb01", "gone"], &[]), false).await.unwrap();
    assert_eq!(sweep(&store, 8 * DAY).await, Swept::default());
    assert_eq!(sweep(&store, 9 * DAY).await, Swept { expired: 1, removed: 0 });
    assert_eq!(states(&status(&store, 1).await), ["gone expired", "lb01 done"]);
    // A note that is garbage, or from a far future, is not believed.
    for text in ["garbage", r#"{"v":1,"body":{"removable_after_unix_ms":99999999999999}}"#] {
        put_note(text).await;
        assert_eq!(sweep(&store, 2 * DAY).await, Swept::default());
        let found = store.read(&[KeyRange::Key(note.clone())]).await.unwrap().remove(0);
        assert_ne!(found.value, text, "it is written again");
    }
    assert_eq!(sweep(&store, 9 * DAY).await, Swept { expired: 0, removed: 1 });
    assert_eq!(everything(&store).await, []);
}

#[tokio::test]
async fn a_part_that_says_it_is_of_another_event_has_nothing_of_that_one_removed() {
    let store = MemoryStore::default();
    let part = publication(2, &["lb01"], &["lb"]).event.into_parts().remove(0);
    let of_another = [
        delivery("lb01", 2),
        key(&Key::GroupDelivery { group: "lb".parse().unwrap(), event: id(2) }),
        key(&Key::Outcome { event: id(2), certname: node("lb01") }),
    ];
    let mut entries: Vec<_> = of_another.iter().map(|key| (key.clone(), "x".to_owned())).collect();
    entries.push((key(&Key::Part { event: id(1), index: 0 }), fleet(&store).codec().encode(&part)));
    store.put_many(entries).await;
    assert_eq!(sweep(&store, 9 * DAY).await, Swept { expired: 1, removed: 0 });
    assert_eq!(sweep(&store, 9 * DAY).await, Swept { expired: 0, removed: 1 });
    let left: Vec<String> = everything(&store).await.into_iter().map(|entry| entry.key).collect();
    assert_eq!(BTreeSet::from_iter(left), BTreeSet::from_iter(of_another));
}

#[tokio::test]
async fn what_is_left_of_an_event_without_its_parts_goes_in_the_end() {
    let store = MemoryStore::default();
    let event: EventId = "019aac79-4c00-7000-8000-000000000001".parse().unwrap();
    assert!(event.made_at().unwrap().since(NOW) < DAY, "it was made about now");
    let left = [Key::Settled { event }, Key::Members { event, index: 0 }];
    store.put_many(left.iter().map(|left| (key(left), "x".to_owned())).collect()).await;
    sweep(&store, 13 * DAY).await;
    assert_eq!(everything(&store).await.len(), 2, "its parts may still come");
    sweep(&store, 15 * DAY).await;
    assert_eq!(everything(&store).await, []);
}

#[tokio::test]
async fn one_of_a_fleet_sweeps_and_the_others_see_that_it_did() {
    let store = MemoryStore::default();
    let turn = |name: &str, seen: Option<Revision>, first: bool| {
        let fleet = acting(&store, name);
        async move { fleet.try_acquire_sweep(seen, first).await.unwrap() }
    };
    let (swept, first) = turn("lb01", None, true).await;
    assert!(swept, "there was no sweep yet");
    let (swept, seen) = turn("lb02", None, true).await;
    assert!(!swept && seen == first, "who has just started cannot tell how long ago it was");
    let (swept, second) = turn("lb02", seen, false).await;
    assert!(swept, "there was no sweep since the last look");
    let (swept, seen) = turn("lb01", first, false).await;
    assert!(!swept && seen == second);
}

#[tokio::test]
async fn what_was_asked_for_a_log_goes_with_the_second_sweep_that_sees_it() {
    let store = MemoryStore::default();
    let keys = [
        Key::LogRequest { certname: node("lb01"), reader: node("ops01") },
        Key::LogAnswer { reader: node("ops01"), certname: node("lb01") },
    ]
    .map(|key| Keyspace::default().key(&key));
    let left = async || {
        let ranges = keys.clone().map(KeyRange::Key);
        store.list(&ranges).await.unwrap().len()
    };
    let put = async || {
        for key in &keys {
            store.put_many(vec![(key.clone(), String::new())]).await.remove(0).unwrap();
        }
    };
    let sweeper = fleet(&store).acting_as(node("web01"));
    put().await;
    sweeper.sweep(NOW, None).await.unwrap();
    assert_eq!(left().await, 2, "their age is not known");
    let first = sweeper.note_sweep().await.unwrap();
    sweeper.sweep(NOW, Some(first)).await.unwrap();
    assert_eq!(left().await, 0);
    put().await;
    sweeper.sweep(NOW, Some(first)).await.unwrap();
    assert_eq!(left().await, 2, "they have come since");
}

/// An etcd whose roles do not show logs and run histories to a node: those of an earlier version, or of a plain node.
struct Denying(MemoryStore);

impl Denying {
    const HIDDEN: [&'static str; 3] = ["/log-requests/", "/log-answers/", "/run-history/"];

    fn judge(&self, ranges: &[KeyRange]) -> Result<(), StoreError> {
        let is_hidden = |range: &KeyRange| {
            let (KeyRange::Key(name) | KeyRange::Prefix(name)) = range;
            Self::HIDDEN.iter().any(|hidden| name.contains(hidden))
        };
        let denied = || StoreError::Denied { backend: "etcd".to_owned(), detail: "permission denied".into() };
        if ranges.iter().any(is_hidden) { Err(denied()) } else { Ok(()) }
    }
}

#[async_trait]
impl Meddler for Denying {
    fn store(&self) -> &dyn Store {
        &self.0
    }

    async fn read(&self, ranges: &[KeyRange]) -> Result<Vec<Entry>, StoreError> {
        self.judge(ranges)?;
        self.0.read(ranges).await
    }

    async fn list(&self, ranges: &[KeyRange]) -> Result<Vec<(String, Revision)>, StoreError> {
        self.judge(ranges)?;
        self.0.list(ranges).await
    }
}

#[tokio::test]
async fn what_an_etcd_denies_of_logs_ends_no_sweep_and_is_said_of_a_run() {
    let store = MemoryStore::default();
    register(&store, "lb01", &record("i", &[])).await;
    let denying = Arc::new(Meddled(Denying(store)));
    let fleet = Fleet::new(denying, Keyspace::default()).acting_as(node("web01"));
    let first = fleet.note_sweep().await.unwrap();
    fleet.sweep(NOW, Some(first)).await.unwrap();
    let found = fleet.node_of_run(RunId::from_uuid(Uuid::from_u128(9))).await.unwrap();
    assert_eq!((found.certname, found.denied.as_deref()), (None, Some("permission denied")));
}

/// A backend that does not do the first deletion, and is restored from a backup without the latest outcome just before the second.
struct RestoredBeforeDeletion {
    store: MemoryStore,
    deletions: AtomicUsize,
}

#[async_trait]
impl Meddler for RestoredBeforeDeletion {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        match self.deletions.fetch_add(1, Ordering::Relaxed) {
            0 => {
                return Err(StoreError::Unreachable { backend: "here".to_owned(), detail: "a fault".into() });
            }
            1 => {
                let outcome = Key::Outcome { event: id(1), certname: node("lb01") };
                self.store.delete_many(vec![Keyspace::default().key(&outcome)]).await?;
            }
            _ => {}
        }
        self.store.delete_many(keys).await
    }
}

/// Proves C4: an end that was stored by an earlier call is looked for like one that this call stores.
#[tokio::test]
async fn an_outcome_that_was_lost_before_its_delivery_was_deleted_is_stored_again() {
    for end in [done(7), failed(7)] {
        let store = MemoryStore::default();
        fleet(&store).publish(&publication(1, &["lb01"], &[]), false).await.unwrap();
        let restored = RestoredBeforeDeletion { store: store.clone(), deletions: AtomicUsize::default() };
        let fleet = Fleet::new(Arc::new(Meddled(restored)), Keyspace::default()).acting_as(node("lb01"));
        let addressed_as = [Target::Node(node("lb01"))].into();
        let completion = Completion { event: id(1), addressed_as, outcome: end };
        for attempt in 1..=2 {
            let error = fleet.finish(std::slice::from_ref(&completion)).await.unwrap_err();
            assert!(error.is_transient(), "attempt {attempt} is to be repeated: {error}");
        }
        fleet.finish(std::slice::from_ref(&completion)).await.unwrap();
        let status = fleet.event_status(id(1)).await.unwrap().unwrap();
        assert!(status.targets[&node("lb01")].state.is_end(), "{status:?}");
    }
}

/// A backend without transactions that denies some keys.
struct DeniesWrites {
    store: MemoryStore,
    /// What the denied keys contain.
    denied: &'static str,
}

impl DeniesWrites {
    fn judge(&self, key: &str) -> Result<(), StoreError> {
        let denied = || StoreError::Denied { backend: "etcd".to_owned(), detail: "permission denied".into() };
        if key.contains(self.denied) { Err(denied()) } else { Ok(()) }
    }
}

#[async_trait]
impl Meddler for DeniesWrites {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    async fn put_many(&self, entries: Vec<(String, String)>) -> Vec<Result<Revision, StoreError>> {
        let mut results = Vec::new();
        for (key, value) in entries {
            results.push(match self.judge(&key) {
                Ok(()) => self.store.put_many(vec![(key, value)]).await.remove(0),
                Err(error) => Err(error),
            });
        }
        results
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        keys.iter().try_for_each(|key| self.judge(key))?;
        self.store.delete_many(keys).await
    }
}

#[tokio::test]
async fn what_a_backend_denies_holds_up_nothing_else_and_is_not_repeated() {
    for (denied, is_held_up) in [("/run-history/", false), ("/deliveries/", true), ("/outcomes/", true)] {
        let store = MemoryStore::default();
        for n in 1..=3 {
            fleet(&store).publish(&publication(n, &["lb01"], &[]), false).await.unwrap();
        }
        let denying = Arc::new(Meddled(DeniesWrites { store: store.clone(), denied }));
        let node = node("lb01");
        let fleet = Fleet::new(denying, Keyspace::default()).acting_as(node.clone());
        let completions: Vec<Completion> = [(1, done(1)), (2, done(2)), (3, failed(3))]
            .map(|(n, outcome)| Completion {
                event: id(n),
                addressed_as: [Target::Node(node.clone())].into(),
                outcome,
            })
            .into();
        for some in [&completions[..2], &completions[..]] {
            let finished = fleet.finish_runs(some, Some(&RunHistory::default())).await;
            match finished {
                Ok(()) => assert!(!is_held_up, "{denied}"),
                Err(error) => assert!(is_held_up && !error.is_transient(), "{denied}: {error}"),
            }
        }
        let left = fleet.open_deliveries(&node).await.unwrap().len();
        assert_eq!(left, if is_held_up { 3 } else { 0 }, "{denied}");
    }
}

/// The nodes that ask for the end of the deliveries to a node.
async fn cancelled(store: &MemoryStore, certname: &str, joined: &[(&str, u64)]) -> Vec<String> {
    let request = |arrival| match arrival {
        Arrival::Cancelled { cancellation, .. } => Some(cancellation.cancellation.by.to_string()),
        _ => None,
    };
    arrivals(store, certname, joined).await.into_iter().filter_map(request).collect()
}

const ASKED: Asked<'_> = Asked { at: Timestamp::from_unix_ms(7), reason: Some("wrong node") };

#[tokio::test]
async fn an_event_is_cancelled_at_all_its_targets_but_those_that_have_ended() {
    let store = MemoryStore::default();
    let publication = publication(1, &["lb01", "lb02"], &["lb"]);
    fleet(&store).publish(&publication, false).await.unwrap();
    let ended = [node("lb02")].into();
    let by = acting(&store, "web01");
    by.cancel(&publication.event, Scope::AllBut(&ended), ASKED).await.unwrap();
    by.cancel(&publication.event, Scope::AllBut(&ended), ASKED).await.unwrap();
    assert_eq!(cancelled(&store, "lb01", &[]).await, ["web01"]);
    assert_eq!(cancelled(&store, "db01", &[("lb", 0)]).await, ["web01"]);
    assert!(cancelled(&store, "lb02", &[]).await.is_empty());
    assert_eq!(pending(&arrivals(&store, "lb02", &[]).await), [id(1)]);
}

#[tokio::test]
async fn an_event_is_cancelled_at_single_nodes_and_members_of_its_groups() {
    let store = MemoryStore::default();
    let joined = [("lb", 1)];
    for member in ["db01", "db02"] {
        register(&store, member, &record("i", &joined)).await;
    }
    let publication = publication(1, &["lb01", "lb02"], &["lb"]);
    fleet(&store).publish(&publication, false).await.unwrap();
    let nodes = [node("lb01"), node("db01")].into();
    acting(&store, "web01").cancel(&publication.event, Scope::Nodes(&nodes), ASKED).await.unwrap();
    for (certname, joined, expected) in
        [("lb01", &[][..], 1), ("lb02", &[], 0), ("db01", &joined[..], 1), ("db02", &joined, 0)]
    {
        assert_eq!(cancelled(&store, certname, joined).await.len(), expected, "{certname}");
        assert_eq!(pending(&arrivals(&store, certname, joined).await).len(), 1 - expected, "{certname}");
    }
}

#[tokio::test]
async fn a_cancellation_goes_with_its_delivery_and_the_others_with_their_event() {
    let store = MemoryStore::default();
    register(&store, "db01", &record("i", &[("lb", 1)])).await;
    let publication = publication(1, &["lb01", "lb02"], &["lb"]);
    fleet(&store).publish(&publication, false).await.unwrap();
    let by = acting(&store, "web01");
    by.cancel(&publication.event, Scope::AllBut(&Default::default()), ASKED).await.unwrap();
    by.cancel(&publication.event, Scope::Nodes(&[node("db01")].into()), ASKED).await.unwrap();
    let outcome = DeliveryOutcome::Cancelled { by: node("web01"), reason: None };
    finish(&store, "lb01", 1, outcome).await;
    assert!(arrivals(&store, "lb01", &[]).await.is_empty());
    finish(&store, "lb02", 1, done(5)).await;
    finish(&store, "db01", 1, done(6)).await;
    assert_eq!(states(&status(&store, 1).await).len(), 3);
    let left = || async {
        everything(&store).await.into_iter().filter(|entry| entry.key.contains("cancelled")).count()
    };
    assert_eq!(left().await, 3, "those of lb02, of the group and of its member");
    assert_eq!(sweep(&store, 9 * DAY).await, Swept { expired: 0, removed: 1 });
    assert_eq!(left().await, 0);
}
