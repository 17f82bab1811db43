//! The record of a run: what it covers and how it is started.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::event::{Event, RunOptions, Target};
use crate::identity::{Certname, RunId};
use crate::time::Timestamp;

/// An event that a run on this node shall cover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The event; its targets do not matter here.
    pub event: Event,
    /// The ways it came.
    pub addressed_as: BTreeSet<Target>,
    /// Runs covering it that were interrupted: one is repeated, two are not.
    pub interruptions: u32,
}

/// What a run covers and how it is started: written and synced before its supervisor exists, locked by
/// that supervisor until the run has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRecord {
    /// Puppet's job id.
    pub run_id: RunId,
    /// The node.
    pub certname: Certname,
    /// The run command, in words, as configured.
    pub command: Vec<String>,
    /// What this run is asked to do: the union of its causes' options.
    pub options: RunOptions,
    /// The run is ended after this long.
    pub timeout: Duration,
    /// When the record was written, by this node's clock.
    pub started_at: Timestamp,
    /// What it covers.
    pub causes: Vec<Cause>,
    /// Environment for the run, so that a `trigger fire` inside it finds this agent.
    pub environment: BTreeMap<String, String>,
}
