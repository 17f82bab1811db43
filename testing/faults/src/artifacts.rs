//! Everything that a trial left behind, in the parsed form that the checker reads.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::journal::{Fire, Hit, Moment, RunEnd, RunStart};

/// The fires, the runs, the faults, and the end of every event.
#[derive(Debug, Clone, Default)]
pub(crate) struct Artifacts {
    /// Each group with its members, which do not change during a trial.
    pub(crate) groups: BTreeMap<String, BTreeSet<String>>,
    /// Every `trigger fire`, including those inside runs.
    pub(crate) fires: Vec<Fire>,
    /// Every start of a run, including a repeated start of the same run.
    pub(crate) runs: Vec<Run>,
    /// The records that the nodes kept of completed runs, by the run's id, including runs that wrote nothing to their
    /// log.
    pub(crate) records: BTreeMap<String, Record>,
    /// The kills that hit a run.
    pub(crate) hits: Vec<Hit>,
    /// The answers of `trigger status` at the end, by event. An event that is absent was unknown to the backend.
    pub(crate) statuses: BTreeMap<String, Vec<Target>>,
    /// The faults that happened to the backend and the nodes.
    pub(crate) windows: Vec<Window>,
    /// The keys that a hub no longer had after it was restored from a backup.
    pub(crate) forgotten: BTreeSet<String>,
    /// Sentences about processes that ended, or panicked, without a fault.
    pub(crate) deaths: Vec<String>,
    /// Sentences about what should be gone at the end: spooled events, pending deliveries, …
    pub(crate) leftovers: Vec<String>,
    /// The origin of the [`Moment`]s, in nanoseconds since 1970.
    pub(crate) epoch: u64,
}

/// A run according to its node's directory: its record and its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// The node.
    pub(crate) certname: String,
    /// The events it covers.
    pub(crate) causes: Vec<String>,
    /// Its outcome.
    pub(crate) outcome: String,
    /// The time at which its record was written.
    pub(crate) started: Moment,
}

/// A run according to its own log.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// Its beginning.
    pub(crate) start: RunStart,
    /// Its end, if it reached one.
    pub(crate) end: Option<RunEnd>,
}

/// One line of `trigger status EVENT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    /// The node.
    pub(crate) certname: String,
    /// The delivery's state.
    pub(crate) state: String,
    /// The outcome of its run.
    pub(crate) outcome: Option<String>,
    /// Its run.
    pub(crate) run_id: Option<String>,
    /// The reason, as a sentence.
    pub(crate) reason: Option<String>,
}

/// A fault that happened.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    /// The name of its kind.
    pub(crate) kind: String,
    /// The node that it happened to; absent for a fault of the backend.
    pub(crate) node: Option<String>,
    /// The time at which it began.
    pub(crate) from: Moment,
    /// The time at which it was healed.
    pub(crate) to: Moment,
}

impl Target {
    /// Returns whether the delivery is in a terminal state.
    pub(crate) fn has_ended(&self) -> bool {
        ["done", "failed", "expired", "refused", "suppressed", "superseded", "cancelled"]
            .contains(&self.state.as_str())
    }
}

impl Artifacts {
    /// Returns the nodes that a fire was for.
    pub(crate) fn targets_of(&self, fire: &Fire) -> BTreeSet<String> {
        let members = fire.groups.iter().filter_map(|group| self.groups.get(group)).flatten();
        fire.hosts.iter().chain(members).cloned().collect()
    }

    /// Returns the state of an event at a node.
    pub(crate) fn target(&self, event: &str, certname: &str) -> Option<&Target> {
        self.statuses.get(event)?.iter().find(|target| target.certname == certname)
    }
}
