//! What a node keeps of its runs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::events::EventForm;
use super::{Stored, WireError, decode, encode, sentence, texts, valid, valid_all};
use crate::event::{Event, RunOptions, Targets};
use crate::identity::{Certname, EventId, GroupName, RunId, TriggerName};
use crate::outcome::RunResult;
use crate::queue::{Cause, DEDUP_RETENTION, Source};
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

/// What a run covers and how it is started: written and synced before its supervisor exists, locked by
/// that supervisor until the run has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRecord {
    /// Puppet's job id.
    pub run_id: RunId,
    /// The node.
    pub certname: Certname,
    /// The run command, in words, as configured.
    pub command: Vec<String>,
    /// What this run is asked to do: the union of its causes' options.
    pub options: RunOptions,
    /// The run is ended after this long.
    pub timeout: Duration,
    /// When the record was written, by this node's clock.
    pub started_at: Timestamp,
    /// What it covers.
    pub causes: Vec<Cause>,
    /// Environment for the run, so that a `trigger fire` inside it finds this agent.
    pub environment: BTreeMap<String, String>,
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
            to_host: cause.sources.contains(&Source::Host),
            to_groups: cause
                .sources
                .iter()
                .filter_map(|source| match source {
                    Source::Host => None,
                    Source::Group(group) => Some(group.to_string()),
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
        let cause = |form: CauseForm| {
            let groups: Vec<GroupName> = valid_all(WHAT, &form.to_groups)?;
            let host = form.to_host.then_some(Source::Host);
            Ok::<_, WireError>(Cause {
                event: form.event.read()?,
                sources: host.into_iter().chain(groups.into_iter().map(Source::Group)).collect(),
                interruptions: form.interruptions,
            })
        };
        Ok(Self {
            run_id: valid(WHAT, &form.run_id)?,
            certname: valid(WHAT, &form.certname)?,
            command: form.command,
            options: RunOptions { tags: valid_all(WHAT, &form.tags)?, noop: form.noop },
            timeout: Duration::from_secs(form.timeout_seconds),
            started_at: Timestamp::from_unix_ms(form.started_at_unix_ms),
            causes: form.causes.into_iter().map(cause).collect::<Result<_, _>>()?,
            environment: form.environment,
        })
    }
}

/// A line of the file that remembers which events ended on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HonouredEvent {
    /// Which event.
    pub event: EventId,
    /// When, by this node's clock.
    pub ended_at: Timestamp,
}

impl HonouredEvent {
    /// One line, without its end.
    pub fn to_line(self) -> String {
        format!("{} {}", self.event, self.ended_at.as_unix_ms())
    }

    /// The value back; nothing for a line that a crash cut short.
    pub fn from_line(line: &str) -> Option<Self> {
        let (event, ended_at) = line.split_once(' ')?;
        Some(Self { event: event.parse().ok()?, ended_at: Timestamp::from_unix_ms(ended_at.parse().ok()?) })
    }

    /// Whether nothing can come of it any more: it ended long ago, and was fired long ago. By its end alone, one that
    /// ended while this node's clock was years behind would be forgotten as soon as the clock is right, and run again
    /// if it is published again.
    pub fn is_outlived(self, now: Timestamp) -> bool {
        let is_long_ago = |at: Timestamp| now.since(at) >= DEDUP_RETENTION;
        is_long_ago(self.ended_at) && self.event.made_at().is_none_or(is_long_ago)
    }
}

/// A line of the file that counts fires for the loop guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FireNote {
    /// The event at the start of the chain.
    pub root: EventId,
    /// When, by this node's clock.
    pub noted_at: Timestamp,
    /// What fired.
    pub trigger: TriggerName,
    /// Whether this takes back an earlier note of the same fire.
    pub is_taken_back: bool,
}

impl FireNote {
    /// One line, without its end.
    pub fn to_line(&self) -> String {
        let sign = if self.is_taken_back { '-' } else { '+' };
        format!("{sign} {} {} {}", self.root, self.noted_at.as_unix_ms(), self.trigger)
    }

    /// The value back; nothing for a line that is none.
    pub fn from_line(line: &str) -> Option<Self> {
        let mut words = line.splitn(4, ' ');
        let is_taken_back = match words.next()? {
            "+" => false,
            "-" => true,
            _ => return None,
        };
        let (root, noted_at) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let trigger = words.next()?.parse().ok()?;
        Some(Self { root, noted_at: Timestamp::from_unix_ms(noted_at), trigger, is_taken_back })
    }
}
