//! A chain of runs and events that several tests use.

use std::collections::BTreeSet;

use trigger_core::delivery::DeliveryState;
use trigger_core::event::{Event, Target};
use trigger_core::identity::{EventId, Revision, RunId, TriggerName};
use trigger_core::lineage::{Chain, Hop, Lineage};
use trigger_core::node::{Activity, HeldDelivery, NodeRecord, Running};
use trigger_core::run::history::{FiredEvent, PastCause, SuppressedTarget, Truncated};
use trigger_core::run::{CompletedRun, RunOutcome, RunResult};
use trigger_core::status::DeliveryStatus;
use trigger_core::time::Timestamp;
use trigger_core::why::{EventStep, Explanation, RunState, RunStep};
use trigger_fleet::status::EventStatus;
use uuid::Uuid;

pub(crate) const NOON: u64 = 1_763_812_800_000;

pub(crate) fn event_id(n: u128) -> EventId {
    EventId::from_uuid(Uuid::from_u128(n))
}

pub(crate) fn run_id(n: u128) -> RunId {
    RunId::from_uuid(Uuid::from_u128(n))
}

pub(crate) fn event(n: u128, trigger: &str, origin: &str, fired_in: Option<u128>) -> EventStep {
    EventStep {
        id: event_id(n),
        what: Some(PastCause {
            event: event_id(n),
            trigger: trigger.parse().unwrap(),
            origin: origin.parse().unwrap(),
            fired_at: Timestamp::from_unix_ms(NOON + n as u64 * 1000),
            fired_in: fired_in.map(run_id),
            fired_by: None,
        }),
        lineage: None,
        is_followed: true,
    }
}

pub(crate) fn run(n: u128, certname: &str, outcome: RunOutcome, causes: &[u128]) -> RunStep {
    let result = RunResult {
        outcome,
        reason: None,
        reported_noop: false,
        drift: Default::default(),
        started_at: Timestamp::from_unix_ms(NOON + n as u64 * 1000),
        finished_at: Timestamp::from_unix_ms(NOON + n as u64 * 1000 + 4100),
    };
    RunStep {
        certname: certname.parse().unwrap(),
        run_id: run_id(n),
        state: RunState::Ended {
            run: CompletedRun { run_id: run_id(n), noop: false, result },
            tags: BTreeSet::new(),
            environment: None,
        },
        causes: Truncated::of(causes.iter().map(|&cause| event_id(cause)), 32),
        superseded: 0,
        fired: Truncated::default(),
    }
}

/// deploy, by hand, at web01, whose run fires "refresh" at lb01, which merges a burst; lb01 fires into a loop.
pub(crate) fn chain() -> Explanation {
    let mut lb01 = run(7, "lb01.example.com", RunOutcome::Changed, &[6, 5, 20, 21]);
    lb01.causes.more = 168;
    lb01.superseded = 12;
    let loops =
        SuppressedTarget { target: Target::Node("web01".parse().unwrap()), reason: "loop: seen".to_owned() };
    let group =
        SuppressedTarget { target: Target::Group("all".parse().unwrap()), reason: "too far".to_owned() };
    let trigger: TriggerName = "back".parse().unwrap();
    let suppressed = Truncated { listed: vec![loops, group], more: 2 };
    let by_rule = Default::default();
    let fired = FiredEvent { event: event_id(9), trigger, to_groups: true, suppressed, by_rule };
    lb01.fired = Truncated::of([fired], 32);
    let mut web01 = run(1, "web01", RunOutcome::Failed, &[0]);
    if let RunState::Ended { run, tags, environment } = &mut web01.state {
        run.noop = true;
        run.result.reason = Some("2 resources\n  failed".to_owned());
        *tags = ["web".parse().unwrap()].into();
        *environment = Some("test".parse().unwrap());
    }
    let gone = RunStep { state: RunState::Gone, ..run(3, "db01", RunOutcome::Changed, &[]) };
    let mut of_gone = event(5, "backup", "db01", Some(3));
    of_gone.lineage = Some(Lineage {
        chains: vec![Chain {
            root: event_id(2),
            hops: vec![Hop { trigger: "nightly".parse().unwrap(), certname: "db01".parse().unwrap() }],
        }],
    });
    let named = |n| EventStep { is_followed: false, ..event(n, "rotate \"logs\"", "ops01", None) };
    Explanation {
        runs: vec![lb01, web01, gone],
        events: vec![
            event(6, "refresh", "web01", Some(1)),
            of_gone,
            named(20),
            named(21),
            event(0, "deploy", "ops01", None),
        ],
    }
}

/// The status of an event with these deliveries, each in its state.
pub(crate) fn status(n: u128, targets: &[(&str, DeliveryState)]) -> EventStatus {
    let target = |(certname, state): &(&str, DeliveryState)| {
        let reason = Some(format!("because of {certname}"));
        let status = DeliveryStatus { state: *state, run: None, reason, successor: None, last_seen: None };
        (certname.parse().unwrap(), status)
    };
    let event = Event {
        id: event_id(n),
        trigger: "back".parse().unwrap(),
        origin: "lb01.example.com".parse().unwrap(),
        targets: Default::default(),
        options: Default::default(),
        lineage: Lineage::root(event_id(n)),
        fired_in: Some(run_id(7)),
        fired_by: None,
        catalog: None,
        loops: Default::default(),
        fired_at: Timestamp::from_unix_ms(NOON),
        expires_in: std::time::Duration::from_secs(60),
    };
    EventStatus {
        event,
        targets: targets.iter().map(target).collect(),
        unreadable_parts: Vec::new(),
        limited_to: None,
        unverified: Default::default(),
        cancellations: Default::default(),
    }
}

/// The registration of a node that runs for event 1 and holds the events 2 and 3.
pub(crate) fn registration(groups: &[&str]) -> NodeRecord {
    let held = |n| HeldDelivery { event: event_id(n), reason: "Puppet is disabled".to_owned() };
    let running =
        Running { run_id: run_id(1), started_at: Timestamp::from_unix_ms(NOON), causes: vec![event_id(1)] };
    NodeRecord {
        instance: "instance".to_owned(),
        lock: None,
        released: false,
        location: "pid 12 on lb01".to_owned(),
        renewals: 7,
        version: "0.1.0".to_owned(),
        seen_at: Timestamp::from_unix_ms(NOON),
        groups: groups.iter().map(|group| (group.parse().unwrap(), Revision(3))).collect(),
        activity: Activity { running: Some(running), held: vec![held(2), held(3)], ..Activity::default() },
    }
}
