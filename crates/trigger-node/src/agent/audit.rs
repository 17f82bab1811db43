//! The audit of a node: who fired what and what became of it, one event of the log for each fact, with the target `audit`.
//!
//! The program writes them where its configuration says. Their fields are a promise: `docs/operating/audit.md` lists them.

use trigger_core::cancellation::SignedCancellation;
use trigger_core::delivery::{Completion, DeliveryOutcome};
use trigger_core::event::{Event, RunOptions, Targets};
use trigger_core::holds::{HoldOrder, Judged, SignedHoldOrder};
use trigger_core::identity::{Environment, EventId, RunId};
use trigger_core::policy::Decision;
use trigger_core::run::record::Cause;
use trigger_core::run_log::{LogAnswer, LogContent};
use trigger_core::signer::Signer;
use trigger_fleet::run_logs::AskedForLog;

use crate::fire_error::FireError;
use crate::fire_report::{FireReport, Fired};

/// How many names or ids a line lists; it counts the others.
const MAX_LISTED: usize = 128;

/// A command of this node has fired an event, or could not.
pub(super) fn fired(event: &Event, uid: u32, report: &Result<FireReport, FireError>) {
    let (state, error) = match report {
        Ok(FireReport { fired: Fired::Committed(_), .. }) => ("committed", None),
        Ok(FireReport { fired: Fired::Spooled(_), .. }) => ("spooled", None),
        Err(error) => ("failed", Some(error.to_string())),
    };
    tracing::info!(
        target: "audit",
        action = "fire",
        decision = "accepted",
        event = %event.id,
        trigger = %event.trigger,
        origin = %event.origin,
        targets = targets(&event.targets),
        uid,
        state,
        reason = error,
    );
}

/// A process of this node has asked the agent for something that it may not have.
pub(super) fn refused_caller(action: &str, event: Option<&Event>, uid: u32, reason: &str) {
    tracing::info!(
        target: "audit",
        action,
        decision = "refused",
        event = event.map(|event| event.id.to_string()),
        trigger = event.map(|event| event.trigger.to_string()),
        origin = event.map(|event| event.origin.to_string()),
        targets = event.map(|event| targets(&event.targets)),
        uid,
        reason,
    );
}

/// A delivery has arrived, and the policy has judged it.
pub(super) fn judged(cause: &Cause, decision: &Decision) {
    let Cause { event, signer, .. } = cause;
    let fingerprint = match signer {
        Signer::Certificate { fingerprint, .. } => Some(fingerprint),
        Signer::Unsigned | Signer::SharedKey => None,
    };
    let (word, reason) = match decision {
        Decision::Accepted { .. } => ("accepted", None),
        Decision::Refused { reason, .. } => ("refused", Some(reason)),
    };
    let tags: Vec<&str> = event.options.tags.iter().map(|tag| tag.as_str()).collect();
    tracing::info!(
        target: "audit",
        action = "deliver",
        decision = word,
        event = %event.id,
        trigger = %event.trigger,
        origin = %event.origin,
        tags = tags.join(","),
        noop = event.options.noop,
        environment = event.options.environment.as_ref().map(Environment::as_str),
        signature = %signer,
        fingerprint,
        rule = decision.rule(),
        reason,
    );
}

/// A reader has asked for the output of a run.
pub(super) fn read_log(AskedForLog { reader, signer, request }: &AskedForLog, answer: &LogAnswer) {
    let (decision, run, reason) = match &answer.content {
        LogContent::Output(output) => ("accepted", Some(output.run.to_string()), None),
        LogContent::Refused(why) => ("refused", None, Some(why)),
    };
    tracing::info!(
        target: "audit",
        action = "log",
        decision,
        %reader,
        run,
        as_operator = request.as_operator,
        signature = %signer,
        reason,
    );
}

