//! Registrations of agents.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Stored, WireError, read, sentence, write};
use crate::identity::{EventId, GroupName, Revision, RunId};
use crate::node::{Activity, Delayed, HeldDelivery, NodeRecord, Retrying, Running, Waiting};
use crate::time::Timestamp;

#[derive(Serialize, Deserialize)]
struct NodeForm {
    instance: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lock: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    released: bool,
    #[serde(deserialize_with = "sentence")]
    location: String,
    renewals: u64,
    #[serde(deserialize_with = "sentence")]
    version: String,
    seen_at_unix_ms: Timestamp,
    groups: BTreeMap<GroupName, Revision>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    running: Option<RunningForm>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    retrying: Vec<WaitingForm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delayed: Option<WaitingForm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    waiting: Option<BlockedForm>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    held: Vec<HeldForm>,
}

#[derive(Serialize, Deserialize)]
struct RunningForm {
    run_id: RunId,
    started_at_unix_ms: Timestamp,
    causes: Vec<EventId>,
}

/// Deliveries that wait until a certain time.
#[derive(Serialize, Deserialize)]
struct WaitingForm {
    at_unix_ms: Timestamp,
    #[serde(deserialize_with = "sentence")]
    reason: String,
    causes: Vec<EventId>,
}

/// Deliveries that wait for as long as a blocker lasts.
#[derive(Serialize, Deserialize)]
struct BlockedForm {
    #[serde(deserialize_with = "sentence")]
    reason: String,
    causes: Vec<EventId>,
}

#[derive(Serialize, Deserialize)]
struct HeldForm {
    event: EventId,
    #[serde(deserialize_with = "sentence")]
    reason: String,
}

impl Stored for NodeRecord {
    const WHAT: &'static str = "a node's record";

    fn to_body(&self) -> String {
        let Activity { running, retrying, delayed, waiting, held } = self.activity.clone();
        let running = running.map(|Running { run_id, started_at, causes }| RunningForm {
            run_id,
            started_at_unix_ms: started_at,
            causes,
        });
        let retrying = retrying.into_iter().map(|Retrying { at, reason, causes }| WaitingForm {
            at_unix_ms: at,
            reason,
            causes,
        });
        let delayed =
            delayed.map(|Delayed { at, reason, causes }| WaitingForm { at_unix_ms: at, reason, causes });
        let waiting = waiting.map(|Waiting { reason, causes }| BlockedForm { reason, causes });
        let held = held.into_iter().map(|HeldDelivery { event, reason }| HeldForm { event, reason });
        write(&NodeForm {
            instance: self.instance.clone(),
            lock: self.lock.clone(),
            released: self.released,
            location: self.location.clone(),
            renewals: self.renewals,
            version: self.version.clone(),
            seen_at_unix_ms: self.seen_at,
            groups: self.groups.clone(),
            running,
            retrying: retrying.collect(),
            delayed,
            waiting,
            held: held.collect(),
        })
    }

    fn from_body(body: &str) -> Result<Self, WireError> {
        let form: NodeForm = read(Self::WHAT, body)?;
        let running = form.running.map(|RunningForm { run_id, started_at_unix_ms, causes }| Running {
            run_id,
            started_at: started_at_unix_ms,
            causes,
        });
        let retrying = form.retrying.into_iter().map(|WaitingForm { at_unix_ms, reason, causes }| Retrying {
            at: at_unix_ms,
            reason,
            causes,
        });
        let delayed = form.delayed.map(|WaitingForm { at_unix_ms, reason, causes }| Delayed {
            at: at_unix_ms,
            reason,
            causes,
        });
        let waiting = form.waiting.map(|BlockedForm { reason, causes }| Waiting { reason, causes });
        let held = form.held.into_iter().map(|HeldForm { event, reason }| HeldDelivery { event, reason });
        Ok(Self {
            instance: form.instance,
            lock: form.lock,
            released: form.released,
            location: form.location,
            renewals: form.renewals,
            version: form.version,
            seen_at: form.seen_at_unix_ms,
            groups: form.groups,
            activity: Activity {
                running,
                retrying: retrying.collect(),
                delayed,
                waiting,
                held: held.collect(),
            },
        })
    }
}
