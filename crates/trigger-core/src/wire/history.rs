//! What a node tells of its latest runs, and what it notes of the events that a run fires.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ends::EndedRunForm;
use super::{Stored, WireError, decode, encode, sentence, texts, valid, valid_all};
use crate::history::{
    CAUSES_TOLD, Excerpt, FIRES_TOLD, FiredEvent, LEFT_OUT_TOLD, LeftOut, PastCause, PastRun, RUNS_TOLD,
    RunHistory, Target,
};
use crate::lineage::Rule;
use crate::time::Timestamp;

const WHAT: &str = "a node's latest runs";

#[derive(Serialize, Deserialize)]
struct HistoryForm {
    runs: Vec<PastRunForm>,
}

#[derive(Serialize, Deserialize)]
struct PastRunForm {
    #[serde(flatten)]
    run: EndedRunForm,
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
    left_out: Vec<LeftOutForm>,
    #[serde(default, skip_serializing_if = "is_zero")]
    more_left_out: usize,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    left_out_by_rule: BTreeMap<String, usize>,
}

#[derive(Serialize, Deserialize)]
struct LeftOutForm {
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
const COUNT_AT_MOST: usize = u32::MAX as usize;

/// Others may have written more than we do; it is counted like the rest.
fn read_excerpt<F, T>(
    forms: Vec<F>,
    at_most: usize,
    more: usize,
    read: impl Fn(F) -> Result<T, WireError>,
) -> Result<Excerpt<T>, WireError> {
    let more = more.min(COUNT_AT_MOST) + forms.len().saturating_sub(at_most);
    let listed = forms.into_iter().take(at_most).map(read).collect::<Result<_, _>>()?;
    Ok(Excerpt { listed, more })
}

impl PastRunForm {
    fn of(run: &PastRun) -> Self {
        Self {
            run: EndedRunForm::of(&run.run),
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
            causes: read_excerpt(self.causes, CAUSES_TOLD, self.more_causes, CauseForm::read)?,
            superseded: self.superseded.min(COUNT_AT_MOST),
            fired: read_excerpt(self.fired, FIRES_TOLD, self.more_fired, FiredForm::read)?,
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
        let left_out = |left_out: &LeftOut| LeftOutForm {
            target: match &left_out.target {
                Target::Node(certname) => TargetForm::Certname(certname.to_string()),
                Target::Group(group) => TargetForm::Group(group.to_string()),
            },
            reason: left_out.reason.clone(),
        };
        Self {
            event: fired.event.to_string(),
            trigger: fired.trigger.to_string(),
            to_groups: fired.to_groups,
            left_out: fired.left_out.listed.iter().map(left_out).collect(),
            more_left_out: fired.left_out.more,
            left_out_by_rule: fired
                .by_rule
                .iter()
                .map(|(rule, count)| (rule.as_str().to_owned(), *count))
                .collect(),
        }
    }

    fn read(self) -> Result<FiredEvent, WireError> {
        let left_out = |form: LeftOutForm| {
            let target = match form.target {
                TargetForm::Certname(certname) => Target::Node(valid(WHAT, &certname)?),
                TargetForm::Group(group) => Target::Group(valid(WHAT, &group)?),
            };
            Ok::<_, WireError>(LeftOut { target, reason: sentence(form.reason) })
        };
        // A newer version may know more rules.
        let count =
            |rule: Rule| Some((rule, (*self.left_out_by_rule.get(rule.as_str())?).min(COUNT_AT_MOST)));
        Ok(FiredEvent {
            by_rule: Rule::ALL.into_iter().filter_map(count).collect(),
            event: valid(WHAT, &self.event)?,
            trigger: valid(WHAT, &self.trigger)?,
            to_groups: self.to_groups,
            left_out: read_excerpt(self.left_out, LEFT_OUT_TOLD, self.more_left_out, left_out)?,
        })
    }
}

impl Stored for RunHistory {
    fn to_wire(&self) -> String {
        encode(HistoryForm { runs: self.runs.iter().map(PastRunForm::of).collect() })
    }

    fn from_wire(text: &str) -> Result<Self, WireError> {
        let form: HistoryForm = decode(WHAT, text)?;
        let runs = form.runs.into_iter().take(RUNS_TOLD);
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
