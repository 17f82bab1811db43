//! The history of a node's latest runs: enough to explain each of them from anywhere, even after their events have been
//! removed. It is the value under `run-history/<certname>` and of bounded size, however large the bursts of events were.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Event, FiredBy, Target};
use crate::identity::{Certname, Environment, EventId, RunId, Tag, TriggerName};
use crate::loop_guard::Rule;
use crate::publication::Publication;
use crate::reason::shortened;
use crate::run::record::RunRecord;
use crate::run::{CompletedRun, RunOutcome, RunResult};
use crate::time::Timestamp;

/// The most runs in a history.
pub const MAX_RUNS: usize = 16;
/// The most causes that are listed for one run.
pub const MAX_CAUSES: usize = 32;
/// The most events that are listed of those that were fired inside one run.
pub const MAX_FIRES: usize = 32;
/// The most targets that are listed of those at which one event was suppressed.
pub const MAX_SUPPRESSED: usize = 4;

/// The latest runs of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunHistory {
    /// The runs, newest first; at most [`MAX_RUNS`].
    pub runs: Vec<PastRun>,
}

/// A run in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastRun {
    /// The run with its result.
    pub run: CompletedRun,
    /// The tags to which the run was limited; empty means the whole catalog.
    pub tags: BTreeSet<Tag>,
    /// The environment of Puppet's that its events asked for; absent: the node's own.
    pub environment: Option<Environment>,
    /// The events that it covered; one of each [`Kind`] comes first.
    pub causes: Truncated<PastCause>,
    /// How many earlier events of a backlog were superseded by one of the causes.
    pub superseded: usize,
    /// The events that were fired inside it; those that were suppressed somewhere come first.
    pub fired: Truncated<FiredEvent>,
}

/// An event that a run covered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the event's")]
pub struct PastCause {
    pub event: EventId,
    pub trigger: TriggerName,
    pub origin: Certname,
    pub fired_at: Timestamp,
    pub fired_in: Option<RunId>,
    pub fired_by: Option<FiredBy>,
}

/// An event that was fired inside a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FiredEvent {
    /// The event.
    pub event: EventId,
    /// The trigger that fired it.
    pub trigger: TriggerName,
    /// Whether it addressed groups, whose members look for loops themselves.
    pub to_groups: bool,
    /// The targets at which the loop guard suppressed it.
    pub suppressed: Truncated<SuppressedTarget>,
    /// How many targets were suppressed by each rule, for metrics. Empty where an earlier version wrote the entry.
    pub by_rule: BTreeMap<Rule, usize>,
}

/// A target at which the loop guard suppressed an event when it was fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuppressedTarget {
    /// The target.
    pub target: Target,
    /// The reason, as a sentence.
    pub reason: String,
}

/// A list of bounded length, with the number of further items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truncated<T> {
    /// The items that are listed.
    pub listed: Vec<T>,
    /// How many more there are.
    pub more: usize,
}

impl<T> Default for Truncated<T> {
    fn default() -> Self {
        Self { listed: Vec::new(), more: 0 }
    }
}

impl<T> Truncated<T> {
    /// Lists the first `at_most` items and counts the others.
    pub fn of(all: impl IntoIterator<Item = T>, at_most: usize) -> Self {
        let mut all = all.into_iter();
        Self { listed: all.by_ref().take(at_most).collect(), more: all.count() }
    }

    /// The number of all items, listed or not.
    pub fn count(&self) -> usize {
        self.listed.len() + self.more
    }
}

impl RunHistory {
    /// Adds a run that has just ended. Adding it again changes nothing.
    pub fn push(&mut self, run: PastRun) {
        self.runs.retain(|known| known.run.run_id != run.run.run_id && !is_repeated_by(known, &run));
        self.runs.insert(0, run);
        self.runs.truncate(MAX_RUNS);
    }

    /// The run with this id, if it is still in the history.
    pub fn run(&self, run: RunId) -> Option<&PastRun> {
        self.runs.iter().find(|past| past.run.run_id == run)
    }
}

