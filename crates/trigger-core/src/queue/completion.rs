//! Which deliveries a run completes, and which ones another run has to cover (C6).

use std::collections::HashMap;

use crate::delivery::DeliveryOutcome;
use crate::identity::EventId;
use crate::run::record::Cause;
use crate::run::{CompletedRun, RunOutcome};

/// The causes that a run has completed, with their outcome, and those that another run has to cover (C6).
pub(super) fn completed_and_repeated(
    run: CompletedRun,
    causes: Vec<Cause>,
) -> (Vec<(Cause, DeliveryOutcome)>, Vec<Cause>) {
    let (completed, again): (Vec<Cause>, Vec<Cause>) = match run.result.outcome {
        RunOutcome::NotRun => (Vec::new(), causes),
        RunOutcome::Interrupted => causes.into_iter().partition(|cause| cause.interruptions > 0),
        _ => (causes, Vec::new()),
    };
    let is_interrupted = run.result.outcome == RunOutcome::Interrupted;
    let again = again
        .into_iter()
        .map(|cause| Cause { interruptions: cause.interruptions + u32::from(is_interrupted), ..cause })
        .collect();
    let outcome = match run.result.outcome {
        RunOutcome::Unchanged | RunOutcome::Changed => DeliveryOutcome::Done(run),
        _ => DeliveryOutcome::Failed(run),
    };
    (completed.into_iter().map(|cause| (cause, outcome.clone())).collect(), again)
}

/// The causes that were cancelled during a run that did not complete them, and those that another run has to cover.
pub(super) fn cancelled_and_repeated(
    causes: Vec<Cause>,
    mut cancelled: HashMap<EventId, DeliveryOutcome>,
) -> (Vec<(Cause, DeliveryOutcome)>, Vec<Cause>) {
    let (mut ended, mut again) = (Vec::new(), Vec::new());
    for cause in causes {
        match cancelled.remove(&cause.event.id) {
            Some(outcome) => ended.push((cause, outcome)),
            None => again.push(cause),
        }
    }
    (ended, again)
}
