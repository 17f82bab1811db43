//! The record that each node keeps of itself in the backend: its registration, its claim and its present activity.

use std::collections::BTreeMap;

use crate::identity::{EventId, GroupName, Revision, RunId};
use crate::time::Timestamp;

/// An agent's registration, claim and present activity: the value under `nodes/<certname>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Random, new with every start of an agent; who holds the claim on the certname.
    pub instance: String,
    /// Names the file lock that the instance holds for as long as it lives: whoever holds the lock of this
    /// name now knows that the instance is dead.
    pub lock: Option<String>,
    /// The instance has stopped and left nothing behind: the claim is anybody's.
    pub released: bool,
    /// Where the instance runs, for people: what a second claimant is told.
    pub location: String,
    /// Grows with every renewal; a contender watches it for change, never a clock.
    pub renewals: u64,
    /// The agent's version of Trigger.
    pub version: String,
    /// When it was last renewed, by the node's clock; for people.
    pub seen_at: Timestamp,
    /// The groups it belongs to, and the revision at which it had joined: earlier events are not its own.
    pub groups: BTreeMap<GroupName, Revision>,
    /// What it does now.
    pub activity: Activity,
}

/// What an agent does and what keeps it from doing more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Activity {
    /// The run in progress.
    pub running: Option<Running>,
    /// Deliveries that wait for a try after one that could not happen.
    pub retrying: Vec<Retrying>,
    /// Deliveries that wait because enough runs have started within a minute.
    pub delayed: Option<Delayed>,
    /// Deliveries that wait for a person.
    pub held: Vec<HeldDelivery>,
}

/// A run in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its id.
    pub run_id: RunId,
    /// By the node's clock.
    pub started_at: Timestamp,
    /// The events it covers.
    pub causes: Vec<EventId>,
}

/// Deliveries whose run could not happen and is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retrying {
    /// By the node's clock.
    pub at: Timestamp,
    /// Why the last try came to nothing.
    pub reason: String,
    /// The events that wait.
    pub causes: Vec<EventId>,
}

/// Deliveries whose run waits for the limit on runs, `runs_per_minute`, and for nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delayed {
    /// When their run may start, by the node's clock.
    pub at: Timestamp,
    /// The same as a sentence.
    pub reason: String,
    /// The events that wait.
    pub causes: Vec<EventId>,
}

/// A delivery that waits for a person: the agent is disabled, or too old for the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldDelivery {
    /// Which event.
    pub event: EventId,
    /// What it waits for.
    pub reason: String,
}
