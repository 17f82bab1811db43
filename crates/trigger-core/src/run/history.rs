//! What a node tells of its latest runs: enough to explain each of them to whoever asks, from anywhere, after
//! the events themselves were swept. The value under `run-history/<certname>`, bounded however large the bursts were.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Event, Target};
use crate::identity::{Certname, EventId, RunId, Tag, TriggerName};
use crate::loop_guard::Rule;
use crate::publication::Publication;
use crate::reason::shortened;
use crate::run::record::RunRecord;
use crate::run::{CompletedRun, RunOutcome, RunResult};
use crate::time::Timestamp;

/// Runs that a node tells of.
pub const MAX_RUNS: usize = 16;
/// Causes that are listed of one run.
pub const MAX_CAUSES: usize = 32;
/// Events that are listed of those one run fired.
pub const MAX_FIRES: usize = 32;
/// Targets that are listed of those the loop guard left out of one event.
pub const MAX_SUPPRESSED: usize = 4;

/// A node's latest runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunHistory {
    /// Newest first, at most [`MAX_RUNS`].
    pub runs: Vec<PastRun>,
}

/// A run that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastRun {
    /// Which one, and how it ended.
    pub run: CompletedRun,
    /// What it was limited to; empty means everything.
    pub tags: BTreeSet<Tag>,
    /// The events it covered, one of each [`Kind`] first.
    pub causes: Truncated<PastCause>,
    /// Earlier events of a backlog that one of the causes stands for.
    pub superseded: usize,
    /// The events that were fired inside it, those first that the loop guard cut.
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
}

/// An event that was fired inside a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FiredEvent {
    /// Which one.
    pub event: EventId,
    /// What fired.
    pub trigger: TriggerName,
    /// Whether it went to groups, whose members look for loops themselves.
    pub to_groups: bool,
    /// Whom the loop guard left out.
    pub suppressed: Truncated<SuppressedTarget>,
    /// How many of them by each of its rules, for metrics; empty where an earlier version noted the event.
    pub by_rule: BTreeMap<Rule, usize>,
}

/// A target that the loop guard left out when an event was fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuppressedTarget {
    /// Whom.
    pub target: Target,
    /// Why.
    pub reason: String,
}

/// The first of many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truncated<T> {
    /// These.
    pub listed: Vec<T>,
    /// And so many more.
    pub more: usize,
}

impl<T> Default for Truncated<T> {
    fn default() -> Self {
        Self { listed: Vec::new(), more: 0 }
    }
}

impl<T> Truncated<T> {
    /// The first `at_most` of all.
    pub fn of(all: impl IntoIterator<Item = T>, at_most: usize) -> Self {
        let mut all = all.into_iter();
        Self { listed: all.by_ref().take(at_most).collect(), more: all.count() }
    }

    /// How many there are, listed or not.
    pub fn count(&self) -> usize {
        self.listed.len() + self.more
    }
}

impl RunHistory {
    /// Adds a run that has just ended; doing it again changes nothing.
    pub fn push(&mut self, run: PastRun) {
        self.runs.retain(|known| known.run.run_id != run.run.run_id && !is_tried_again_in(known, &run));
        self.runs.insert(0, run);
        self.runs.truncate(MAX_RUNS);
    }

    /// The run with this id, if it is still told of.
    pub fn run(&self, run: RunId) -> Option<&PastRun> {
        self.runs.iter().find(|past| past.run.run_id == run)
    }
}

/// Whether a run could not happen and a later one covers the same: hours without a Puppet server must not
/// push out what happened before them.
fn is_tried_again_in(tried: &PastRun, later: &PastRun) -> bool {
    let covered = |cause: &PastCause| later.causes.listed.iter().any(|other| other.event == cause.event);
    tried.run.result.outcome == RunOutcome::NotRun && tried.causes.listed.iter().all(covered)
}

impl PastRun {
    /// What is told of a run, from its record and all that was fired inside it.
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
        // A burst of one trigger must not hide the one event of another.
        causes.sort_by_key(|(is_one_more, _)| *is_one_more);
        // Nor must what went on as it should hide what did not, or did not at a member of a group.
        let mut fired: Vec<FiredEvent> = fired.into_iter().collect();
        fired.sort_by_key(|fired| (fired.suppressed.count() == 0, !fired.to_groups));
        Self {
            run: CompletedRun::new(record.run_id, record.options.noop, result),
            tags: record.options.tags.clone(),
            causes: Truncated::of(causes.into_iter().map(|(_, cause)| cause), MAX_CAUSES),
            superseded,
            fired: Truncated::of(fired, MAX_FIRES),
        }
    }
}

impl PastCause {
    /// What is told of an event.
    pub fn of(event: &Event) -> Self {
        Self {
            event: event.id,
            trigger: event.trigger.clone(),
            origin: event.origin.clone(),
            fired_at: event.fired_at,
            fired_in: event.fired_in,
        }
    }

    /// Events of one kind have one past.
    pub fn kind(&self) -> Kind {
        (self.trigger.clone(), self.origin.clone(), self.fired_in)
    }
}

/// What events have in common that were fired by the same trigger in the same run, or by hand on one node.
pub type Kind = (TriggerName, Certname, Option<RunId>);

impl FiredEvent {
    /// What is told of an event that is being fired, where the loop guard left out so many by each rule.
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
    fn the_latest_runs_are_told_and_telling_twice_changes_nothing() {
        let mut history = RunHistory::default();
        for run in 1..=20 {
            history.push(past_run(run, RunOutcome::Changed, &[run]));
            history.push(past_run(run, RunOutcome::Changed, &[run]));
        }
        assert_eq!(ids(&history), (5..=20).rev().map(run_id).collect::<Vec<_>>());
    }

    #[test]
    fn tries_that_came_to_nothing_make_room_for_the_run_that_happened() {
        let mut history = RunHistory::default();
        history.push(past_run(1, RunOutcome::NotRun, &[1]));
        history.push(past_run(2, RunOutcome::NotRun, &[1]));
        assert_eq!(ids(&history), [run_id(2)], "while it is tried, the latest try is told");
        history.push(past_run(3, RunOutcome::Unchanged, &[9]));
        assert_eq!(ids(&history), [run_id(3), run_id(2)], "this one did not cover it");
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
    fn what_the_loop_guard_cut_is_told_of_many_fires_then_what_went_to_groups() {
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
        let told: Vec<EventId> = run.fired.listed.iter().map(|fired| fired.event).collect();
        assert_eq!(told[..4], [61, 60, 50, 1].map(event_id));
        assert_eq!((told.len(), run.fired.more), (MAX_FIRES, 11));
    }
}
