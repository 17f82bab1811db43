//! The stored forms: JSON with a version, and nothing that the program works with directly.
//!
//! Readers ignore fields they do not know; a change that an old reader must not ignore gets a new `v`.
//! Golden files in `wire/golden/` hold each released form. `docs/wire-format.md` describes them.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::event::{Event, Part, RunOptions, Targets};
use crate::identity::{Certname, EventId, GroupName, KeyPrefix, Revision, RunId};
use crate::lineage::{Chain, Hop, Lineage};
use crate::outcome::{End, EndedRun, RunResult};
use crate::queue::{Cause, Source};
use crate::status::{Activity, Held, NodeRecord, Retrying, Running};
use crate::time::Timestamp;

/// The version this program writes, and the newest it reads.
pub const VERSION: u32 = 1;

/// Why stored text cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its message")]
pub enum WireError {
    #[error("not the JSON of {what}: {detail}")]
    Unreadable { what: &'static str, detail: String },
    #[error(
        "{what} of version {version}; this program reads up to version {VERSION}: update trigger on this node"
    )]
    TooNew { what: &'static str, version: u32 },
}

/// A value that has a stored form.
pub trait Stored: Sized {
    /// The stored text.
    fn to_wire(&self) -> String;
    /// The value back; [`WireError::TooNew`] and garbage are told apart.
    fn from_wire(text: &str) -> Result<Self, WireError>;
}

#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    v: u32,
    #[serde(flatten)]
    body: T,
}

fn encode<T: Serialize>(body: T) -> String {
    serde_json::to_string(&Envelope { v: VERSION, body }).unwrap_or_else(|error| {
        // Every form below is plain data with string keys, which cannot fail to serialise.
        unreachable!("a stored form cannot be serialised: {error}")
    })
}

fn decode<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, WireError> {
    let unreadable = |error: serde_json::Error| WireError::Unreadable { what, detail: error.to_string() };
    let version = serde_json::from_str::<Versioned>(text).map_err(unreadable)?.v;
    if version != VERSION {
        return Err(WireError::TooNew { what, version });
    }
    Ok(serde_json::from_str::<Envelope<T>>(text).map_err(unreadable)?.body)
}