/// Whether a run could not happen and a later run covers all of its causes. Such runs are removed, so that hours without
/// a Puppet server do not push all earlier runs out of the history.
fn is_repeated_by(earlier: &PastRun, later: &PastRun) -> bool {
    let covered = |cause: &PastCause| later.causes.listed.iter().any(|other| other.event == cause.event);
    earlier.run.result.outcome == RunOutcome::NotRun && earlier.causes.listed.iter().all(covered)
}

impl PastRun {
    /// The entry of a run, from its record, its result and the events that were fired inside it.
    pub fn of(
        record: &RunRecord,
        result: RunResult,
        superseded: usize,
        fired: impl IntoIterator<Item = FiredEvent>,
    ) -> Self {
        let result = RunResult { reason: result.reason.map(|reason| shortened(&reason)), ..result };
        let mut seen = BTreeSet::new();
        let causes = record.causes.iter().map(|cause| PastCause::of(&cause.event));
        let mut causes: Vec<(bool, PastCause)> =
            causes.map(|cause| (!seen.insert(cause.kind()), cause)).collect();
        // A burst of one trigger must not hide the single event of another.
        causes.sort_by_key(|(is_one_more, _)| *is_one_more);
        // Events that were delivered everywhere must not hide those that were suppressed somewhere, or that may have
        // been suppressed at a member of a group.
        let mut fired: Vec<FiredEvent> = fired.into_iter().collect();
        fired.sort_by_key(|fired| (fired.suppressed.count() == 0, !fired.to_groups));
        Self {
            run: CompletedRun::new(record.run_id, record.options.noop, result),
            tags: record.options.tags.clone(),
            environment: record.options.environment.clone(),
            causes: Truncated::of(causes.into_iter().map(|(_, cause)| cause), MAX_CAUSES),
            superseded,
            fired: Truncated::of(fired, MAX_FIRES),
        }
    }
}

impl PastCause {
    /// The entry of an event among the causes.
    pub fn of(event: &Event) -> Self {
        Self {
            event: event.id,
            trigger: event.trigger.clone(),
            origin: event.origin.clone(),
            fired_at: event.fired_at,
            fired_in: event.fired_in,
            fired_by: event.fired_by.clone(),
        }
    }

    /// The kind of the event: events of one kind have the same past.
    pub fn kind(&self) -> Kind {
        (self.trigger.clone(), self.origin.clone(), self.fired_in)
    }
}

/// The trigger, origin and run of an event. Events that agree in all three were fired by the same trigger inside the
/// same run, or outside any run on the same node.
pub type Kind = (TriggerName, Certname, Option<RunId>);

impl FiredEvent {
    /// The entry of an event that is being fired. `by_rule` counts its suppressed targets by the rule.
    pub fn of(publication: &Publication, by_rule: BTreeMap<Rule, usize>) -> Self {
        let nodes = publication.suppressed.iter().map(|(node, reason)| (Target::Node(node.clone()), reason));
        let groups = publication.suppressed_groups.iter();
        let groups = groups.map(|(group, reason)| (Target::Group(group.clone()), reason));
        let suppressed = nodes
            .chain(groups)
            .map(|(target, reason)| SuppressedTarget { target, reason: shortened(reason) });
        Self {
            event: publication.event.id,
            trigger: publication.event.trigger.clone(),
            to_groups: !publication.event.targets.groups.is_empty(),
            suppressed: Truncated::of(suppressed, MAX_SUPPRESSED),
            by_rule,
        }
    }
}

#[cfg(test)]
pub(crate) mod samples {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::event::{RunOptions, Target, samples};
    use crate::run::record::Cause;
    use uuid::Uuid;

    pub(crate) fn run_id(n: u128) -> RunId {
        RunId::from_uuid(Uuid::from_u128(n))
    }

    pub(crate) fn record(run: u128, causes: Vec<Event>) -> RunRecord {
        let cause = |event| Cause {
            event,
            addressed_as: [Target::Node("lb01".parse().unwrap())].into(),
            interruptions: 0,
            without_catalog: false,
            signer: Default::default(),
        };
        RunRecord {
            run_id: run_id(run),
            certname: "lb01".parse().unwrap(),
            command: vec!["true".to_owned()],
            options: RunOptions::default(),
            timeout: Duration::from_secs(3600),
            started_at: Timestamp::from_unix_ms(1),
            causes: causes.into_iter().map(cause).collect(),
            environment: BTreeMap::new(),
        }
    }

