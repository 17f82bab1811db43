//! Which deliveries this node runs, and which ones it refuses or suppresses.

use super::backlog::MAX_ENVIRONMENTS;
use super::{Queue, QueueSettings};
use crate::delivery::DeliveryOutcome;
use crate::loop_guard::repeats_in_every_chain;
use crate::policy::{Decision, Policy, Request};
use crate::queue::messages::Effect;
use crate::run::record::Cause;
use crate::time::Now;

impl Queue {
    /// What the node's policy says of a delivery.
    pub fn judge(&self, cause: &Cause) -> Decision {
        self.settings.policy.judge(&Request::of(&cause.event, &cause.signer))
    }

    /// The outcome of a delivery that this node does not run.
    pub(super) fn refusal(&self, cause: &Cause) -> Option<DeliveryOutcome> {
        if let Some(refused) = refused(&self.settings, cause) {
            return Some(refused);
        }
        if let Some(environment) = &cause.event.options.environment
            && self.waiting.has_too_many_beside(environment)
        {
            let reason = format!(
                "{MAX_ENVIRONMENTS} other environments wait for their runs on this node, the most that may: fire again when \
                 they have run"
            );
            return Some(DeliveryOutcome::Refused(reason));
        }
        let event = &cause.event;
        let repeats =
            repeats_in_every_chain(&event.trigger, &self.settings.certname, &event.lineage, event.loops);
        repeats.map(|suppression| DeliveryOutcome::Suppressed(suppression.to_string()))
    }

    pub(super) fn policy_changed(&mut self, now: Now, policy: Policy) -> Vec<Effect> {
        self.settings.policy = policy;
        self.refuse_waiting(now)
    }

    /// Ends what waits and cannot run here, or is not accepted any more. A run in progress goes on.
    pub(super) fn refuse_waiting(&mut self, now: Now) -> Vec<Effect> {
        let settings = &self.settings;
        let ended = self.waiting.extract(|cause| refused(settings, cause));
        self.finish_any(now, ended)
    }
}

/// The outcome of a delivery that a policy does not accept, or that the run command cannot honour.
fn refused(settings: &QueueSettings, cause: &Cause) -> Option<DeliveryOutcome> {
    let reason = match settings.policy.judge(&Request::of(&cause.event, &cause.signer)) {
        Decision::Refused { reason, .. } => reason,
        Decision::Accepted { .. } => settings.command.objection(&cause.event.options)?,
    };
    Some(DeliveryOutcome::Refused(reason))
}
