//! How runs and deliveries end.

pub mod command;
pub mod completed;
pub mod history;
pub mod record;
pub mod report;
pub mod verdict;

use std::fmt;
use std::str::FromStr;

use crate::identity::RunId;
use crate::text_serde::serde_as_text;
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

serde_as_text!(RunOutcome);

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