    pub(crate) fn result(outcome: RunOutcome) -> RunResult {
        RunResult {
            outcome,
            reason: None,
            reported_noop: false,
            drift: Default::default(),
            started_at: Timestamp::from_unix_ms(1_763_812_801_000),
            finished_at: Timestamp::from_unix_ms(1_763_812_805_100),
        }
    }

    /// A run that covered these events.
    pub(crate) fn past_run(run: u128, outcome: RunOutcome, causes: &[u128]) -> PastRun {
        let causes = causes.iter().map(|&n| samples::event(n, "t")).collect();
        PastRun::of(&record(run, causes), result(outcome), 0, [])
    }
}

#[cfg(test)]
mod tests {
    use super::samples::{past_run, record, result, run_id};
    use super::*;
    use crate::event::samples::{event, event_id};

    fn ids(history: &RunHistory) -> Vec<RunId> {
        history.runs.iter().map(|run| run.run.run_id).collect()
    }

    #[test]
    fn the_latest_runs_are_kept_and_adding_one_twice_changes_nothing() {
        let mut history = RunHistory::default();
        for run in 1..=20 {
            history.push(past_run(run, RunOutcome::Changed, &[run]));
            history.push(past_run(run, RunOutcome::Changed, &[run]));
        }
        assert_eq!(ids(&history), (5..=20).rev().map(run_id).collect::<Vec<_>>());
    }

    #[test]
    fn runs_that_could_not_happen_make_room_for_the_run_that_covers_their_causes() {
        let mut history = RunHistory::default();
        history.push(past_run(1, RunOutcome::NotRun, &[1]));
        history.push(past_run(2, RunOutcome::NotRun, &[1]));
        assert_eq!(ids(&history), [run_id(2)], "of repeated tries, the latest stays");
        history.push(past_run(3, RunOutcome::Unchanged, &[9]));
        assert_eq!(ids(&history), [run_id(3), run_id(2)], "the later run did not cover the cause");
        history.push(past_run(4, RunOutcome::Changed, &[1, 2]));
        assert_eq!(ids(&history), [run_id(4), run_id(3)]);
    }

    #[test]
    fn a_burst_is_counted_and_does_not_hide_another_trigger() {
        let mut causes: Vec<Event> = (1..=200).map(|n| event(n, "burst")).collect();
        causes.push(event(999, "lonely"));
        let run = PastRun::of(&record(1, causes), result(RunOutcome::Changed), 0, []);
        assert_eq!((run.causes.listed.len(), run.causes.more), (32, 169));
        assert_eq!(run.causes.listed[0].event, event_id(1));
        assert_eq!(run.causes.listed[1].event, event_id(999));
        assert_eq!(run.causes.listed[2].event, event_id(2), "then in the order of their arrival");
    }

    #[test]
    fn of_many_fired_events_the_suppressed_ones_come_first_then_those_to_groups() {
        let fired = |n: u128, to_groups, reasons: &[&str]| FiredEvent {
            event: event_id(n),
            trigger: "t".parse().unwrap(),
            to_groups,
            suppressed: Truncated::of(
                reasons.iter().map(|&reason| SuppressedTarget {
                    target: Target::Node("n".parse().unwrap()),
                    reason: reason.to_owned(),
                }),
                MAX_SUPPRESSED,
            ),
            by_rule: BTreeMap::new(),
        };
        let plain = (1..=40).map(|n| fired(n, false, &[]));
        let fires =
            plain.chain([fired(50, true, &[]), fired(60, false, &["loop"]), fired(61, true, &["loop"])]);
        let run = PastRun::of(&record(1, Vec::new()), result(RunOutcome::Changed), 0, fires);
        let listed: Vec<EventId> = run.fired.listed.iter().map(|fired| fired.event).collect();
        assert_eq!(listed[..4], [61, 60, 50, 1].map(event_id));
        assert_eq!((listed.len(), run.fired.more), (MAX_FIRES, 11));
    }
}