/// A delivery has arrived with the request to end it, and the policy has judged that.
pub(super) fn cancellation(event: EventId, request: &SignedCancellation, judged: &Result<(), String>) {
    let SignedCancellation { cancellation, signer } = request;
    tracing::info!(
        target: "audit",
        action = "cancel",
        decision = if judged.is_ok() { "accepted" } else { "refused" },
        %event,
        by = %cancellation.by,
        signature = %signer,
        reason = judged.as_ref().err().or(cancellation.reason.as_ref()),
    );
}

/// An order to hold or release this node has been judged.
pub(super) fn hold(SignedHoldOrder { order, signer }: &SignedHoldOrder, judged: &Judged) {
    let (action, lasts_seconds, reason) = order.demand.audited();
    let (decision, reason) = match judged {
        Judged::Refused(why) => ("refused", Some(why.as_str())),
        _ => ("accepted", reason),
    };
    tracing::info!(
        target: "audit",
        action,
        decision,
        by = %order.by,
        number = order.number,
        lasts_seconds,
        signature = %signer,
        reason,
    );
}

/// The time of a hold is over.
pub(super) fn hold_ended(order: &HoldOrder) {
    let (action, _, reason) = order.demand.audited();
    tracing::info!(
        target: "audit",
        action,
        decision = "ended",
        by = %order.by,
        number = order.number,
        reason,
    );
}

/// A run starts.
pub(super) fn started(run: RunId, options: &RunOptions, causes: &[Cause]) {
    let tags: Vec<&str> = options.tags.iter().map(|tag| tag.as_str()).collect();
    tracing::info!(
        target: "audit",
        action = "run",
        %run,
        events = listed(causes.iter().map(|cause| cause.event.id)),
        tags = tags.join(","),
        noop = options.noop,
        environment = options.environment.as_ref().map(Environment::as_str),
    );
}

/// A delivery has ended.
pub(super) fn ended(Completion { event, outcome, .. }: &Completion) {
    let state = outcome.state();
    match outcome {
        DeliveryOutcome::Done(run) | DeliveryOutcome::Failed(run) => tracing::info!(
            target: "audit",
            action = "end",
            %event,
            %state,
            run = %run.run_id,
            outcome = %run.result.outcome,
            started_at_unix_ms = run.result.started_at.as_unix_ms(),
            finished_at_unix_ms = run.result.finished_at.as_unix_ms(),
            reason = run.result.reason,
        ),
        DeliveryOutcome::Superseded(by) => {
            tracing::info!(target: "audit", action = "end", %event, %state, %by);
        }
        DeliveryOutcome::Cancelled { by, reason } => {
            tracing::info!(target: "audit", action = "end", %event, %state, %by, reason);
        }
        DeliveryOutcome::Expired(reason) => {
            tracing::info!(target: "audit", action = "end", %event, %state, reason);
        }
        DeliveryOutcome::Refused(reason) | DeliveryOutcome::Suppressed(reason) => {
            tracing::info!(target: "audit", action = "end", %event, %state, reason);
        }
    }
}

/// Nodes by their certnames, groups after an `@`.
fn targets(targets: &Targets) -> String {
    let groups = targets.groups.iter().map(|group| format!("@{group}"));
    listed(targets.hosts.iter().map(ToString::to_string).chain(groups))
}

fn listed(items: impl IntoIterator<Item = impl ToString>) -> String {
    let mut items = items.into_iter();
    let mut words: Vec<String> = items.by_ref().take(MAX_LISTED).map(|item| item.to_string()).collect();
    let more = items.count();
    if more > 0 {
        words.push(format!("and {more} more"));
    }
    words.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_lists_so_many_targets_and_counts_the_others() {
        let hosts = ["a", "b"].map(|name| name.parse().unwrap());
        let targets_of = Targets { hosts: hosts.into(), groups: ["web".parse().unwrap()].into() };
        assert_eq!(targets(&targets_of), "a,b,@web");
        let many = listed(0..200);
        assert!(many.starts_with("0,1,2") && many.ends_with(",127,and 72 more"), "{many}");
    }
}
