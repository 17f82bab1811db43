//! What the queue does when PuppetDB has said which catalogs it has stored.

use std::collections::BTreeSet;

use super::Queue;
use super::settling::Repetition;
use crate::delivery::DeliveryOutcome;
use crate::event::Event;
use crate::identity::EventId;
use crate::puppetdb::Catalogs;
use crate::queue::messages::Effect;
use crate::run::record::Cause;
use crate::time::Now;

impl Queue {
    pub(super) fn catalogs_reported(&mut self, now: Now, catalogs: Catalogs) -> Vec<Effect> {
        self.settling.catalogs = catalogs;
        self.look_at_catalogs(now);
        Vec::new()
    }

    /// Finds out again which of the waiting deliveries lack their catalogs.
    pub(super) fn look_at_catalogs(&mut self, now: Now) {
        for waiting in self.waiting.kinds_mut() {
            let lacking: Vec<&Event> = waiting
                .causes
                .iter()
                .map(|cause| &cause.event)
                .filter(|event| self.settling.awaits(self.settings.settle, event))
                .collect();
            let ids: BTreeSet<EventId> = lacking.iter().map(|event| event.id).collect();
            waiting.unsettled.retain(|event| ids.contains(&event));
            for event in lacking {
                waiting.unsettled.add(now, self.settings.settle, event);
            }
        }
    }

    /// Queues the deliveries again that have run without their catalogs where these are stored now, and ends those for
    /// which that is no longer waited for: their run is their outcome.
    pub(super) fn repeat_settled(&mut self, now: Now) -> Vec<Effect> {
        let mut ended = Vec::new();
        for repetition in std::mem::take(&mut self.settling.repetitions) {
            let Repetition { cause, run, until } = &repetition;
            let event = &cause.event;
            let is_over = *until <= now.elapsed || event.is_expired(now.wall);
            if !is_over && self.settling.awaits(self.settings.settle, event) {
                self.settling.repetitions.push(repetition);
            } else if !is_over && self.settling.catalogs.hold(event) && self.refusal(cause).is_none() {
                self.settling.queued_again(event.id, run.clone());
                let waiting = self.waiting.of_kind_mut(event.options.kind());
                waiting.add_again(Cause { without_catalog: false, ..repetition.cause });
            } else {
                ended.push((cause.clone(), DeliveryOutcome::Done(run.clone())));
            }
        }
        if ended.is_empty() { Vec::new() } else { vec![self.finish(now, None, ended)] }
    }
}
