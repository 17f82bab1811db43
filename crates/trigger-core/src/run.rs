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

/// What Puppet's report says of changes and of pending ones; absent where there is no report, or one that does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drift {
    /// Whether resources differ from the catalog and were left as they are, because of noop.
    pub noop_pending: Option<bool>,
    /// Whether something was changed. A noop run changes the resources that have `noop => false`.
    pub really_changed: Option<bool>,
}

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
    /// What the report says of changes and of pending ones.
    pub drift: Drift,
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
    /// The outcome in words, with what a noop run did and what noop left pending.
    pub fn sentence(&self) -> String {
        let Drift { noop_pending, really_changed } = self.result.drift;
        let notes = [
            self.noop.then_some("noop"),
            (self.noop && really_changed == Some(true)).then_some("really changed"),
            (noop_pending == Some(true)).then_some("changes pending"),
        ];
        let notes: Vec<&str> = notes.into_iter().flatten().collect();
        let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
        format!("{}{notes}", self.result.outcome)
    }

    /// A run with its result. It counts as a noop run if its events asked for noop or if Puppet reported noop.
    pub fn new(run_id: RunId, asked_noop: bool, result: RunResult) -> Self {
        Self { run_id, noop: asked_noop || result.reported_noop, result }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_in_words_says_what_noop_did() {
        let at = Timestamp::from_unix_ms(0);
        let words = |outcome, noop, noop_pending, really_changed| {
            let drift = Drift { noop_pending, really_changed };
            let result = RunResult {
                outcome,
                reason: None,
                reported_noop: noop,
                drift,
                started_at: at,
                finished_at: at,
            };
            CompletedRun::new(RunId::from_uuid(uuid::Uuid::nil()), false, result).sentence()
        };
        let (unchanged, changed) = (RunOutcome::Unchanged, RunOutcome::Changed);
        assert_eq!(words(unchanged, false, Some(false), Some(false)), "unchanged");
        assert_eq!(words(unchanged, false, Some(true), Some(false)), "unchanged (changes pending)");
        assert_eq!(words(changed, false, None, Some(true)), "changed");
        assert_eq!(words(unchanged, true, None, None), "unchanged (noop)");
        assert_eq!(words(unchanged, true, Some(true), Some(false)), "unchanged (noop, changes pending)");
        assert_eq!(
            words(changed, true, Some(true), Some(true)),
            "changed (noop, really changed, changes pending)"
        );
    }
}
