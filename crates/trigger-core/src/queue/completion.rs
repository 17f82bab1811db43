//! Which deliveries a run completes, and which ones another run has to cover (C6).

use std::collections::HashMap;

use crate::delivery::DeliveryOutcome;
use crate::identity::EventId;
use crate::run::record::Cause;
use crate::run::{CompletedRun, RunOutcome};

/// What the end of a run means for its causes.
pub(super) struct CompletedCauses {
    /// Those that the run has completed, with their outcome.
    pub(super) completed: Vec<(Cause, DeliveryOutcome)>,
    /// Those that another run has to cover.
    pub(super) again: Vec<Cause>,
    /// Those that another run covers once PuppetDB has stored their catalogs, with this run.
    pub(super) unsettled: Vec<(Cause, CompletedRun)>,
}

/// The causes that a run has completed, and those that another run has to cover (C6). One that was cancelled during the
/// run waits for no catalog.
pub(super) fn completed_and_repeated(
    run: CompletedRun,
    causes: Vec<Cause>,
    cancelled: &HashMap<EventId, DeliveryOutcome>,
) -> CompletedCauses {
    let is_interrupted = run.result.outcome == RunOutcome::Interrupted;
    let is_done = matches!(run.result.outcome, RunOutcome::Unchanged | RunOutcome::Changed);
    let is_unsettled = |cause: &Cause| cause.without_catalog && !cancelled.contains_key(&cause.event.id);
    let (unsettled, causes): (Vec<Cause>, Vec<Cause>) =
        causes.into_iter().partition(|cause| is_done && is_unsettled(cause));
    let (completed, again): (Vec<Cause>, Vec<Cause>) = match run.result.outcome {
        RunOutcome::NotRun => (Vec::new(), causes),
        RunOutcome::Interrupted => causes.into_iter().partition(|cause| cause.interruptions > 0),
        _ => (causes, Vec::new()),
    };
    let again = again
        .into_iter()
        .map(|cause| Cause { interruptions: cause.interruptions + u32::from(is_interrupted), ..cause })
        .collect();
    let unsettled = unsettled.into_iter().map(|cause| (cause, run.clone())).collect();
    let outcome = if is_done { DeliveryOutcome::Done(run) } else { DeliveryOutcome::Failed(run) };
    let completed = completed.into_iter().map(|cause| (cause, outcome.clone())).collect();
    CompletedCauses { completed, again, unsettled }
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
