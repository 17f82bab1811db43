//! All that a trial left behind, as the checker takes it: parsed, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::journal::{Fire, Hit, Moment, RunEnd, RunStart};

/// What was fired, what ran, what was done to it, and how it all ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    /// Each group with its members; none changed during the trial.
    pub(crate) groups: BTreeMap<String, BTreeSet<String>>,
    /// Every `trigger fire`, those inside runs too.
    pub(crate) fires: Vec<Fire>,
    /// Every run that began, as often as it did.
    pub(crate) runs: Vec<Run>,
    /// What the nodes kept of the runs that ended, by the run's id; of those too that never said a word.
    pub(crate) records: BTreeMap<String, Record>,
    /// Kills that hit a run.
    pub(crate) hits: Vec<Hit>,
    /// What `trigger status` said of an event at the end; an event that is not listed was not known.
    pub(crate) statuses: BTreeMap<String, Vec<Target>>,
    /// What was done to the backend and the nodes.
    pub(crate) windows: Vec<Window>,
    /// The keys that a hub no longer had after it was restored from a backup.
    pub(crate) forgotten: BTreeSet<String>,
    /// Sentences about what ended, or panicked, although no fault was injected into it.
    pub(crate) deaths: Vec<String>,
    /// Sentences about what should not be there any more: spooled events, pending deliveries, …
    pub(crate) leftovers: Vec<String>,
    /// Nanoseconds since 1970 when [`Moment`]s began to count.
    pub(crate) epoch: u64,
}

/// A run as in its node's directory: its record and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// The node.
    pub(crate) certname: String,
    /// The events it covers.
    pub(crate) causes: Vec<String>,
    /// How it ended.
    pub(crate) outcome: String,
    /// When its record was written.
    pub(crate) started: Moment,
}

/// A run as in its own log.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// Its beginning.
    pub(crate) start: RunStart,
    /// Its end, if it came to it.
    pub(crate) end: Option<RunEnd>,
}

/// One line of `trigger status EVENT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    /// The node.
    pub(crate) certname: String,
    /// The delivery's state.
    pub(crate) state: String,
    /// How its run ended.
    pub(crate) outcome: Option<String>,
    /// Its run.
    pub(crate) run_id: Option<String>,
    /// A sentence.
    pub(crate) reason: Option<String>,
}

/// A fault that happened.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    /// Its name.
    pub(crate) kind: String,
    /// The node it happened to; none where it was the backend.
    pub(crate) node: Option<String>,
    /// From when.
    pub(crate) from: Moment,
    /// Until when: then it was healed.
    pub(crate) to: Moment,
}

impl Target {
    /// Whether nothing more will happen.
    pub(crate) fn has_ended(&self) -> bool {
        ["done", "failed", "expired", "refused", "suppressed", "superseded"].contains(&self.state.as_str())
    }
}

impl Evidence {
    /// The nodes that a fire was for.
    pub(crate) fn targets_of(&self, fire: &Fire) -> BTreeSet<String> {
        let members = fire.groups.iter().filter_map(|group| self.groups.get(group)).flatten();
        fire.hosts.iter().chain(members).cloned().collect()
    }

    /// Where an event stands at a node.
    pub(crate) fn target(&self, event: &str, certname: &str) -> Option<&Target> {
        self.statuses.get(event)?.iter().find(|target| target.certname == certname)
    }
}
