//! What a node says of itself, and the state of a delivery computed from it (C6).

use crate::delivery::{DeliveryOutcome, DeliveryState};
use crate::identity::{EventId, RunId};
use crate::node::{NodeRecord, Running};
use crate::run::CompletedRun;
use crate::time::Timestamp;

/// A delivery's state with what explains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryStatus {
    /// Where it stands.
    pub state: DeliveryState,
    /// The run that ended it, or its start when it is running.
    pub run: Option<DeliveryRun>,
    /// A sentence where the state needs one.
    pub reason: Option<String>,
    /// The event that took its place.
    pub successor: Option<EventId>,
    /// For a delivery that has not ended: when its node last said anything, by that node's clock.
    pub last_seen: Option<Timestamp>,
}

/// A run as status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryRun {
    /// In progress.
    Running(Running),
    /// Over.
    Ended(CompletedRun),
}

impl DeliveryRun {
    /// Which run.
    pub fn run_id(&self) -> RunId {
        match self {
            Self::Running(running) => running.run_id,
            Self::Ended(ended) => ended.run_id,
        }
    }

    /// By the node's clock.
    pub fn started_at(&self) -> Timestamp {
        match self {
            Self::Running(running) => running.started_at,
            Self::Ended(ended) => ended.result.started_at,
        }
    }

    /// How it ended, once it has.
    pub fn ended(&self) -> Option<&CompletedRun> {
        match self {
            Self::Running(_) => None,
            Self::Ended(ended) => Some(ended),
        }
    }
}

/// Computes where a delivery stands. Never stored: a terminal outcome counts first, then what the node
/// says of itself, else it is pending.
pub fn delivery_status(
    event: EventId,
    end: Option<&DeliveryOutcome>,
    node: Option<&NodeRecord>,
) -> DeliveryStatus {
    if let Some(end) = end {
        return ended(end);
    }
    let last_seen = node.map(|node| node.seen_at);
    let plain = |state, reason| DeliveryStatus { state, run: None, reason, successor: None, last_seen };
    let Some(node) = node else {
        return plain(DeliveryState::Pending, Some("no agent has registered under this certname".to_owned()));
    };
    let activity = &node.activity;
    if let Some(running) = activity.running.as_ref().filter(|run| run.causes.contains(&event)) {
        return DeliveryStatus {
            state: DeliveryState::Running,
            run: Some(DeliveryRun::Running(running.clone())),
            reason: None,
            successor: None,
            last_seen,
        };
    }
    if let Some(held) = activity.held.iter().find(|held| held.event == event) {
        return plain(DeliveryState::Held, Some(held.reason.clone()));
    }
    if let Some(retrying) = activity.retrying.iter().find(|retrying| retrying.causes.contains(&event)) {
        return plain(DeliveryState::Retrying, Some(retrying.reason.clone()));
    }
    if node.released {
        return plain(DeliveryState::Pending, Some("its agent was stopped".to_owned()));
    }
    let delayed = activity.delayed.as_ref().filter(|delayed| delayed.causes.contains(&event));
    plain(DeliveryState::Pending, delayed.map(|delayed| delayed.reason.clone()))
}

fn ended(end: &DeliveryOutcome) -> DeliveryStatus {
    let state = end.state();
    let plain = |reason| DeliveryStatus { state, run: None, reason, successor: None, last_seen: None };
    let by_run = |run: &CompletedRun| DeliveryStatus {
        state,
        run: Some(DeliveryRun::Ended(run.clone())),
        reason: run.result.reason.clone(),
        successor: None,
        last_seen: None,
    };
    match end {
        DeliveryOutcome::Done(run) | DeliveryOutcome::Failed(run) => by_run(run),
        DeliveryOutcome::Expired => plain(Some("its life was over before a run could start".to_owned())),
        DeliveryOutcome::Refused(reason) | DeliveryOutcome::Suppressed(reason) => plain(Some(reason.clone())),
        DeliveryOutcome::Superseded(successor) => DeliveryStatus {
            successor: Some(*successor),
            ..plain(Some(format!("a backlog was collapsed into the later event {successor}")))
        },
    }
}
