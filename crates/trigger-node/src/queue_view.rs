//! What a running agent reports to `trigger queue`.

use serde::{Deserialize, Serialize};

/// What `trigger queue` shows of a running agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QueueView {
    pub certname: String,
    pub backend: String,
    /// Absent when the backend is watched.
    pub disconnected: Option<String>,
    /// Why no run may start.
    pub blocked: Option<String>,
    pub running: Option<RunningView>,
    pub waiting: Vec<WaitingView>,
    pub held: Vec<HeldView>,
    /// Deliveries in the backend that this agent cannot use.
    pub unreadable: Vec<UnreadableView>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunningView {
    pub run_id: String,
    pub started_at_unix_ms: u64,
    pub causes: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WaitingView {
    pub event_id: String,
    pub trigger: String,
    pub origin: String,
    pub tags: Vec<String>,
    pub noop: bool,
    /// When its run is tried again after one that came to nothing.
    pub retry_at_unix_ms: Option<u64>,
    /// Why that one came to nothing, or why no run may start yet.
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HeldView {
    pub event_id: String,
    /// Absent where the event is too new to be read.
    pub trigger: Option<String>,
    pub origin: Option<String>,
    pub reason: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnreadableView {
    pub key: String,
    pub reason: String,
}
