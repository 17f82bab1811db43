//! The agent's reply to `trigger queue`, part of the protocol on its socket. An agent and a command
//! of different versions may meet there.

use serde::{Deserialize, Serialize};
use trigger_core::time::Timestamp;

/// The run in progress and the deliveries of a running agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueueView {
    /// The certname that the agent serves.
    pub certname: String,
    /// The URL of its backend.
    pub backend: String,
    /// Why the backend is not watched; absent when it is.
    pub disconnected: Option<String>,
    /// Whether the agent has the right to act for its certname.
    #[serde(default)]
    pub holds_claim: bool,
    /// Why no run may start.
    pub blocked: Option<String>,
    /// What keeps runs from starting: the name of the blocker.
    #[serde(default)]
    pub blocked_by: Option<String>,
    /// The hold that is in force, whether or not another blocker comes before it.
    #[serde(default)]
    pub hold: Option<HoldView>,
    /// The run in progress.
    pub running: Option<RunningView>,
    /// The deliveries that wait for a run: first those of the next real run, then those of the next noop run.
    pub waiting: Vec<WaitingView>,
    /// The deliveries that wait for an operator.
    pub held: Vec<HeldView>,
    /// Deliveries in the backend that this agent cannot use.
    pub unreadable: Vec<UnreadableView>,
}

/// An operator's hold of the node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HoldView {
    /// When it ends by itself, in milliseconds since 1970.
    pub until_unix_ms: u64,
    /// The certname of the node that has ordered it.
    pub by: String,
    /// Why, in the words of an operator.
    pub reason: Option<String>,
}

impl HoldView {
    /// Until when and why the node is held, for people.
    pub fn sentence(&self) -> String {
        let until = Timestamp::from_unix_ms(self.until_unix_ms).date_and_time();
        let reason = self.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("held until {until} by {}{reason}", self.by)
    }
}

/// A run in progress.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunningView {
    /// The run's id.
    pub run_id: String,
    /// When the run started, in milliseconds since 1970.
    pub started_at_unix_ms: u64,
    /// The ids of the events that the run covers.
    pub causes: Vec<String>,
}

/// A delivery that waits for a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WaitingView {
    /// The event's id.
    pub event_id: String,
    /// The name of the event's trigger.
    pub trigger: String,
    /// The certname of the node that fired the event.
    pub origin: String,
    /// The tags to which the event restricts the run; empty for a whole run.
    pub tags: Vec<String>,
    /// Whether the event asks for a run in noop mode.
    pub noop: bool,
    /// The environment of Puppet's that the event asks for; absent: the node's own.
    pub environment: Option<String>,
    /// When the delivery's run is tried again, in milliseconds since 1970, if one could not happen.
    pub retry_at_unix_ms: Option<u64>,
    /// Why that run could not happen, or why no run may start yet.
    pub reason: Option<String>,
}

/// A delivery that waits for an operator.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeldView {
    /// The event's id.
    pub event_id: String,
    /// The name of the event's trigger; absent if this version cannot read the event.
    pub trigger: Option<String>,
    /// The certname of the node that fired the event; absent if this version cannot read the event.
    pub origin: Option<String>,
    /// Why the delivery is held.
    pub reason: String,
}

/// A delivery that the agent cannot use and leaves in the backend.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnreadableView {
    /// The delivery's key in the backend.
    pub key: String,
    /// Why it cannot be read.
    pub reason: String,
}
