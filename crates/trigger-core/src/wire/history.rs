//! What a node tells of its latest runs, and what it notes of the events that a run fires.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::outcomes::CompletedRunForm;
use super::{Stored, WireError, decode, encode, sentence, texts, valid, valid_all};
use crate::event::Target;
use crate::loop_guard::Rule;
use crate::run::history::{
    FiredEvent, MAX_CAUSES, MAX_FIRES, MAX_RUNS, MAX_SUPPRESSED, PastCause, PastRun, RunHistory,
    SuppressedTarget, Truncated,
};
use crate::time::Timestamp;

/// The longest text of a history, in bytes. A single run is always shorter.
pub(super) const MAX_HISTORY_BYTES: usize = 128 * 1024;

const WHAT: &str = "a node's latest runs";

#[derive(Serialize, Deserialize)]
struct HistoryForm {
    runs: Vec<PastRunForm>,
}

#[derive(Serialize, Deserialize)]
struct PastRunForm {
    #[serde(flatten)]
    run: CompletedRunForm,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
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
    event: String,
    trigger: String,
    origin: String,
    fired_at_unix_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fired_in: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct FiredForm {
    event: String,
    trigger: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    to_groups: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    suppressed: Vec<SuppressedTargetForm>,
    #[serde(default, skip_serializing_if = "is_zero")]
    more_suppressed: usize,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    suppressed_by_rule: BTreeMap<String, usize>,
}

#[derive(Serialize, Deserialize)]
struct SuppressedTargetForm {
    #[serde(flatten)]
    target: TargetForm,
    reason: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TargetForm {
    Certname(String),
    Group(String),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(more: &usize) -> bool {
    *more == 0
}

/// Counts are added up, and are not believed beyond what adds up.
const MAX_COUNT: usize = u32::MAX as usize;

/// Others may have written more than we do; it is counted like the rest.
fn read_excerpt<F, T>(
    forms: Vec<F>,
    at_most: usize,
    more: usize,
    read: impl Fn(F) -> Result<T, WireError>,
) -> Result<Truncated<T>, WireError> {
    let more = more.min(MAX_COUNT) + forms.len().saturating_sub(at_most);
    let listed = forms.into_iter().take(at_most).map(read).collect::<Result<_, _>>()?;
    Ok(Truncated { listed, more })
}

impl PastRunForm {
    fn of(run: &PastRun) -> Self {
        Self {
            run: CompletedRunForm::of(&run.run),
            tags: texts(&run.tags),
            causes: run.causes.listed.iter().map(CauseForm::of).collect(),
            more_causes: run.causes.more,
            superseded: run.superseded,
            fired: run.fired.listed.iter().map(FiredForm::of).collect(),
            more_fired: run.fired.more,
        }
    }

    fn read(self) -> Result<PastRun, WireError> {
        Ok(PastRun {
            run: self.run.read()?,
            tags: valid_all(WHAT, &self.tags)?,
            causes: read_excerpt(self.causes, MAX_CAUSES, self.more_causes, CauseForm::read)?,
            superseded: self.superseded.min(MAX_COUNT),
            fired: read_excerpt(self.fired, MAX_FIRES, self.more_fired, FiredForm::read)?,
        })
    }
}

impl CauseForm {
    fn of(cause: &PastCause) -> Self {
        Self {
            event: cause.event.to_string(),
            trigger: cause.trigger.to_string(),
            origin: cause.origin.to_string(),
            fired_at_unix_ms: cause.fired_at.as_unix_ms(),
            fired_in: cause.fired_in.map(|run| run.to_string()),
        }
    }

    fn read(self) -> Result<PastCause, WireError> {
        Ok(PastCause {
            event: valid(WHAT, &self.event)?,
            trigger: valid(WHAT, &self.trigger)?,
            origin: valid(WHAT, &self.origin)?,
            fired_at: Timestamp::from_unix_ms(self.fired_at_unix_ms),
            fired_in: self.fired_in.map(|run| valid(WHAT, &run)).transpose()?,
        })
    }
}

impl FiredForm {
    fn of(fired: &FiredEvent) -> Self {
        let suppressed = |suppressed: &SuppressedTarget| SuppressedTargetForm {
            target: match &suppressed.target {
                Target::Node(certname) => TargetForm::Certname(certname.to_string()),
                Target::Group(group) => TargetForm::Group(group.to_string()),
            },
            reason: suppressed.reason.clone(),
        };
        Self {
            event: fired.event.to_string(),
            trigger: fired.trigger.to_string(),
            to_groups: fired.to_groups,
            suppressed: fired.suppressed.listed.iter().map(suppressed).collect(),
            more_suppressed: fired.suppressed.more,
            suppressed_by_rule: fired
                .by_rule
                .iter()
                .map(|(rule, count)| (rule.as_str().to_owned(), *count))
                .collect(),
        }
    }

    fn read(self) -> Result<FiredEvent, WireError> {
        let suppressed = |form: SuppressedTargetForm| {
            let target = match form.target {
                TargetForm::Certname(certname) => Target::Node(valid(WHAT, &certname)?),
                TargetForm::Group(group) => Target::Group(valid(WHAT, &group)?),
            };
            Ok::<_, WireError>(SuppressedTarget { target, reason: sentence(form.reason) })
        };
        // A newer version may know more rules.
        let count = |rule: Rule| Some((rule, (*self.suppressed_by_rule.get(rule.as_str())?).min(MAX_COUNT)));
        Ok(FiredEvent {
            by_rule: Rule::ALL.into_iter().filter_map(count).collect(),
            event: valid(WHAT, &self.event)?,
            trigger: valid(WHAT, &self.trigger)?,
            to_groups: self.to_groups,
            suppressed: read_excerpt(self.suppressed, MAX_SUPPRESSED, self.more_suppressed, suppressed)?,
        })
    }
}

/// The text of these runs, however long it is.
pub(super) fn encode_runs(runs: &[PastRun]) -> String {
    encode(HistoryForm { runs: runs.iter().map(PastRunForm::of).collect() })
}

impl Stored for RunHistory {
    /// Leaves out the oldest runs where the text would be longer than [`MAX_HISTORY_BYTES`].
    fn to_wire(&self) -> String {
        let mut runs = &self.runs[..self.runs.len().min(MAX_RUNS)];
        loop {
            let text = encode_runs(runs);
            match runs.split_last() {
                Some((_, newer)) if !newer.is_empty() && text.len() > MAX_HISTORY_BYTES => runs = newer,
                _ => return text,
            }
        }
    }

    fn from_wire(text: &str) -> Result<Self, WireError> {
        let form: HistoryForm = decode(WHAT, text)?;
        let runs = form.runs.into_iter().take(MAX_RUNS);
        Ok(Self { runs: runs.map(PastRunForm::read).collect::<Result<_, _>>()? })
    }
}

impl Stored for FiredEvent {
    fn to_wire(&self) -> String {
        encode(FiredForm::of(self))
    }

    fn from_wire(text: &str) -> Result<Self, WireError> {
        decode::<FiredForm>("an event fired in a run", text)?.read()
    }
}
