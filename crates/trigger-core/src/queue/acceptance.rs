//! Which deliveries this node runs, and which ones it refuses or suppresses.

use super::Queue;
use crate::delivery::DeliveryOutcome;
use crate::event::RunKind;
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
        if let Some(refused) = refused(&self.settings.policy, cause) {
            return Some(refused);
        }
        let event = &cause.event;
        let RunKind { environment, noop } = event.options.kind();
        let unhonoured = match environment {
            _ if self.settings.honours_options => None,
            Some(environment) => Some(format!("run in the environment {environment}")),
            None => noop.then(|| "honour noop".to_owned()),
        };
        if let Some(unhonoured) = unhonoured {
            return Some(DeliveryOutcome::Refused(format!("this node's run command cannot {unhonoured}")));
        }
        let repeats =
            repeats_in_every_chain(&event.trigger, &self.settings.certname, &event.lineage, event.loops);
        repeats.map(|suppression| DeliveryOutcome::Suppressed(suppression.to_string()))
    }

    pub(super) fn policy_changed(&mut self, now: Now, policy: Policy) -> Vec<Effect> {
        self.settings.policy = policy;
        self.refuse_waiting(now)
    }

    /// Ends what waits and is not accepted any more. A run in progress goes on.
    pub(super) fn refuse_waiting(&mut self, now: Now) -> Vec<Effect> {
        let policy = &self.settings.policy;
        let ended = self.waiting.extract(|cause| refused(policy, cause));
        self.finish_any(now, ended)
    }
}

/// The outcome of a delivery that a policy does not accept.
fn refused(policy: &Policy, cause: &Cause) -> Option<DeliveryOutcome> {
    match policy.judge(&Request::of(&cause.event, &cause.signer)) {
        Decision::Refused { reason, .. } => Some(DeliveryOutcome::Refused(reason)),
        Decision::Accepted { .. } => None,
    }
}
