//! Deliveries that the origin of their event, or an operator, ends before a run has covered them.

use super::Queue;
use crate::cancellation::SignedCancellation;
use crate::queue::messages::Effect;
use crate::run::record::Cause;
use crate::time::Now;

impl Queue {
    /// Whether a cancellation of a delivery counts here.
    ///
    /// # Errors
    /// Why it does not, as a sentence.
    pub fn judge_cancellation(&self, cause: &Cause, request: &SignedCancellation) -> Result<(), String> {
        let SignedCancellation { cancellation, signer } = request;
        self.settings.policy.judge_cancellation(&cancellation.by, signer, &cause.event.origin)
    }

    /// Ends a delivery, unless a run in progress covers it: that run ends by itself and its outcome counts, and only a
    /// repetition of it is cancelled. A delivery that has run and was to run again for a catalog ends with the outcome of its
    /// run, whether it waits for the catalog or is queued again.
    pub(super) fn cancel(&mut self, now: Now, cause: Cause, request: &SignedCancellation) -> Vec<Effect> {
        if self.judge_cancellation(&cause, request).is_err() {
            return self.deliver(now, cause);
        }
        let event = cause.event.id;
        self.unusable.remove(event);
        if let Some(effect) = self.finish_again(event, &cause.addressed_as) {
            return vec![effect];
        }
        let outcome = request.cancellation.outcome();
        let Some(known) = self.find_mut(event) else {
            let outcome = self.refusal(&cause).unwrap_or(outcome);
            return vec![self.finish(now, None, vec![(cause, outcome)])];
        };
        known.addressed_as.extend(cause.addressed_as);
        let is_running = |cause: &Cause| cause.event.id == event;
        if let Some(active) = self.active.as_mut().filter(|active| active.causes.iter().any(is_running)) {
            active.cancelled.insert(event, outcome);
            return Vec::new();
        }
        let ends = |cause: &Cause| (cause.event.id == event).then(|| outcome.clone());
        let mut ended = self.waiting.extract(ends);
        ended.extend(self.settling.end(event));
        self.finish_any(now, ended)
    }
}
