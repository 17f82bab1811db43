//! Why a node ran, from what agents write at the ends of their runs.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says what it expects")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use trigger_core::delivery::{Completion, DeliveryOutcome};
use trigger_core::event::{DEFAULT_LIFETIME, Event, RunOptions, Target, Targets};
use trigger_core::identity::{Certname, EventId, KeyPrefix, RunId};
use trigger_core::keyspace::{Key, Keyspace};
use trigger_core::lineage::{Lineage, Loops};
use trigger_core::loop_guard::chains_through;
use trigger_core::publication::Publication;
use trigger_core::run::history::{FiredEvent, PastRun, RunHistory};
use trigger_core::run::record::{Cause, RunRecord};
use trigger_core::run::{CompletedRun, RunOutcome, RunResult};
use trigger_core::time::Timestamp;
use trigger_core::why::{ExplainError, Explanation, Question, RunState, Which};
use trigger_fleet::Fleet;
use trigger_fleet::verifying::Unverified;
use trigger_store::meddled::{Meddled, Meddler};
use trigger_store::memory::MemoryStore;
use trigger_store::store::{Entry, KeyRange, Store, StoreError};
use uuid::Uuid;

const NOW: Timestamp = Timestamp::from_unix_ms(1_763_812_800_000);

fn id(n: u128) -> EventId {
    EventId::from_uuid(Uuid::from_u128(n))
}

fn run_id(n: u128) -> RunId {
    RunId::from_uuid(Uuid::from_u128(n))
}

fn node(name: &str) -> Certname {
    name.parse().unwrap()
}

/// A store that counts how often it is read, and refuses to read whole prefixes.
#[derive(Default)]
struct Counting {
    store: MemoryStore,
    reads: AtomicUsize,
}

#[async_trait]
impl Meddler for Counting {
    fn store(&self) -> &dyn Store {
        &self.store
    }

    async fn read(&self, ranges: &[KeyRange]) -> Result<Vec<Entry>, StoreError> {
        assert!(ranges.len() <= 512, "{} ranges", ranges.len());
        assert!(ranges.iter().all(|range| matches!(range, KeyRange::Key(_))), "{ranges:?}");
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.store.read(ranges).await
    }
}

/// Fires an event from a run, or from outside any.
async fn fire(fleet: &Fleet, n: u128, origin: &str, parent: Option<&RunRecord>, target: &str) -> Event {
    let lineage = match parent {
        Some(parent) => {
            let causes = parent.causes.iter().map(|cause| &cause.event);
            Lineage { chains: chains_through(&parent.certname, causes) }
        }
        None => Lineage::root(id(n)),
    };
    let event = Event {
        id: id(n),
        trigger: format!("t{n}").parse().unwrap(),
        origin: node(origin),
        targets: Targets { hosts: [node(target)].into(), groups: Default::default() },
        options: RunOptions::default(),
        lineage,
        fired_in: parent.map(|parent| parent.run_id),
        fired_by: None,
        catalog: None,
        loops: Loops::Avoid,
        fired_at: NOW,
        expires_in: DEFAULT_LIFETIME,
    };
    let publication = Publication {
        backend: "memory:".to_owned(),
        prefix: KeyPrefix::default(),
        event: event.clone(),
        suppressed: BTreeMap::new(),
        suppressed_groups: BTreeMap::new(),
    };
    fleet.publish(&publication, false).await.unwrap();
    event
}

/// A run of `certname` that covers these events.
fn run(certname: &str, n: u128, causes: &[&Event]) -> RunRecord {
    let cause = |event: &&Event| Cause {
        event: Event::clone(event),
        addressed_as: [Target::Node(node(certname))].into(),
        interruptions: 0,
        without_catalog: false,
        signer: Default::default(),
    };
    RunRecord {
        run_id: run_id(n),
        certname: node(certname),
        command: vec!["true".to_owned()],
        options: RunOptions::default(),
        timeout: Duration::from_secs(1),
        started_at: NOW,
        causes: causes.iter().map(cause).collect(),
        environment: BTreeMap::new(),
    }
}

