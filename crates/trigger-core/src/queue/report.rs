//! What the queue reports: to the node's record in the backend, to `trigger queue` and to the metrics.

use std::collections::BTreeSet;

use super::{ActiveRun, Blocker, MAX_LISTED, Queue};
use crate::count::count;
use crate::identity::{Certname, EventId};
use crate::node::{Activity, Delayed, HeldDelivery, Retrying, Running, Waiting};
use crate::policy::Policy;
use crate::rate_limiter::RunsPerMinute;
use crate::reason::shortened;
use crate::run::record::Cause;
use crate::time::Timestamp;

impl Queue {
    /// What the node does and what keeps it from doing more, for its record in the backend.
    pub fn activity(&self) -> Activity {
        let retrying = self
            .waiting
            .kinds()
            .filter_map(|waiting| {
                let retry = waiting.retry.as_ref()?;
                Some(Retrying {
                    at: self.delay.map_or(retry.at, |delay| retry.at.max(delay.at)),
                    reason: retry.reason.clone(),
                    causes: listed(&waiting.causes),
                })
            })
            .collect();
        let delayed = self.delay.map(|delay| Delayed {
            at: delay.at,
            reason: limit_reason(self.rate_limiter.limit(), delay.at),
            causes: listed(self.waiting_causes()),
        });
        let running = |active: &ActiveRun| {
            let Running { run_id, started_at, .. } = *active.running.as_ref()?;
            Some(Running { run_id, started_at, causes: listed(&active.causes) })
        };
        let held = self.held().take(MAX_LISTED);
        Activity {
            running: self.active.as_ref().and_then(running),
            retrying: if self.is_blocked() { Vec::new() } else { retrying },
            delayed,
            waiting: match self.waiting_reason() {
                Some(reason) => {
                    let causes = listed(self.waiting_causes().chain(self.repeated_causes()));
                    Some(Waiting { reason: shortened(reason), causes })
                }
                None => self.settling.repetition_reason().map(|reason| Waiting {
                    reason: shortened(&reason),
                    causes: listed(self.repeated_causes()),
                }),
            },
            held: held.map(|(event, reason)| HeldDelivery { event, reason: shortened(reason) }).collect(),
            // Orders are not the queue's: the agent adds what it knows of them.
            hold: None,
        }
    }

    /// Why deliveries wait although no operator is needed: a blocker that goes by itself.
    fn waiting_reason(&self) -> Option<&str> {
        let waits = self.waiting_causes().next().is_some();
        self.blocker().filter(|blocker| waits && !blocker.needs_operator()).map(Blocker::reason)
    }

    /// Why the deliveries that wait are held: a blocker that stays until an operator does something.
    pub fn held_reason(&self) -> Option<&str> {
        self.blocker().filter(|blocker| blocker.needs_operator()).map(Blocker::reason)
    }

    /// The deliveries that are held, each with its reason: those that this version cannot read or verify, and all
    /// that wait while a blocker needs an operator.
    pub fn held(&self) -> impl Iterator<Item = (EventId, &str)> {
        let blocked = self
            .held_reason()
            .into_iter()
            .flat_map(|reason| self.waiting_causes().map(move |cause| (cause.event.id, reason)));
        self.unusable.iter().chain(blocked)
    }

    /// Why a delivery is held that this version cannot read or verify.
    pub fn unusable_reason(&self, event: EventId) -> Option<&str> {
        self.unusable.reason(event)
    }

    /// What the run in progress covers; empty until the run has its id.
    pub fn running_causes(&self) -> &[Cause] {
        let running = self.active.as_ref().filter(|active| active.running.is_some());
        running.map_or(&[], |active| &active.causes)
    }

    /// What waits for a run, by the kind of the run: first the causes of the next real run, then those of the next noop run,
    /// then those of runs in another environment than the node's own.
    pub fn waiting_causes(&self) -> impl Iterator<Item = &Cause> {
        self.waiting.causes()
    }

    /// What has run without the catalog that its event was fired with, and runs once more when PuppetDB has stored it.
    pub fn repeated_causes(&self) -> impl Iterator<Item = &Cause> {
        self.settling.repeated_causes()
    }

    /// The nodes whose catalogs are awaited.
    pub fn awaited_catalogs(&self) -> BTreeSet<Certname> {
        let waiting = self.waiting.kinds().flat_map(|waiting| waiting.unsettled.exporters());
        waiting.chain(self.repeated_causes().map(|cause| &cause.event.origin)).cloned().collect()
    }

    /// Which events may run Puppet here, and who may hold this node.
    pub fn policy(&self) -> &Policy {
        &self.settings.policy
    }

    /// Whether an event waits or runs here.
    pub fn is_queued(&self, event: EventId) -> bool {
        self.queued.contains(&event)
    }

    /// Whether an event waits, runs, or has ended here.
    pub fn is_known(&self, event: EventId) -> bool {
        self.is_queued(event) || self.has_ended(event)
    }

    /// The blocker that counts, if any keeps runs from starting.
    pub fn blocker(&self) -> Option<&Blocker> {
        self.blocker.as_ref()
    }

    /// Why no run may start, as a sentence.
    pub fn blocked_reason(&self) -> Option<&str> {
        self.blocker.as_ref().map(Blocker::reason)
    }
}

fn limit_reason(limit: RunsPerMinute, at: Timestamp) -> String {
    let runs = count(limit.get().into(), "run");
    format!(
        "{runs} started within a minute (runs_per_minute); the next may start at {} UTC",
        at.time_of_day()
    )
}

fn listed<'a>(causes: impl IntoIterator<Item = &'a Cause>) -> Vec<EventId> {
    causes.into_iter().take(MAX_LISTED).map(|cause| cause.event.id).collect()
}
