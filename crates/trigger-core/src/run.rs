//! Runs: what is executed, what is recorded of it and how it ends.

pub mod command;
pub mod explanation;
pub mod history;
pub mod record;
pub mod report;
pub mod report_errors;
mod signal;
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
    /// Puppet could not run: there was no catalog, the server was unreachable, or its lock was held. The run is
    /// repeated until its events expire.
    NotRun,
    /// The run took longer than its timeout, and its supervisor ended it.
    TimedOut,
    /// The run was killed, or its supervisor was, before it ended.
    Interrupted,
    /// The run ended, and neither a report nor an exit code shows how.
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

    /// All outcomes.
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

/// The text is not the name of an outcome of a run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not the outcome of a run")]
pub struct UnknownOutcome(String);

impl FromStr for RunOutcome {
    type Err = UnknownOutcome;

    fn from_str(text: &str) -> Result<Self, UnknownOutcome> {
        let named = Self::NAMES.iter().find(|(_, name)| *name == text);
        named.map(|(outcome, _)| *outcome).ok_or_else(|| UnknownOutcome(text.to_owned()))
    }
}

serde_as_text!(RunOutcome);

/// The result of a run, as its supervisor found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunResult {
    /// How the run ended.
    pub outcome: RunOutcome,
    /// A sentence where the outcome needs one, such as what failed.
    pub reason: Option<String>,
    /// Whether Puppet's report says that it was a noop run, because the event asked for it or because of the node's
    /// own settings.
    pub reported_noop: bool,
    /// When the run started, by this node's clock.
    pub started_at: Timestamp,
    /// When the run ended, by this node's clock.
    pub finished_at: Timestamp,
}

/// A run that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletedRun {
    /// The run's id.
    pub run_id: RunId,
    /// Whether Puppet only reported what it would do.
    pub noop: bool,
    /// How the run ended.
    pub result: RunResult,
}

impl CompletedRun {
    /// A run with its result. It counts as a noop run if its events asked for noop or if Puppet reported noop.
    pub fn new(run_id: RunId, asked_noop: bool, result: RunResult) -> Self {
        Self { run_id, noop: asked_noop || result.reported_noop, result }
    }
}
