//! The evidence by what the checks ask for.

use std::collections::{BTreeMap, BTreeSet};

use crate::artifacts::Run;
use crate::journal::{Fire, Moment};

/// All of a trial, indexed.
pub(super) struct Index<'a> {
    /// By event; those too that were killed before they could answer, and fired all the same.
    pub(super) fires: BTreeMap<&'a str, &'a Fire>,
    /// By id; of those that began twice, the last.
    pub(super) runs: BTreeMap<&'a str, &'a Run>,
    pub(super) hits: BTreeSet<&'a str>,
    /// How the runs ended, as their results say.
    pub(super) outcomes: BTreeMap<&'a str, &'a str>,
    /// The runs at a node that cover an event, by (event, certname), in the order of their starts.
    pub(super) covering: BTreeMap<(&'a str, &'a str), Vec<Cover<'a>>>,
}

impl<'a> Index<'a> {
    pub(super) fn covers<'b>(&'b self, event: &'b str, certname: &'b str) -> &'b [Cover<'b>] {
        self.covering.get(&(event, certname)).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether the run's own result says that something ended it.
    pub(super) fn was_interrupted(&self, run: &str) -> bool {
        self.outcomes.get(run) == Some(&"interrupted")
    }
}

/// A run that covers an event.
pub(super) struct Cover<'a> {
    /// Its id.
    pub(super) run: &'a str,
    /// When it started, or its record was written.
    pub(super) at: Moment,
    /// What it said itself.
    pub(super) logged: Option<&'a Run>,
}
