//! The artifacts, indexed by what the checks look up.

use std::collections::{BTreeMap, BTreeSet};

use crate::artifacts::Run;
use crate::journal::{Fire, Moment};

/// All of a trial, indexed.
pub(super) struct Index<'a> {
    /// The fires by event, including fires that were killed before they could answer but fired all the same.
    pub(super) fires: BTreeMap<&'a str, &'a Fire>,
    /// The runs by id; of a run that began twice, the last start.
    pub(super) runs: BTreeMap<&'a str, &'a Run>,
    pub(super) hits: BTreeSet<&'a str>,
    /// The outcomes of the runs, according to their results.
    pub(super) outcomes: BTreeMap<&'a str, &'a str>,
    /// The runs at a node that cover an event, by (event, certname), in the order of their starts.
    pub(super) covering: BTreeMap<(&'a str, &'a str), Vec<Cover<'a>>>,
}

impl<'a> Index<'a> {
    pub(super) fn covers<'b>(&'b self, event: &'b str, certname: &'b str) -> &'b [Cover<'b>] {
        self.covering.get(&(event, certname)).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns whether the run's own result reports an interruption.
    pub(super) fn was_interrupted(&self, run: &str) -> bool {
        self.outcomes.get(run) == Some(&"interrupted")
    }
}

/// A run that covers an event.
pub(super) struct Cover<'a> {
    /// Its id.
    pub(super) run: &'a str,
    /// The time at which it started, or at which its record was written.
    pub(super) at: Moment,
    /// The run's own log, if it wrote one.
    pub(super) logged: Option<&'a Run>,
}
