//! The state of a delivery, computed from its outcome and from the record of its node (C6).

use crate::delivery::{DeliveryOutcome, DeliveryState};
use crate::identity::{EventId, RunId};
use crate::node::{NodeRecord, Running};
use crate::run::CompletedRun;
use crate::time::Timestamp;

/// The state of a delivery with the details that explain it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryStatus {
    /// The state.
    pub state: DeliveryState,
    /// The run that ended the delivery, or the one in progress that covers it.
    pub run: Option<DeliveryRun>,
    /// Why the delivery is in this state, as a sentence where the state needs one.
    pub reason: Option<String>,
    /// The later event that took its place, if it was superseded.
    pub successor: Option<EventId>,
    /// When its node last renewed its record, by that node's clock. Absent once the delivery has ended.
    pub last_seen: Option<Timestamp>,
}

/// The run of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryRun {
    /// The run is in progress.
    Running(Running),
    /// The run is over.
    Ended(CompletedRun),
}

impl DeliveryRun {
    /// The run's id.
    pub fn run_id(&self) -> RunId {
        match self {
            Self::Running(running) => running.run_id,
            Self::Ended(ended) => ended.run_id,
        }
    }

    /// When the run started, by the node's clock.
    pub fn started_at(&self) -> Timestamp {
        match self {
            Self::Running(running) => running.started_at,
            Self::Ended(ended) => ended.result.started_at,
        }
    }

    /// The run with its result, once it is over.
    pub fn ended(&self) -> Option<&CompletedRun> {
        match self {
            Self::Running(_) => None,
            Self::Ended(ended) => Some(ended),
        }
    }
}

/// Computes the state of a delivery, which is never stored. An outcome counts first, then the record of the node;
/// without either, the delivery is pending.
pub fn delivery_status(
    event: EventId,
    outcome: Option<&DeliveryOutcome>,
    node: Option<&NodeRecord>,
) -> DeliveryStatus {
    if let Some(outcome) = outcome {
        return ended(outcome);
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
    let waiting = activity.waiting.as_ref().filter(|waiting| waiting.causes.contains(&event));
    let delayed = activity.delayed.as_ref().filter(|delayed| delayed.causes.contains(&event));
    let reason = waiting.map(|waiting| &waiting.reason).or(delayed.map(|delayed| &delayed.reason));
    plain(DeliveryState::Pending, reason.cloned())
}

fn ended(outcome: &DeliveryOutcome) -> DeliveryStatus {
    let state = outcome.state();
    let plain = |reason| DeliveryStatus { state, run: None, reason, successor: None, last_seen: None };
    let by_run = |run: &CompletedRun| DeliveryStatus {
        state,
        run: Some(DeliveryRun::Ended(run.clone())),
        reason: run.result.reason.clone(),
        successor: None,
        last_seen: None,
    };
    match outcome {
        DeliveryOutcome::Done(run) | DeliveryOutcome::Failed(run) => by_run(run),
        DeliveryOutcome::Expired(clocks) => {
            let expired = "the event expired before a run could start";
            plain(Some(
                clocks.as_ref().map_or_else(|| expired.to_owned(), |clocks| format!("{expired}: {clocks}")),
            ))
        }
        DeliveryOutcome::Refused(reason) | DeliveryOutcome::Suppressed(reason) => plain(Some(reason.clone())),
        DeliveryOutcome::Superseded(successor) => DeliveryStatus {
            successor: Some(*successor),
            ..plain(Some(format!("in a long backlog, superseded by the later event {successor}")))
        },
        DeliveryOutcome::Cancelled { by, reason } => {
            let reason = reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
            plain(Some(format!("cancelled by {by}{reason}")))
        }
    }
}
