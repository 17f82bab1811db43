//! The history of a node's latest runs, and the entries of the events that were fired inside a run.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::events::ResourceForm;
use super::outcomes::CompletedRunForm;
use super::{Stored, WireError, read, sentence, write};
use crate::event::{FiredBy, Target};
use crate::identity::{Certname, Environment, EventId, GroupName, RunId, Tag, TriggerName};
use crate::loop_guard::Rule;
use crate::run::history::{
    FiredEvent, MAX_CAUSES, MAX_FIRES, MAX_RUNS, MAX_SUPPRESSED, PastCause, PastRun, RunHistory,
    SuppressedTarget, Truncated,
};
use crate::time::Timestamp;

/// The longest body of a history, in bytes. A single run is always shorter.
pub(super) const MAX_HISTORY_BYTES: usize = 128 * 1024;

#[derive(Serialize, Deserialize)]
struct HistoryForm {
    runs: Vec<PastRunForm>,
}

#[derive(Serialize, Deserialize)]
struct PastRunForm {
    #[serde(flatten)]
    run: CompletedRunForm,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    tags: BTreeSet<Tag>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    environment: Option<Environment>,
    causes: Vec<CauseForm>,
    #[serde(default, skip_serializing_if = "is_zero")]
    more_causes: usize,
    #[serde(default, skip_serializing_if = "is_zero")]
    superseded: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fired: Vec<FiredForm>,
    #[serde(default, skip_serializing_if = "is_zero")]
    more_fired: usize,
}

#[derive(Serialize, Deserialize)]
struct CauseForm {
    event: EventId,
    trigger: TriggerName,
    origin: Certname,
    fired_at_unix_ms: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fired_in: Option<RunId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fired_by: Option<ResourceForm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_of: Option<EventId>,
}

#[derive(Serialize, Deserialize)]
struct FiredForm {
    event: EventId,
    trigger: TriggerName,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    to_groups: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    suppressed: Vec<SuppressedTargetForm>,
    #[serde(default, skip_serializing_if = "is_zero")]
    more_suppressed: usize,
    // The rules are read by name, since a newer version may know more of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    suppressed_by_rule: BTreeMap<String, usize>,
}

#[derive(Serialize, Deserialize)]
struct SuppressedTargetForm {
    #[serde(flatten)]
    target: TargetForm,
    #[serde(deserialize_with = "sentence")]
    reason: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TargetForm {
    Certname(Certname),
    Group(GroupName),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(more: &usize) -> bool {
    *more == 0
}

/// The highest count that is read, so that sums of counts never overflow.
const MAX_COUNT: usize = u32::MAX as usize;

/// Reads at most `at_most` items and counts the others: another node may have written more than this program does.
fn truncated<F, T>(forms: Vec<F>, max: usize, more: usize, read: impl Fn(F) -> T) -> Truncated<T> {
    let more = more.min(MAX_COUNT) + forms.len().saturating_sub(max);
    Truncated { listed: forms.into_iter().take(max).map(read).collect(), more }
}

impl PastRunForm {
    fn of(run: PastRun) -> Self {
        Self {
            run: CompletedRunForm::of(run.run),
            tags: run.tags,
            environment: run.environment,
            causes: run.causes.listed.into_iter().map(CauseForm::of).collect(),
            more_causes: run.causes.more,
            superseded: run.superseded,
            fired: run.fired.listed.into_iter().map(FiredForm::of).collect(),
            more_fired: run.fired.more,
        }
    }

    fn read(self) -> PastRun {
        PastRun {
            run: self.run.read(),
            tags: self.tags,
            environment: self.environment,
            causes: truncated(self.causes, MAX_CAUSES, self.more_causes, CauseForm::read),
            superseded: self.superseded.min(MAX_COUNT),
            fired: truncated(self.fired, MAX_FIRES, self.more_fired, FiredForm::read),
        }
    }
}

impl CauseForm {
    fn of(PastCause { event, trigger, origin, fired_at, fired_in, fired_by }: PastCause) -> Self {
        let retry_of = fired_by.as_ref().and_then(FiredBy::retried);
        let fired_by = ResourceForm::of(fired_by);
        Self { event, trigger, origin, fired_at_unix_ms: fired_at, fired_in, fired_by, retry_of }
    }

    fn read(self) -> PastCause {
        let Self { event, trigger, origin, fired_at_unix_ms, fired_in, fired_by, retry_of } = self;
        let fired_by = ResourceForm::read(fired_by, retry_of);
        PastCause { event, trigger, origin, fired_at: fired_at_unix_ms, fired_in, fired_by }
    }
}

impl FiredForm {
    fn of(fired: FiredEvent) -> Self {
        let by_rule = fired.by_rule.into_iter();
        Self {
            event: fired.event,
            trigger: fired.trigger,
            to_groups: fired.to_groups,
            suppressed: fired.suppressed.listed.into_iter().map(SuppressedTargetForm::of).collect(),
            more_suppressed: fired.suppressed.more,
            suppressed_by_rule: by_rule.map(|(rule, count)| (rule.as_str().to_owned(), count)).collect(),
        }
    }

    fn read(self) -> FiredEvent {
        let count = |rule: Rule| Some((rule, (*self.suppressed_by_rule.get(rule.as_str())?).min(MAX_COUNT)));
        let by_rule = Rule::ALL.into_iter().filter_map(count).collect();
        let read = SuppressedTargetForm::read;
        FiredEvent {
            by_rule,
            event: self.event,
            trigger: self.trigger,
            to_groups: self.to_groups,
            suppressed: truncated(self.suppressed, MAX_SUPPRESSED, self.more_suppressed, read),
        }
    }
}

impl SuppressedTargetForm {
    fn of(suppressed: SuppressedTarget) -> Self {
        let target = match suppressed.target {
            Target::Node(certname) => TargetForm::Certname(certname),
            Target::Group(group) => TargetForm::Group(group),
        };
        Self { target, reason: suppressed.reason }
    }

    fn read(self) -> SuppressedTarget {
        let target = match self.target {
            TargetForm::Certname(certname) => Target::Node(certname),
            TargetForm::Group(group) => Target::Group(group),
        };
        SuppressedTarget { target, reason: self.reason }
    }
}

/// The body of a history with these runs, however long it is.
pub(super) fn body_of(runs: &[PastRun]) -> String {
    write(&HistoryForm { runs: runs.iter().cloned().map(PastRunForm::of).collect() })
}

impl Stored for RunHistory {
    const WHAT: &'static str = "a node's latest runs";

    /// Drops the oldest runs where the body would be longer than [`MAX_HISTORY_BYTES`].
    fn to_body(&self) -> String {
        let mut runs = &self.runs[..self.runs.len().min(MAX_RUNS)];
        loop {
            let body = body_of(runs);
            match runs.split_last() {
                Some((_, newer)) if !newer.is_empty() && body.len() > MAX_HISTORY_BYTES => runs = newer,
                _ => return body,
            }
        }
    }

    fn from_body(body: &str) -> Result<Self, WireError> {
        let form: HistoryForm = read(Self::WHAT, body)?;
        Ok(Self { runs: form.runs.into_iter().take(MAX_RUNS).map(PastRunForm::read).collect() })
    }
}

impl Stored for FiredEvent {
    const WHAT: &'static str = "an event fired in a run";

    fn to_body(&self) -> String {
        write(&FiredForm::of(self.clone()))
    }

    fn from_body(body: &str) -> Result<Self, WireError> {
        read::<FiredForm>(Self::WHAT, body).map(FiredForm::read)
    }
}
