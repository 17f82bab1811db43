//! What waits for a run, by the kind of the run: requests of different kinds have no run in common (C5).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::waiting::Waiting;
use crate::delivery::DeliveryOutcome;
use crate::event::RunKind;
use crate::identity::{Environment, EventId};
use crate::run::record::Cause;
use crate::time::Now;

/// How many environments may wait for runs beside the node's own. What waits for a missing one is tried again and again, which
/// counts for the limit on runs as any other run does: many of them would hold up the node's own.
pub(super) const MAX_ENVIRONMENTS: usize = 8;

/// The deliveries that wait, by the kind of the run that they wait for. Each kind waits for one run, with its own retries, so
/// that an environment that cannot be had keeps nothing else from running.
#[derive(Debug, Clone, Default)]
pub(super) struct Backlog {
    kinds: BTreeMap<RunKind, Waiting>,
}

impl Backlog {
    /// What waits for a run of each kind, first of all for the runs in the node's own environment.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &Waiting> {
        self.kinds.values()
    }

    pub(super) fn kinds_mut(&mut self) -> impl Iterator<Item = &mut Waiting> {
        self.kinds.values_mut()
    }

    pub(super) fn of_kind(&self, kind: &RunKind) -> Option<&Waiting> {
        self.kinds.get(kind)
    }

    /// Where deliveries wait for a run of this kind.
    pub(super) fn of_kind_mut(&mut self, kind: RunKind) -> &mut Waiting {
        self.kinds.entry(kind).or_default()
    }

    /// Whether as many other environments as may wait do.
    pub(super) fn has_too_many_beside(&self, environment: &Environment) -> bool {
        let waiting = self.kinds.keys().filter_map(|kind| kind.environment.as_ref());
        let others: BTreeSet<&Environment> = waiting.filter(|waiting| *waiting != environment).collect();
        others.len() >= MAX_ENVIRONMENTS
    }

    /// All that waits.
    pub(super) fn causes(&self) -> impl Iterator<Item = &Cause> {
        self.kinds().flat_map(|waiting| &waiting.causes)
    }

    pub(super) fn causes_mut(&mut self) -> impl Iterator<Item = &mut Cause> {
        self.kinds_mut().flat_map(|waiting| &mut waiting.causes)
    }

    /// Takes what waits for the next run out, if there is a kind that `is_ready`: the kinds take turns, in their order. If
    /// the older event went first, a node whose clock is years behind could keep another kind from running.
    pub(super) fn take_next(
        &mut self,
        last: Option<&RunKind>,
        is_ready: impl Fn(&Waiting) -> bool,
    ) -> Option<(RunKind, Waiting)> {
        let after_last = (last.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let mut turns = self.kinds.range(after_last).chain(&self.kinds);
        let next = turns.find(|(_, waiting)| is_ready(waiting))?.0.clone();
        self.kinds.remove_entry(&next)
    }

    /// Takes the events out for which `end` has an outcome.
    pub(super) fn extract(
        &mut self,
        mut end: impl FnMut(&Cause) -> Option<DeliveryOutcome>,
    ) -> Vec<(Cause, DeliveryOutcome)> {
        let ended = self.kinds_mut().flat_map(|waiting| waiting.extract(&mut end)).collect();
        self.forget_empty();
        ended
    }

    /// Keeps the events for which `stays` holds.
    pub(super) fn retain(&mut self, stays: impl Fn(EventId) -> bool) {
        for waiting in self.kinds_mut() {
            waiting.causes.retain(|cause| stays(cause.event.id));
            waiting.unsettled.retain(&stays);
        }
        self.forget_empty();
    }

    /// See [`Waiting::shorten_backoff`].
    pub(super) fn shorten_backoff(&mut self, now: Now) {
        self.kinds_mut().for_each(|waiting| waiting.shorten_backoff(now));
    }

    fn forget_empty(&mut self) {
        self.kinds.retain(|_, waiting| !waiting.causes.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kinds_take_turns() {
        let kind = |environment: Option<&str>, noop| RunKind {
            environment: environment.map(|name| name.parse().unwrap()),
            noop,
        };
        let kinds = [kind(None, false), kind(None, true), kind(Some("a"), false), kind(Some("b"), true)];
        let after = |last: Option<&RunKind>| {
            let mut backlog = Backlog::default();
            for kind in &kinds {
                backlog.of_kind_mut(kind.clone());
            }
            backlog.take_next(last, |_| true).map(|(kind, _)| kind)
        };
        assert_eq!(after(None).as_ref(), Some(&kinds[0]));
        for index in 0..kinds.len() {
            assert_eq!(after(Some(&kinds[index])).as_ref(), Some(&kinds[(index + 1) % kinds.len()]));
        }
        assert_eq!(after(Some(&kind(Some("a"), true))).as_ref(), Some(&kinds[3]));
        assert_eq!(Backlog::default().take_next(None, |_| true).map(|(kind, _)| kind), None);
    }
}
