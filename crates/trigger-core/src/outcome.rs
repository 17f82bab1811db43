//! How runs and deliveries end.

use std::fmt;
use std::str::FromStr;

use crate::identity::{EventId, RunId};
use crate::status::State;
use crate::time::Timestamp;

/// How one supervised Puppet process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RunOutcome {
    /// Puppet ran and found nothing to do.
    Unchanged,
    /// Puppet ran and changed something.
    Changed,
    /// Puppet ran and resources failed.
    Failed,
    /// Puppet could not run: no catalog, server unreachable, its lock held. Tried again until expiry.
    NotRun,
    /// The run took longer than its timeout and was ended.
    TimedOut,
    /// The run was killed, or its supervisor was, before it ended.
    Interrupted,
    /// The run ended and nothing tells how.
    Unknown,
}

impl RunOutcome {
    /// Every outcome, with its name in JSON and on the terminal.
    const NAMES: [(Self, &'static str); 7] = [
        (Self::Unchanged, "unchanged"),
        (Self::Changed, "changed"),
        (Self::Failed, "failed"),
        (Self::NotRun, "not_run"),
        (Self::TimedOut, "timed_out"),
        (Self::Interrupted, "interrupted"),
        (Self::Unknown, "unknown"),
    ];

    /// Each of them.
    pub fn all() -> [Self; 7] {
        Self::NAMES.map(|(outcome, _)| outcome)
    }

    /// The name in JSON and on the terminal.
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(outcome, _)| *outcome == self).map_or("unknown", |(_, name)| name)
    }
}

impl fmt::Display for RunOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' names no outcome")]
pub struct UnknownOutcome(String);

impl FromStr for RunOutcome {
    type Err = UnknownOutcome;

    fn from_str(text: &str) -> Result<Self, UnknownOutcome> {
        let named = Self::NAMES.iter().find(|(_, name)| *name == text);
        named.map(|(outcome, _)| *outcome).ok_or_else(|| UnknownOutcome(text.to_owned()))
    }
}

/// What the supervisor found out about its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunResult {
    /// How it ended.
    pub outcome: RunOutcome,
    /// A sentence where the outcome needs one: what failed, what judged it.
    pub reason: Option<String>,
    /// Whether Puppet's report says that it was a noop run, by the event's wish or by the node's settings.
    pub reported_noop: bool,
    /// By this node's clock.
    pub started_at: Timestamp,
    /// By this node's clock.
    pub finished_at: Timestamp,
}

/// The run that ended a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletedRun {
    /// Which one.
    pub run_id: RunId,
    /// Whether Puppet only reported what it would do.
    pub noop: bool,
    /// How it ended.
    pub result: RunResult,
}

impl CompletedRun {
    /// The end of a run that was asked for with or without noop: Puppet's own word counts too.
    pub fn new(run_id: RunId, asked_noop: bool, result: RunResult) -> Self {
        Self { run_id, noop: asked_noop || result.reported_noop, result }
    }
}

/// How a delivery ended; stored once, by its target (C6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// A run that started after the event ended `unchanged` or `changed`.
    Done(CompletedRun),
    /// A run that started after the event ended otherwise, for good.
    Failed(CompletedRun),
    /// The event's life was over before a run could start.
    Expired,
    /// The node will not run for this event; the sentence says why.
    Refused(String),
    /// The loop guard left this target out; the sentence says why.
    Suppressed(String),
    /// A backlog was collapsed into a later event with the same trigger, origin, options and past.
    Superseded(EventId),
}

impl DeliveryOutcome {
    /// The state of a delivery that ended so.
    pub fn state(&self) -> State {
        match self {
            Self::Done(_) => State::Done,
            Self::Failed(_) => State::Failed,
            Self::Expired => State::Expired,
            Self::Refused(_) => State::Refused,
            Self::Suppressed(_) => State::Suppressed,
            Self::Superseded(_) => State::Superseded,
        }
    }
}
