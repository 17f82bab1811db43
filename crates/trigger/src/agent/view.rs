//! What `trigger queue` is told by a running agent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trigger_core::identity::EventId;
use trigger_core::queue::{Cause, Queue};

use super::AgentSettings;

/// What `trigger queue` shows of a running agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct QueueView {
    pub(crate) certname: String,
    pub(crate) backend: String,
    /// Absent when the backend is watched.
    pub(crate) disconnected: Option<String>,
    /// Why no run may start.
    pub(crate) blocked: Option<String>,
    pub(crate) running: Option<RunningView>,
    pub(crate) waiting: Vec<WaitingView>,
    pub(crate) held: Vec<HeldView>,
    /// Deliveries in the backend that this agent cannot use.
    pub(crate) unreadable: Vec<UnreadableView>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunningView {
    pub(crate) run_id: String,
    pub(crate) started_at_unix_ms: u64,
    pub(crate) causes: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WaitingView {
    pub(crate) event_id: String,
    pub(crate) trigger: String,
    pub(crate) origin: String,
    pub(crate) tags: Vec<String>,
    pub(crate) noop: bool,
    /// When its run is tried again after one that came to nothing.
    pub(crate) retry_at_unix_ms: Option<u64>,
    /// Why that one came to nothing, or why no run may start yet.
    pub(crate) reason: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HeldView {
    pub(crate) event_id: String,
    /// Absent where the event is too new to be read.
    pub(crate) trigger: Option<String>,
    pub(crate) origin: Option<String>,
    pub(crate) reason: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct UnreadableView {
    pub(crate) key: String,
    pub(crate) reason: String,
}

impl QueueView {
    /// The view of a queue as it is now.
    pub(super) fn of(
        settings: &AgentSettings,
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
            backend: settings.backend.clone(),
            disconnected,
            blocked: queue.blocked().map(str::to_owned),
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
