//! What the daemon logs of blockers and of deliveries.

use trigger_core::cancellation::SignedCancellation;
use trigger_core::delivery::{Completion, DeliveryOutcome};
use trigger_core::identity::EventId;
use trigger_core::queue::PuppetBlocker;

/// Logs once when a blocker begins that says nothing about deliveries: there may be none here, because an agent that may
/// not claim its certname reads none. Not to know is usual for a second after a start; a Puppet that fails is logged
/// where it is asked.
pub(super) fn puppet(before: Option<&PuppetBlocker>, now: Option<&PuppetBlocker>) {
    match (before, now) {
        (_, Some(PuppetBlocker::OtherCertname(reason))) if before != now => {
            tracing::warn!(reason, "no run starts");
        }
        (
            Some(PuppetBlocker::Unknown(_) | PuppetBlocker::Broken(_)),
            Some(PuppetBlocker::Unknown(_) | PuppetBlocker::Broken(_)),
        ) => {}
        (_, Some(PuppetBlocker::Unknown(reason) | PuppetBlocker::Broken(reason))) => {
            tracing::info!(reason, "no run starts yet");
        }
        _ => {}
    }
}

/// Logs the request to end a delivery where it does not count.
pub(super) fn cancellation(event: EventId, request: &SignedCancellation, judged: &Result<(), String>) {
    if let Err(why) = judged {
        tracing::warn!(%event, by = %request.cancellation.by, why, "a cancellation does not count");
    }
}

/// Logs the end of a delivery, as a warning if an operator may have to act.
pub(super) fn completion(Completion { event, outcome, .. }: &Completion) {
    let state = outcome.state();
    match outcome {
        DeliveryOutcome::Done(run) => {
            tracing::info!(%event, %state, run = %run.run_id, outcome = %run.result.outcome, "delivery completed");
        }
        DeliveryOutcome::Failed(run) => {
            tracing::warn!(%event, %state, run = %run.run_id, outcome = %run.result.outcome, "delivery completed");
        }
        DeliveryOutcome::Superseded(by) => tracing::info!(%event, %state, %by, "delivery completed"),
        DeliveryOutcome::Cancelled { by, reason } => {
            tracing::info!(%event, %state, %by, reason, "delivery completed");
        }
        DeliveryOutcome::Expired(reason) => {
            tracing::warn!(%event, %state, reason, "delivery completed");
        }
        DeliveryOutcome::Refused(reason) | DeliveryOutcome::Suppressed(reason) => {
            tracing::warn!(%event, %state, reason, "delivery completed");
        }
    }
}
