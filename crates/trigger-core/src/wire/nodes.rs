//! Registrations of agents.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Stored, WireError, optional_sentence, read, sentence, write};
use crate::identity::{Certname, EventId, GroupName, Revision, RunId};
use crate::node::{
    Activity, Delayed, HeldDelivery, HeldNode, HoldReport, NodeRecord, RefusedHold, Retrying, Running,
    Waiting,
};
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold: Option<HoldReportForm>,
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

/// What the node knows of orders to hold it.
#[derive(Serialize, Deserialize)]
struct HoldReportForm {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accepted: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<HeldNodeForm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<RefusedHoldForm>,
}

#[derive(Serialize, Deserialize)]
struct HeldNodeForm {
    until_unix_ms: Timestamp,
    by: Certname,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_sentence")]
    reason: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct RefusedHoldForm {
    number: u64,
    by: Certname,
    #[serde(deserialize_with = "sentence")]
    reason: String,
}

impl From<HoldReport> for HoldReportForm {
    fn from(HoldReport { accepted, held, refused }: HoldReport) -> Self {
        let held =
            held.map(|HeldNode { until, by, reason }| HeldNodeForm { until_unix_ms: until, by, reason });
        let refused =
            refused.map(|RefusedHold { number, by, reason }| RefusedHoldForm { number, by, reason });
        Self { accepted, held, refused }
    }
}

impl From<HoldReportForm> for HoldReport {
    fn from(HoldReportForm { accepted, held, refused }: HoldReportForm) -> Self {
        let held = held.map(|HeldNodeForm { until_unix_ms, by, reason }| HeldNode {
            until: until_unix_ms,
            by,
            reason,
        });
        let refused =
            refused.map(|RefusedHoldForm { number, by, reason }| RefusedHold { number, by, reason });
        Self { accepted, held, refused }
    }
}

impl Stored for NodeRecord {
    const WHAT: &'static str = "a node's record";

    fn to_body(&self) -> String {
        let Activity { running, retrying, delayed, waiting, held, hold } = self.activity.clone();
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
            hold: hold.map(HoldReportForm::from),
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
                hold: form.hold.map(HoldReport::from),
            },
        })
    }
}
