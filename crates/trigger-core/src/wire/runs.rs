//! The records and results of runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::events::EventForm;
use super::{Stored, WireError, optional_sentence, read, write};
use crate::event::{Event, RunOptions, Target, Targets};
use crate::identity::{Certname, Environment, GroupName, RunId, Tag};
use crate::run::record::{Cause, RunRecord};
use crate::run::{Drift, RunOutcome, RunResult};
use crate::signer::Signer;
use crate::time::Timestamp;

#[derive(Serialize, Deserialize)]
pub(super) struct RunResultForm {
    outcome: RunOutcome,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_sentence")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    reported_noop: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    noop_pending: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    really_changed: Option<bool>,
    started_at_unix_ms: Timestamp,
    finished_at_unix_ms: Timestamp,
}

impl RunResultForm {
    pub(super) fn of(result: RunResult) -> Self {
        Self {
            outcome: result.outcome,
            reason: result.reason,
            reported_noop: result.reported_noop,
            noop_pending: result.drift.noop_pending,
            really_changed: result.drift.really_changed,
            started_at_unix_ms: result.started_at,
            finished_at_unix_ms: result.finished_at,
        }
    }

    pub(super) fn read(self) -> RunResult {
        RunResult {
            outcome: self.outcome,
            reason: self.reason,
            reported_noop: self.reported_noop,
            drift: Drift { noop_pending: self.noop_pending, really_changed: self.really_changed },
            started_at: self.started_at_unix_ms,
            finished_at: self.finished_at_unix_ms,
        }
    }
}

impl Stored for RunResult {
    const WHAT: &'static str = "a run's result";

    fn to_body(&self) -> String {
        write(&RunResultForm::of(self.clone()))
    }

    fn from_body(body: &str) -> Result<Self, WireError> {
        read::<RunResultForm>(Self::WHAT, body).map(RunResultForm::read)
    }
}

#[derive(Serialize, Deserialize)]
struct RunRecordForm {
    run_id: RunId,
    certname: Certname,
    command: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    tags: BTreeSet<Tag>,
    noop: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    puppet_environment: Option<Environment>,
    timeout_seconds: u64,
    started_at_unix_ms: Timestamp,
    causes: Vec<CauseForm>,
    environment: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct CauseForm {
    event: EventForm,
    #[serde(default)]
    to_host: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    to_groups: Vec<GroupName>,
    #[serde(default)]
    interruptions: u32,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    without_catalog: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signer: Option<SignerForm>,
}

/// An event without a signature has none.
#[derive(Serialize, Deserialize)]
#[serde(tag = "key", rename_all = "snake_case")]
enum SignerForm {
    Shared,
    Certificate {
        algorithm: String,
        fingerprint: String,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        extensions: BTreeMap<String, String>,
    },
}

impl SignerForm {
    fn of(signer: &Signer) -> Option<Self> {
        match signer.clone() {
            Signer::Unsigned => None,
            Signer::SharedKey => Some(Self::Shared),
            Signer::Certificate { algorithm, fingerprint, extensions } => {
                Some(Self::Certificate { algorithm, fingerprint, extensions })
            }
        }
    }

    fn read(form: Option<Self>) -> Signer {
        match form {
            None => Signer::Unsigned,
            Some(Self::Shared) => Signer::SharedKey,
            Some(Self::Certificate { algorithm, fingerprint, extensions }) => {
                Signer::Certificate { algorithm, fingerprint, extensions }
            }
        }
    }
}

impl CauseForm {
    fn of(cause: &Cause) -> Self {
        let groups = cause.addressed_as.iter().filter_map(|target| match target {
            Target::Node(_) => None,
            Target::Group(group) => Some(group.clone()),
        });
        Self {
            event: EventForm::of(Event { targets: Targets::default(), ..cause.event.clone() }),
            to_host: cause.addressed_as.iter().any(Target::is_node),
            to_groups: groups.collect(),
            interruptions: cause.interruptions,
            without_catalog: cause.without_catalog,
            signer: SignerForm::of(&cause.signer),
        }
    }

    fn read(self, certname: &Certname) -> Result<Cause, WireError> {
        let node = self.to_host.then(|| Target::Node(certname.clone()));
        Ok(Cause {
            event: self.event.read()?,
            addressed_as: node.into_iter().chain(self.to_groups.into_iter().map(Target::Group)).collect(),
            interruptions: self.interruptions,
            without_catalog: self.without_catalog,
            signer: SignerForm::read(self.signer),
        })
    }
}

impl Stored for RunRecord {
    const WHAT: &'static str = "a run record";

    fn to_body(&self) -> String {
        write(&RunRecordForm {
            run_id: self.run_id,
            certname: self.certname.clone(),
            command: self.command.clone(),
            tags: self.options.tags.clone(),
            noop: self.options.noop,
            puppet_environment: self.options.environment.clone(),
            timeout_seconds: self.timeout.as_secs(),
            started_at_unix_ms: self.started_at,
            causes: self.causes.iter().map(CauseForm::of).collect(),
            environment: self.environment.clone(),
        })
    }

    fn from_body(body: &str) -> Result<Self, WireError> {
        let form: RunRecordForm = read(Self::WHAT, body)?;
        let causes = form.causes.into_iter().map(|cause| cause.read(&form.certname));
        Ok(Self {
            causes: causes.collect::<Result<_, _>>()?,
            run_id: form.run_id,
            certname: form.certname,
            command: form.command,
            options: RunOptions { tags: form.tags, noop: form.noop, environment: form.puppet_environment },
            timeout: Duration::from_secs(form.timeout_seconds),
            started_at: form.started_at_unix_ms,
            environment: form.environment,
        })
    }
}
