//! Registrations of agents.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Stored, WireError, decode, encode, sentence, texts, valid, valid_all};
use crate::identity::{GroupName, Revision};
use crate::node::{Activity, Delayed, HeldDelivery, NodeRecord, Retrying, Running};
use crate::time::Timestamp;

#[derive(Serialize, Deserialize)]
struct NodeForm {
    instance: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lock: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    released: bool,
    location: String,
    renewals: u64,
    version: String,
    seen_at_unix_ms: u64,
    groups: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    running: Option<RunningForm>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    retrying: Vec<RetryingForm>,
    /// The same fields: when, why, what waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delayed: Option<RetryingForm>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    held: Vec<HeldForm>,
}

#[derive(Serialize, Deserialize)]
struct RunningForm {
    run_id: String,
    started_at_unix_ms: u64,
    causes: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct RetryingForm {
    at_unix_ms: u64,
    reason: String,
    causes: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct HeldForm {
    event: String,
    reason: String,
}

impl Stored for NodeRecord {
    fn to_wire(&self) -> String {
        let activity = &self.activity;
        encode(NodeForm {
            instance: self.instance.clone(),
            lock: self.lock.clone(),
            released: self.released,
            location: self.location.clone(),
            renewals: self.renewals,
            version: self.version.clone(),
            seen_at_unix_ms: self.seen_at.as_unix_ms(),
            groups: self.groups.iter().map(|(group, joined)| (group.to_string(), joined.0)).collect(),
            running: activity.running.as_ref().map(|run| RunningForm {
                run_id: run.run_id.to_string(),
                started_at_unix_ms: run.started_at.as_unix_ms(),
                causes: texts(&run.causes),
            }),
            retrying: activity
                .retrying
                .iter()
                .map(|retrying| RetryingForm {
                    at_unix_ms: retrying.at.as_unix_ms(),
                    reason: retrying.reason.clone(),
                    causes: texts(&retrying.causes),
                })
                .collect(),
            delayed: activity.delayed.as_ref().map(|delayed| RetryingForm {
                at_unix_ms: delayed.at.as_unix_ms(),
                reason: delayed.reason.clone(),
                causes: texts(&delayed.causes),
            }),
            held: activity
                .held
                .iter()
                .map(|held| HeldForm { event: held.event.to_string(), reason: held.reason.clone() })
                .collect(),
        })
    }

    fn from_wire(text: &str) -> Result<Self, WireError> {
        const WHAT: &str = "a node's record";
        let form: NodeForm = decode(WHAT, text)?;
        let joined = |(group, revision): (String, u64)| {
            Ok::<(GroupName, Revision), WireError>((valid(WHAT, &group)?, Revision(revision)))
        };
        let running = form.running.map(|run| {
            Ok::<_, WireError>(Running {
                run_id: valid(WHAT, &run.run_id)?,
                started_at: Timestamp::from_unix_ms(run.started_at_unix_ms),
                causes: valid_all(WHAT, &run.causes)?,
            })
        });
        let retrying = form.retrying.into_iter().map(|retrying| {
            Ok::<_, WireError>(Retrying {
                at: Timestamp::from_unix_ms(retrying.at_unix_ms),
                reason: sentence(retrying.reason),
                causes: valid_all(WHAT, &retrying.causes)?,
            })
        });
        let delayed = form.delayed.map(|delayed| {
            Ok::<_, WireError>(Delayed {
                at: Timestamp::from_unix_ms(delayed.at_unix_ms),
                reason: sentence(delayed.reason),
                causes: valid_all(WHAT, &delayed.causes)?,
            })
        });
        let held = form.held.into_iter().map(|held| {
            Ok::<_, WireError>(HeldDelivery {
                event: valid(WHAT, &held.event)?,
                reason: sentence(held.reason),
            })
        });
        Ok(Self {
            instance: form.instance,
            lock: form.lock,
            released: form.released,
            location: sentence(form.location),
            renewals: form.renewals,
            version: sentence(form.version),
            seen_at: Timestamp::from_unix_ms(form.seen_at_unix_ms),
            groups: form.groups.into_iter().map(joined).collect::<Result<_, _>>()?,
            activity: Activity {
                running: running.transpose()?,
                retrying: retrying.collect::<Result<_, _>>()?,
                delayed: delayed.transpose()?,
                held: held.collect::<Result<_, _>>()?,
            },
        })
    }
}