fn valid<T: FromStr>(what: &'static str, text: &str) -> Result<T, WireError>
where
    T::Err: ToString,
{
    text.parse().map_err(|error: T::Err| WireError::Unreadable { what, detail: error.to_string() })
}

fn valid_all<T: FromStr, C: FromIterator<T>>(what: &'static str, texts: &[String]) -> Result<C, WireError>
where
    T::Err: ToString,
{
    texts.iter().map(|text| valid(what, text)).collect()
}

fn texts<T: ToString>(values: impl IntoIterator<Item = T>) -> Vec<String> {
    values.into_iter().map(|value| value.to_string()).collect()
}

// --- events -----------------------------------------------------------------------------------------

#[derive(Serialize, Deserialize)]
struct EventForm {
    id: String,
    trigger: String,
    origin: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hosts: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(default)]
    noop: bool,
    lineage: Vec<ChainForm>,
    fired_at_unix_ms: u64,
    expires_in_seconds: u64,
}

#[derive(Serialize, Deserialize)]
struct ChainForm {
    root: String,
    hops: Vec<HopForm>,
}

#[derive(Serialize, Deserialize)]
struct HopForm {
    trigger: String,
    certname: String,
}

impl EventForm {
    fn of(event: &Event) -> Self {
        Self {
            id: event.id.to_string(),
            trigger: event.trigger.to_string(),
            origin: event.origin.to_string(),
            hosts: texts(&event.targets.hosts),
            groups: texts(&event.targets.groups),
            tags: texts(&event.options.tags),
            noop: event.options.noop,
            lineage: event.lineage.chains.iter().map(ChainForm::of).collect(),
            fired_at_unix_ms: event.fired_at.as_unix_ms(),
            expires_in_seconds: event.expires_in.as_secs(),
        }
    }

    fn read(self) -> Result<Event, WireError> {
        const WHAT: &str = "an event";
        let event = Event {
            id: valid(WHAT, &self.id)?,
            trigger: valid(WHAT, &self.trigger)?,
            origin: valid(WHAT, &self.origin)?,
            targets: Targets { hosts: valid_all(WHAT, &self.hosts)?, groups: valid_all(WHAT, &self.groups)? },
            options: RunOptions { tags: valid_all(WHAT, &self.tags)?, noop: self.noop },
            lineage: Lineage {
                chains: self.lineage.into_iter().map(ChainForm::read).collect::<Result<_, _>>()?,
            },
            fired_at: Timestamp::from_unix_ms(self.fired_at_unix_ms),
            expires_in: Duration::from_secs(self.expires_in_seconds),
        };
        if event.lineage.chains.is_empty() {
            return Err(WireError::Unreadable { what: WHAT, detail: "its lineage is empty".to_owned() });
        }
        Ok(event)
    }
}

impl ChainForm {
    fn of(chain: &Chain) -> Self {
        let hop =
            |hop: &Hop| HopForm { trigger: hop.trigger.to_string(), certname: hop.certname.to_string() };
        Self { root: chain.root.to_string(), hops: chain.hops.iter().map(hop).collect() }
    }

    fn read(self) -> Result<Chain, WireError> {
        const WHAT: &str = "a lineage";
        let hop = |hop: HopForm| {
            Ok(Hop { trigger: valid(WHAT, &hop.trigger)?, certname: valid(WHAT, &hop.certname)? })
        };
        Ok(Chain {
            root: valid(WHAT, &self.root)?,
            hops: self.hops.into_iter().map(hop).collect::<Result<_, _>>()?,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct PartForm {
    part: u32,
    parts: u32,
    #[serde(flatten)]
    event: EventForm,
}

impl Stored for Part {
    fn to_wire(&self) -> String {
        encode(PartForm { part: self.index, parts: self.count, event: EventForm::of(&self.event) })
    }

    fn from_wire(text: &str) -> Result<Self, WireError> {
        let form: PartForm = decode("an event", text)?;
        Ok(Self { index: form.part, count: form.parts, event: form.event.read()? })
    }
}

/// What a delivery's key holds: where to read the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// The part that lists this target.
    pub part: u32,
}

#[derive(Serialize, Deserialize)]
struct DeliveryForm {
    part: u32,
}

impl Stored for Delivery {
    fn to_wire(&self) -> String {
        encode(DeliveryForm { part: self.part })
    }

    fn from_wire(text: &str) -> Result<Self, WireError> {
        decode::<DeliveryForm>("a delivery", text).map(|form| Self { part: form.part })
    }
}

/// Who belonged to an event's groups when it was fired, in portions; read only by status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members(pub BTreeSet<Certname>);

#[derive(Serialize, Deserialize)]
struct MembersForm {
    members: Vec<String>,
}

impl Stored for Members {
    fn to_wire(&self) -> String {
        encode(MembersForm { members: texts(&self.0) })
    }

    fn from_wire(text: &str) -> Result<Self, WireError> {
        let form: MembersForm = decode("a list of members", text)?;
        Ok(Self(valid_all("a list of members", &form.members)?))
    }
}

/// An event on its way to a backend, with all that publishing it needs: what an outbox file holds, and
/// what `trigger fire` hands to the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The backend's URL, as configured where it was fired.
    pub backend: String,
    /// Where in the backend.
    pub prefix: KeyPrefix,
    /// The event with all its targets, the suppressed ones too.
    pub event: Event,
    /// Targets that the loop guard left out, with its reasons: they get an outcome and no delivery.
    pub suppressed: BTreeMap<Certname, String>,
}

#[derive(Serialize, Deserialize)]
struct PublicationForm {
    backend: String,
    prefix: String,
    event: EventForm,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    suppressed: BTreeMap<String, String>,
}

impl Stored for Publication {
    fn to_wire(&self) -> String {
        encode(PublicationForm {
            backend: self.backend.clone(),
            prefix: self.prefix.to_string(),
            event: EventForm::of(&self.event),
            suppressed: self.suppressed.iter().map(|(c, reason)| (c.to_string(), reason.clone())).collect(),
        })
    }

    fn from_wire(text: &str) -> Result<Self, WireError> {
        const WHAT: &str = "a fired event";
        let form: PublicationForm = decode(WHAT, text)?;
        let suppressed = form.suppressed.into_iter().map(|(c, reason)| Ok((valid(WHAT, &c)?, reason)));
        Ok(Self {
            backend: form.backend,
            prefix: valid(WHAT, &form.prefix)?,
            event: form.event.read()?,
            suppressed: suppressed.collect::<Result<_, _>>()?,
        })
    }
}

// --- ends -------------------------------------------------------------------------------------------

#[derive(Serialize, Deserialize)]
struct RunResultForm {
    outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    started_at_unix_ms: u64,
    finished_at_unix_ms: u64,
}

impl RunResultForm {
    fn of(result: &RunResult) -> Self {
        Self {
            outcome: result.outcome.to_string(),
            reason: result.reason.clone(),
            started_at_unix_ms: result.started_at.as_unix_ms(),
            finished_at_unix_ms: result.finished_at.as_unix_ms(),
        }
    }

    fn read(self) -> Result<RunResult, WireError> {
        Ok(RunResult {
            outcome: valid("an outcome", &self.outcome)?,
            reason: self.reason,
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
struct EndedRunForm {
    run_id: String,
    noop: bool,
    #[serde(flatten)]
    result: RunResultForm,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
enum EndForm {
    Done(EndedRunForm),
    Failed(EndedRunForm),
    Expired,
    Refused { reason: String },
    Suppressed { reason: String },
    Superseded { by: String },
}

impl Stored for End {
    fn to_wire(&self) -> String {
        let run = |run: &EndedRun| EndedRunForm {
            run_id: run.run_id.to_string(),
            noop: run.noop,
            result: RunResultForm::of(&run.result),
        };
        encode(match self {
            Self::Done(ended) => EndForm::Done(run(ended)),
            Self::Failed(ended) => EndForm::Failed(run(ended)),
            Self::Expired => EndForm::Expired,
            Self::Refused(reason) => EndForm::Refused { reason: reason.clone() },
            Self::Suppressed(reason) => EndForm::Suppressed { reason: reason.clone() },
            Self::Superseded(by) => EndForm::Superseded { by: by.to_string() },
        })
    }

    fn from_wire(text: &str) -> Result<Self, WireError> {
        const WHAT: &str = "an outcome";
        let run = |form: EndedRunForm| {
            Ok(EndedRun { run_id: valid(WHAT, &form.run_id)?, noop: form.noop, result: form.result.read()? })
        };
        Ok(match decode(WHAT, text)? {
            EndForm::Done(form) => Self::Done(run(form)?),
            EndForm::Failed(form) => Self::Failed(run(form)?),
            EndForm::Expired => Self::Expired,
            EndForm::Refused { reason } => Self::Refused(reason),
            EndForm::Suppressed { reason } => Self::Suppressed(reason),
            EndForm::Superseded { by } => Self::Superseded(valid(WHAT, &by)?),
        })
    }
}

// --- nodes and runs ---------------------------------------------------------------------------------

#[derive(Serialize, Deserialize)]
struct NodeForm {
    instance: String,
    location: String,
    renewals: u64,
    version: String,
    seen_at_unix_ms: u64,
    groups: BTreeMap<String, u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    running: Option<RunningForm>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    retrying: Vec<RetryingForm>,
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
                reason: retrying.reason,
                causes: valid_all(WHAT, &retrying.causes)?,
            })
        });
        let held = form
            .held
            .into_iter()
            .map(|held| Ok::<_, WireError>(Held { event: valid(WHAT, &held.event)?, reason: held.reason }));
        Ok(Self {
            instance: form.instance,
            location: form.location,
            renewals: form.renewals,
            version: form.version,
            seen_at: Timestamp::from_unix_ms(form.seen_at_unix_ms),
            groups: form.groups.into_iter().map(joined).collect::<Result<_, _>>()?,
            activity: Activity {
                running: running.transpose()?,
                retrying: retrying.collect::<Result<_, _>>()?,
                held: held.collect::<Result<_, _>>()?,
            },
        })
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
pub struct EndedEvent {
    /// Which event.
    pub event: EventId,
    /// When, by this node's clock.
    pub ended_at: Timestamp,
}

impl EndedEvent {
    /// One line, without its end.
    pub fn to_line(self) -> String {
        format!("{} {}", self.event, self.ended_at.as_unix_ms())
    }

    /// The value back; nothing for a line that a crash cut short.
    pub fn from_line(line: &str) -> Option<Self> {
        let (event, ended_at) = line.split_once(' ')?;
        Some(Self { event: event.parse().ok()?, ended_at: Timestamp::from_unix_ms(ended_at.parse().ok()?) })
    }
}

#[cfg(test)]
mod tests;
