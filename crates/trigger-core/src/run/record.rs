//! The record of a run: what it covers and how it is started.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::event::{Event, RunOptions, Target};
use crate::identity::{Certname, RunId};
use crate::signer::Signer;
use crate::time::Timestamp;

/// An event that a run on this node is to cover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The event. Its other targets do not matter here and are usually left empty.
    pub event: Event,
    /// The targets by which the event addresses this node: by its certname, through groups, or both. There is one
    /// delivery for each; all of them together are one cause.
    pub addressed_as: BTreeSet<Target>,
    /// How many runs that covered the event were interrupted. After the first, the event runs again; after the second,
    /// it has failed (C6).
    pub interruptions: u32,
    /// Whether the run starts although PuppetDB has not stored the catalog that the event was fired with. Another run
    /// follows when it has.
    pub without_catalog: bool,
    /// What is verified of the event's signature.
    pub signer: Signer,
}

/// What a run covers and how it is started. The record is written and synced before the run's supervisor exists, and
/// that supervisor holds a lock on it until the run has ended (C10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRecord {
    /// The run's id, which is also Puppet's job id.
    pub run_id: RunId,
    /// The node on which it runs.
    pub certname: Certname,
    /// The words of the run command, as configured.
    pub command: Vec<String>,
    /// How Puppet runs: the union of the options of its causes.
    pub options: RunOptions,
    /// The time after which the supervisor ends the run.
    pub timeout: Duration,
    /// When the record was written, by this node's clock.
    pub started_at: Timestamp,
    /// The events that it covers.
    pub causes: Vec<Cause>,
    /// Environment variables for the run, by which a `trigger fire` inside it finds this agent.
    pub environment: BTreeMap<String, String>,
}
