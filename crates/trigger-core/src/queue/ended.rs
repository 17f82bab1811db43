//! How deliveries end, and what the queue does where an event that ended here is delivered again.

use std::collections::BTreeSet;

use super::Queue;
use crate::dedup::HonouredEvent;
use crate::delivery::{Completion, DeliveryOutcome};
use crate::event::Target;
use crate::identity::{EventId, RunId};
use crate::queue::messages::Effect;
use crate::run::record::Cause;
use crate::time::Now;

impl Queue {
    /// The entry of the deduplication log for an event that ended here. There is none for what was refused because it
    /// could not be verified: the ids of forgeries would fill the log, and none of them ever runs.
    pub fn honoured(&self, event: EventId) -> Option<HonouredEvent> {
        self.completed.get(event)
    }

    /// What to do with a delivery of an event that ended here; absent if it has not.
    pub(super) fn finish_again(&mut self, event: EventId, addressed_as: &BTreeSet<Target>) -> Option<Effect> {
        if !self.has_ended(event) {
            return None;
        }
        let addressed_as = addressed_as.clone();
        Some(match self.completed.get(event)?.without_run {
            // There is no record of a run from which the outcome could be stored again.
            Some(outcome) => {
                Effect::Finish { run: None, completions: vec![Completion { event, addressed_as, outcome }] }
            }
            None => Effect::DeleteDeliveries { event, addressed_as },
        })
    }

    /// Whether an event has ended here for good. One that was superseded has, as long as this node knows the event that
    /// took its place: a backend that was restored from a backup may have lost that one before it was run for, and has
    /// the earlier one again.
    pub(super) fn has_ended(&self, event: EventId) -> bool {
        let mut event = event;
        // An event is superseded by a later one, so that there is no circle; the bound is there in case the file says so.
        for _ in 0..=self.completed.len() {
            match self.completed.get(event).map(|ended| ended.without_run) {
                None => return false,
                Some(Some(DeliveryOutcome::Superseded(by))) if self.is_queued(by) => return true,
                Some(Some(DeliveryOutcome::Superseded(by))) => event = by,
                Some(_) => return true,
            }
        }
        false
    }

    /// Ends deliveries without a run, if there are any.
    pub(super) fn finish_any(&mut self, now: Now, ended: Vec<(Cause, DeliveryOutcome)>) -> Vec<Effect> {
        if ended.is_empty() { Vec::new() } else { vec![self.finish(now, None, ended)] }
    }

    /// Ends deliveries whose events count. Where no run ends them, one that has run before ends as that run did.
    pub(super) fn finish(
        &mut self,
        now: Now,
        run: Option<RunId>,
        ended: Vec<(Cause, DeliveryOutcome)>,
    ) -> Effect {
        let queued = self.queued.len();
        let completions: Vec<Completion> = ended
            .into_iter()
            .map(|(cause, outcome)| {
                let event = cause.event.id;
                let outcome = self.settling.outcome(event, run, outcome);
                self.queued.remove(&event);
                self.clocks.ended(event);
                let is_by_run = matches!(outcome, DeliveryOutcome::Done(_) | DeliveryOutcome::Failed(_));
                let without_run = (!is_by_run).then(|| outcome.clone());
                let honoured = HonouredEvent::new(event, now.wall, cause.event.expires_at());
                self.completed.insert(HonouredEvent { without_run, ..honoured }, now.wall);
                Completion { event, addressed_as: cause.addressed_as, outcome }
            })
            .collect();
        if self.queued.len() < queued {
            self.waiting.retain(|event| self.queued.contains(&event));
        }
        Effect::Finish { run, completions }
    }
}