/// The end of a run, as a completion writer stores it.
async fn end(fleet: &Fleet, record: &RunRecord, fired: &[FiredEvent]) {
    let result = RunResult {
        outcome: RunOutcome::Changed,
        reason: None,
        reported_noop: false,
        drift: Default::default(),
        started_at: NOW,
        finished_at: NOW,
    };
    let mut history = RunHistory::default();
    history.push(PastRun::of(record, result.clone(), 0, fired.iter().cloned()));
    let end = DeliveryOutcome::Done(CompletedRun { run_id: record.run_id, noop: false, result });
    let completion = |cause: &Cause| Completion {
        event: cause.event.id,
        addressed_as: cause.addressed_as.clone(),
        outcome: end.clone(),
    };
    let completions: Vec<Completion> = record.causes.iter().map(completion).collect();
    let fleet = fleet.clone().acting_as(record.certname.clone());
    fleet.finish_runs(&completions, Some(&history)).await.unwrap();
}

/// ops fires 1 at web, whose run fires 2 at lb, whose run fires 3 at db.
async fn chain(fleet: &Fleet) -> RunRecord {
    let first = fire(fleet, 1, "ops", None, "web").await;
    let web = run("web", 0xa, &[&first]);
    let second = fire(fleet, 2, "web", Some(&web), "lb").await;
    end(fleet, &web, &[]).await;
    let lb = run("lb", 0xb, &[&second]);
    let third = fire(fleet, 3, "lb", Some(&lb), "db").await;
    end(fleet, &lb, &[]).await;
    let db = run("db", 0xc, &[&third]);
    end(fleet, &db, &[]).await;
    db
}

async fn ask(fleet: &Fleet, question: &Question) -> Result<Explanation, ExplainError> {
    fleet.explain(question, &mut Unverified::default()).await.unwrap()
}

fn runs(explanation: &Explanation) -> Vec<RunId> {
    explanation.runs.iter().map(|step| step.run_id).collect()
}

#[tokio::test]
async fn a_chain_over_three_nodes_takes_few_round_trips() {
    let store = Arc::new(Meddled::<Counting>::default());
    let fleet = Fleet::new(store.clone(), Keyspace::default());
    chain(&fleet).await;
    let latest = Question::Run(node("db"), Which::Back(0));
    let explanation = ask(&fleet, &latest).await.unwrap();
    assert_eq!(runs(&explanation), [0xc, 0xb, 0xa].map(run_id));
    assert!(explanation.events.iter().all(|event| event.lineage.is_some()), "{explanation:?}");
    // db; 3; all nodes of its chain; 2; 1.
    assert_eq!(store.reads.load(Ordering::Relaxed), 5);
    let of_event = ask(&fleet, &Question::Event(id(3))).await.unwrap();
    assert_eq!(runs(&of_event), [0xb, 0xa].map(run_id));
}

#[tokio::test]
async fn what_cannot_be_read_counts_as_gone() {
    let store = MemoryStore::default();
    let fleet = Fleet::new(Arc::new(store.clone()), Keyspace::default());
    chain(&fleet).await;
    let keyspace = Keyspace::default();
    let garbage = [
        Key::RunHistory { certname: node("lb") },
        Key::Part { event: id(3), index: 0 },
        Key::Node { certname: node("lb") },
    ];
    store.put_many(garbage.map(|key| (keyspace.key(&key), "\u{fffd}{".to_owned())).into()).await;
    let explanation = ask(&fleet, &Question::Run(node("db"), Which::Back(0))).await.unwrap();
    assert_eq!(runs(&explanation), [0xc, 0xb].map(run_id));
    assert_eq!(explanation.runs[1].state, RunState::Gone);
    assert_eq!(ask(&fleet, &Question::Event(id(3))).await, Err(ExplainError::NoEvent));
    assert_eq!(ask(&fleet, &Question::Run(node("unknown"), Which::Back(0))).await, Err(ExplainError::NoNode));
}
