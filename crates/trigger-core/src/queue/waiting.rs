//! Deliveries that wait to share one run: the backoff of their retries, and the bound on their number.

use std::time::Duration;

use super::unsettled::Unsettled;
use crate::backoff;
use crate::delivery::DeliveryOutcome;
use crate::identity::EventId;
use crate::run::CompletedRun;
use crate::run::record::Cause;
use crate::time::{Now, Timestamp};

/// Waiting deliveries of one kind beyond which a delivery is superseded by a later one that asks for the same.
pub(super) const MAX_BACKLOG: usize = 64;

/// Deliveries that will share one run. All of them ask for runs of one kind.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiting {
    pub(super) causes: Vec<Cause>,
    /// Set after a run that could not happen.
    pub(super) retry: Option<Retry>,
    /// Those whose catalogs PuppetDB has not stored.
    pub(super) unsettled: Unsettled,
    /// Whether no cause but the latest can stand for an earlier one.
    is_deduplicated: bool,
}

/// The next try after a run that could not happen.
#[derive(Debug, Clone)]
pub(super) struct Retry {
    /// Runs that could not happen, one after the other.
    pub(super) attempts: u32,
    /// On the clock that only goes forward.
    pub(super) not_before: Duration,
    /// The same moment on the wall clock, for display.
    pub(super) at: Timestamp,
    /// Why the last run could not happen.
    pub(super) reason: String,
}

impl Retry {
    /// The next try of a run that could not happen after `attempts` that could not happen either. `jitter` is from
    /// 0.0 up to 1.0.
    pub(super) fn after(run: &CompletedRun, now: Now, attempts: u32, jitter: f64) -> Self {
        let wait = backoff::retry_run(attempts, jitter);
        Self {
            attempts: attempts + 1,
            not_before: now.elapsed + wait,
            at: now.wall.plus(wait),
            reason: run.result.reason.clone().unwrap_or_else(|| "Puppet did not run".to_owned()),
        }
    }
}

impl Waiting {
    /// The cause of an event, if the event waits here.
    pub(super) fn find_mut(&mut self, event: EventId) -> Option<&mut Cause> {
        self.causes.iter_mut().find(|cause| cause.event.id == event)
    }

    /// Takes the events out for which `end` has an outcome. Nothing is left to retry when none remains.
    pub(super) fn extract(
        &mut self,
        mut end: impl FnMut(&Cause) -> Option<DeliveryOutcome>,
    ) -> Vec<(Cause, DeliveryOutcome)> {
        let mut outcomes = Vec::new();
        let mut has_ended = |cause: &Cause| end(cause).map(|outcome| outcomes.push(outcome)).is_some();
        let ended: Vec<Cause> = self.causes.extract_if(.., |cause| has_ended(cause)).collect();
        if self.causes.is_empty() {
            self.retry = None;
        }
        ended.into_iter().zip(outcomes).collect()
    }

    /// Makes a retry due after the shortest backoff if it would be due later: soon, but not at once, since the
    /// reason for the backoff may persist.
    pub(super) fn shorten_backoff(&mut self, now: Now) {
        let Some(retry) = &mut self.retry else { return };
        let soon = now.elapsed + backoff::retry_run(0, 0.0);
        if soon < retry.not_before {
            retry.at = now.wall.plus(soon - now.elapsed);
            retry.not_before = soon;
        }
    }

    /// Puts causes of a run back in front of those that arrived during the run. An event that arrived again
    /// meanwhile stays one cause.
    pub(super) fn requeue(&mut self, causes: impl IntoIterator<Item = Cause>, retry: Option<Retry>) {
        let arrived = std::mem::take(&mut self.causes);
        for cause in causes.into_iter().chain(arrived) {
            match self.find_mut(cause.event.id) {
                Some(known) => {
                    known.addressed_as.extend(cause.addressed_as);
                    known.interruptions = known.interruptions.max(cause.interruptions);
                }
                None => self.causes.push(cause),
            }
        }
        self.is_deduplicated = false;
        self.retry = retry.filter(|_| !self.causes.is_empty());
    }

    /// Adds a cause that has run before. It leaves the next try of the others where it is.
    pub(super) fn add_again(&mut self, cause: Cause) {
        self.causes.push(cause);
        self.is_deduplicated = false;
    }

    /// Bounds a backlog to which a cause has just been added. An earlier event is superseded where a later one has
    /// the same trigger, origin, options and past, and expires no sooner; events without such a successor stay,
    /// however many they are.
    ///
    /// In a backlog that was deduplicated before, only the latest cause can be a successor. Comparing all pairs
    /// again for each new event would take minutes with ten thousand of them.
    pub(super) fn supersede_duplicates(&mut self) -> Vec<(Cause, DeliveryOutcome)> {
        let causes = &mut self.causes;
        let mut superseded = Vec::new();
        let mut at = 0;
        while at < causes.len() && causes.len() > MAX_BACKLOG {
            let latest = causes.len() - 1;
            let from = if self.is_deduplicated { latest.max(at + 1) } else { at + 1 };
            let earlier = &causes[at].event;
            let successor = causes[from..].iter().map(|cause| &cause.event).rfind(|later| {
                later.trigger == earlier.trigger
                    && later.origin == earlier.origin
                    && later.options == earlier.options
                    && later.lineage.is_same_past(&earlier.lineage)
                    && later.expires_at() >= earlier.expires_at()
            });
            match successor.map(|later| later.id) {
                Some(id) => superseded.push((causes.remove(at), DeliveryOutcome::Superseded(id))),
                None => at += 1,
            }
        }
        self.is_deduplicated = at == causes.len();
        superseded
    }
}
