//! Which deliveries wait until PuppetDB has stored the catalog that their event was fired with.
//!
//! A node's catalog is in PuppetDB only some time after the Puppet server has compiled it. A run that starts before that
//! lacks what the node exports. So a run waits for the catalogs of its events, for [`settle`](super::QueueSettings::settle)
//! at most. After that it starts, and the deliveries that lacked a catalog do not end with it: another run covers them once
//! the catalog is there.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::blockers::Blocker;
use super::unsettled::Limit;
use super::waiting::Waiting;
use crate::count::count;
use crate::delivery::DeliveryOutcome;
use crate::event::Event;
use crate::identity::{Certname, EventId, RunId};
use crate::puppetdb::Catalogs;
use crate::run::CompletedRun;
use crate::run::record::Cause;
use crate::time::Now;

/// How long a run waits for catalogs unless the node's configuration says otherwise.
pub const DEFAULT_SETTLE: Duration = Duration::from_secs(20);
/// The longest such wait.
pub const MAX_SETTLE: Duration = Duration::from_secs(10 * 60);
/// How long a delivery that has run without a catalog waits for it. By then the node has run by itself, twice as a rule.
const REPETITION_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// What PuppetDB has said, and what has run without its catalog.
#[derive(Debug, Clone, Default)]
pub(super) struct Settling {
    pub(super) catalogs: Catalogs,
    pub(super) repetitions: Vec<Repetition>,
    /// The first runs of the deliveries that are queued again: such a delivery has run, and if it ends without another run,
    /// that is how it ended.
    first_runs: HashMap<EventId, CompletedRun>,
}

/// A delivery that has run without its catalog.
#[derive(Debug, Clone)]
pub(super) struct Repetition {
    pub(super) cause: Cause,
    pub(super) run: CompletedRun,
    /// When the catalog is no longer waited for, on the clock that only goes forward.
    pub(super) until: Duration,
}

impl Settling {
    pub(super) fn is_news(&self, catalogs: &Catalogs) -> bool {
        self.catalogs != *catalogs
    }

    /// Whether a run for this event has to wait.
    pub(super) fn awaits(&self, settle: Duration, event: &Event) -> bool {
        !settle.is_zero() && self.catalogs.may_lack(event)
    }

    /// Keeps the deliveries that a run has covered without their catalogs.
    pub(super) fn repeat_later(&mut self, now: Now, unsettled: Vec<(Cause, CompletedRun)>) {
        let until = now.elapsed + REPETITION_TIMEOUT;
        for (cause, _) in &unsettled {
            self.first_runs.remove(&cause.event.id);
        }
        let repetitions = unsettled.into_iter().map(|(cause, run)| Repetition { cause, run, until });
        self.repetitions.extend(repetitions);
    }

    /// Takes out a delivery that is not to be repeated any more: its run is its outcome.
    pub(super) fn end(&mut self, event: EventId) -> Option<(Cause, DeliveryOutcome)> {
        let index = self.repetitions.iter().position(|repetition| repetition.cause.event.id == event)?;
        let Repetition { cause, run, .. } = self.repetitions.swap_remove(index);
        Some((cause, DeliveryOutcome::Done(run)))
    }

    /// A delivery is queued again, and has run before.
    pub(super) fn queued_again(&mut self, event: EventId, run: CompletedRun) {
        self.first_runs.insert(event, run);
    }

    /// A delivery ends: its outcome, which is that of its first run where it had one and ends without another.
    pub(super) fn outcome(
        &mut self,
        event: EventId,
        run: Option<RunId>,
        outcome: DeliveryOutcome,
    ) -> DeliveryOutcome {
        match self.first_runs.remove(&event) {
            Some(first) if run.is_none() => DeliveryOutcome::Done(first),
            _ => outcome,
        }
    }

    pub(super) fn has_repetitions(&self) -> bool {
        !self.repetitions.is_empty()
    }

    pub(super) fn repeated_causes(&self) -> impl Iterator<Item = &Cause> {
        self.repetitions.iter().map(|repetition| &repetition.cause)
    }

    pub(super) fn repeated_causes_mut(&mut self) -> impl Iterator<Item = &mut Cause> {
        self.repetitions.iter_mut().map(|repetition| &mut repetition.cause)
    }

    /// When the first of the catalogs is no longer waited for.
    pub(super) fn next_give_up(&self) -> Option<Duration> {
        self.repetitions.iter().map(|repetition| repetition.until).min()
    }

    /// Why deliveries that have run wait all the same, as a sentence.
    pub(super) fn repetition_reason(&self) -> Option<String> {
        let exporters: BTreeSet<&Certname> =
            self.repeated_causes().map(|cause| &cause.event.origin).collect();
        let run = &self.repetitions.first()?.run;
        Some(format!(
            "the run of {} UTC did not wait any longer for PuppetDB, which had not stored the catalog of {}; another run \
             follows when it has",
            run.result.started_at.time_of_day(),
            named(exporters)?,
        ))
    }
}

/// What keeps all waiting runs from starting, if it is only that PuppetDB has not stored their catalogs.
pub(super) fn blocker<'a>(now: Now, kinds: impl IntoIterator<Item = &'a Waiting>) -> Option<Blocker> {
    let waiting: Vec<&Waiting> = kinds.into_iter().filter(|waiting| !waiting.causes.is_empty()).collect();
    let limit_of = |waiting: &Waiting| {
        let retried_at = waiting.retry.as_ref().map(|retry| retry.not_before).unwrap_or_default();
        waiting.unsettled.limit.filter(|limit| limit.until > now.elapsed.max(retried_at))
    };
    let limits: Option<Vec<Limit>> = waiting.iter().map(|waiting| limit_of(waiting)).collect();
    let first = limits?.into_iter().min_by_key(|limit| limit.until)?;
    // Only the first few are looked at: there may be thousands, and this is looked at with each of them.
    let exporters = waiting.iter().flat_map(|waiting| waiting.unsettled.exporters().take(8)).collect();
    let reason = format!(
        "PuppetDB has not stored the catalog of {} yet, with what it exports; at {} UTC the run starts without it",
        named(exporters)?,
        first.at.time_of_day(),
    );
    Some(Blocker::Settling { reason, until: first.until })
}

fn named(exporters: BTreeSet<&Certname>) -> Option<String> {
    let first = exporters.first()?;
    Some(match exporters.len() - 1 {
        0 => first.to_string(),
        others => format!("{first} and of {}", count(others, "other node")),
    })
}
