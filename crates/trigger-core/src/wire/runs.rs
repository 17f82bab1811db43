//! What a node keeps of its runs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::events::EventForm;
use super::{Stored, WireError, decode, encode, sentence, texts, valid, valid_all};
use crate::event::{Event, RunOptions, Target, Targets};
use crate::identity::{Certname, GroupName};
use crate::run::RunResult;
use crate::run::record::{Cause, RunRecord};
use crate::time::Timestamp;

#[derive(Serialize, Deserialize)]
pub(super) struct RunResultForm {
    outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    reported_noop: bool,
    started_at_unix_ms: u64,
    finished_at_unix_ms: u64,
}

impl RunResultForm {
    pub(super) fn of(result: &RunResult) -> Self {
        Self {
            outcome: result.outcome.to_string(),
            reason: result.reason.clone(),
            reported_noop: result.reported_noop,
            started_at_unix_ms: result.started_at.as_unix_ms(),
            finished_at_unix_ms: result.finished_at.as_unix_ms(),
        }
    }

    pub(super) fn read(self) -> Result<RunResult, WireError> {
        Ok(RunResult {
            outcome: valid("an outcome", &self.outcome)?,
            reason: self.reason.map(sentence),
            reported_noop: self.reported_noop,
            started_at: Timestamp::from_unix_ms(self.started_at_unix_ms),
            finished_at: Timestamp::from_unix_ms(self.finished_at_unix_ms),
        })
    }
}

impl Stored for RunResult {
    fn to_wire(&self) -> String {
        encode(RunResultForm::of(self))
    }

    fn from_wire(text: &str) -> Result<Self, WireError> {
        decode::<RunResultForm>("a run's result", text)?.read()
    }
}

#[derive(Serialize, Deserialize)]
struct RunRecordForm {
    run_id: String,
    certname: String,
    command: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    noop: bool,
    timeout_seconds: u64,
    started_at_unix_ms: u64,
    causes: Vec<CauseForm>,
    environment: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct CauseForm {
    event: EventForm,
    #[serde(default)]
    to_host: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    to_groups: Vec<String>,
    #[serde(default)]
    interruptions: u32,
}

impl Stored for RunRecord {
    fn to_wire(&self) -> String {
        let cause = |cause: &Cause| CauseForm {
            event: EventForm::of(&Event { targets: Targets::default(), ..cause.event.clone() }),
            to_host: cause.addressed_as.iter().any(Target::is_node),
            to_groups: cause
                .addressed_as
                .iter()
                .filter_map(|source| match source {
                    Target::Node(_) => None,
                    Target::Group(group) => Some(group.to_string()),
                })
                .collect(),
            interruptions: cause.interruptions,
        };
        encode(RunRecordForm {
            run_id: self.run_id.to_string(),
            certname: self.certname.to_string(),
            command: self.command.clone(),
            tags: texts(&self.options.tags),
            noop: self.options.noop,
            timeout_seconds: self.timeout.as_secs(),
            started_at_unix_ms: self.started_at.as_unix_ms(),
            causes: self.causes.iter().map(cause).collect(),
            environment: self.environment.clone(),
        })
    }

    fn from_wire(text: &str) -> Result<Self, WireError> {
        const WHAT: &str = "a run record";
        let form: RunRecordForm = decode(WHAT, text)?;
        let certname: Certname = valid(WHAT, &form.certname)?;
        let cause = |form: CauseForm| {
            let groups: Vec<GroupName> = valid_all(WHAT, &form.to_groups)?;
            let node = form.to_host.then(|| Target::Node(certname.clone()));
            Ok::<_, WireError>(Cause {
                event: form.event.read()?,
                addressed_as: node.into_iter().chain(groups.into_iter().map(Target::Group)).collect(),
                interruptions: form.interruptions,
            })
        };
        Ok(Self {
            run_id: valid(WHAT, &form.run_id)?,
            command: form.command,
            options: RunOptions { tags: valid_all(WHAT, &form.tags)?, noop: form.noop },
            timeout: Duration::from_secs(form.timeout_seconds),
            started_at: Timestamp::from_unix_ms(form.started_at_unix_ms),
            causes: form.causes.into_iter().map(cause).collect::<Result<_, _>>()?,
            certname,
            environment: form.environment,
        })
    }
}
