//! What `trigger queue` is told by a running agent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trigger_core::identity::EventId;
use trigger_core::queue::Queue;
use trigger_core::run::record::Cause;

use super::AgentSettings;
use crate::host::Host;

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

impl QueueView {
    /// The view of a queue as it is now.
    pub(super) fn of<H: Host>(
        settings: &AgentSettings<H>,
        queue: &Queue,
        disconnected: Option<String>,
        unreadable: &BTreeMap<String, String>,
    ) -> Self {
        let activity = queue.activity();
        let retry =
            |event: EventId| activity.retrying.iter().find(|retrying| retrying.causes.contains(&event));
        // The activity lists only so many.
        let held: BTreeMap<EventId, &str> = queue.held().collect();
        let known: BTreeMap<EventId, &Cause> =
            queue.waiting_causes().map(|cause| (cause.event.id, cause)).collect();
        Self {
            certname: settings.certname.to_string(),
            backend: settings.backend.to_string(),
            disconnected,
            blocked: queue.blocked_reason().map(str::to_owned),
            running: activity.running.as_ref().map(|running| RunningView {
                run_id: running.run_id.to_string(),
                started_at_unix_ms: running.started_at.as_unix_ms(),
                causes: queue.running_causes().iter().map(|cause| cause.event.id.to_string()).collect(),
            }),
            waiting: queue
                .waiting_causes()
                // What waits for a person is told below.
                .filter(|cause| !held.contains_key(&cause.event.id))
                .map(|cause| WaitingView {
                    event_id: cause.event.id.to_string(),
                    trigger: cause.event.trigger.to_string(),
                    origin: cause.event.origin.to_string(),
                    tags: cause.event.options.tags.iter().map(ToString::to_string).collect(),
                    noop: cause.event.options.noop,
                    retry_at_unix_ms: retry(cause.event.id).map(|retrying| retrying.at.as_unix_ms()),
                    reason: retry(cause.event.id)
                        .map(|retrying| &retrying.reason)
                        .or(activity.delayed.as_ref().map(|delayed| &delayed.reason))
                        .cloned(),
                })
                .collect(),
            held: held
                .iter()
                .map(|(event, reason)| {
                    let cause = known.get(event);
                    HeldView {
                        event_id: event.to_string(),
                        trigger: cause.map(|cause| cause.event.trigger.to_string()),
                        origin: cause.map(|cause| cause.event.origin.to_string()),
                        reason: (*reason).to_owned(),
                    }
                })
                .collect(),
            unreadable: unreadable
                .iter()
                .map(|(key, reason)| UnreadableView { key: key.clone(), reason: reason.clone() })
                .collect(),
        }
    }
}
