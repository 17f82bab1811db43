//! The chain for programs: the runs and the events on it, nearest to the question first.

use serde_json::{Value, json};
use trigger_core::event::Target;
use trigger_core::identity::Tag;
use trigger_core::lineage::{Chain, Lineage};
use trigger_core::run::history::{FiredEvent, SuppressedTarget};
use trigger_core::why::{EventStep, Question, RunState, RunStep};

use super::Answer;
use crate::cli::output::time;
use crate::cli::status;

pub(super) fn document(answer: &Answer, warnings: &[String]) -> Value {
    let explanation = &answer.explanation;
    let (certname, run, event) = match &answer.question {
        Question::Run(certname, _) => {
            (Some(certname.as_str()), explanation.runs.first().map(|run| run.run_id.to_string()), None)
        }
        Question::Event(event) => (None, None, Some(event.to_string())),
    };
    let status = answer.event.as_ref().map(status::event_json);
    json!({
        "certname": certname,
        "run_id": run,
        "event_id": event,
        "runs": explanation.runs.iter().map(self::run).collect::<Vec<_>>(),
        "events": explanation.events.iter().map(self::event).collect::<Vec<_>>(),
        "targets": status.map(|status| status["targets"].clone()),
        "warnings": warnings,
    })
}

fn run(step: &RunStep) -> Value {
    let (state, started_at, ended) = match &step.state {
        RunState::Running { started_at, .. } => ("running", Some(*started_at), None),
        RunState::Ended { run, tags } => ("ended", Some(run.result.started_at), Some((run, tags))),
        RunState::Gone => ("gone", None, None),
    };
    let run = ended.map(|(run, _)| run);
    let seen_at = match step.state {
        RunState::Running { seen_at, .. } => Some(seen_at),
        RunState::Ended { .. } | RunState::Gone => None,
    };
    let reason = run.and_then(|run| run.result.reason.clone());
    json!({
        "run_id": step.run_id.to_string(),
        "certname": step.certname.as_str(),
        "state": state,
        "outcome": run.map(|run| run.result.outcome.as_str()),
        "reason": reason.or_else(|| seen_at.and_then(status::silence)),
        "noop": run.map(|run| run.noop),
        "tags": ended.map(|(_, tags)| tags.iter().map(Tag::as_str).collect::<Vec<_>>()),
        "started_at": started_at.map(time),
        "seen_at": seen_at.map(time),
        "finished_at": run.map(|run| time(run.result.finished_at)),
        "causes": step.causes.listed.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "more_causes": step.causes.more,
        "superseded": step.superseded,
        "fired": step.fired.listed.iter().map(fired).collect::<Vec<_>>(),
        "more_fired": step.fired.more,
    })
}

fn fired(fired: &FiredEvent) -> Value {
    let suppressed = |suppressed: &SuppressedTarget| match &suppressed.target {
        Target::Node(certname) => json!({ "certname": certname.as_str(), "reason": suppressed.reason }),
        Target::Group(group) => json!({ "group": group.as_str(), "reason": suppressed.reason }),
    };
    json!({
        "event_id": fired.event.to_string(),
        "trigger": fired.trigger.as_str(),
        "suppressed": fired.suppressed.listed.iter().map(suppressed).collect::<Vec<_>>(),
        "more_suppressed": fired.suppressed.more,
    })
}

fn event(step: &EventStep) -> Value {
    let what = step.what.as_ref();
    json!({
        "event_id": step.id.to_string(),
        "trigger": what.map(|what| what.trigger.as_str()),
        "origin": what.map(|what| what.origin.as_str()),
        "fired_at": what.map(|what| time(what.fired_at)),
        "fired_in": what.and_then(|what| what.fired_in).map(|run| run.to_string()),
        "root": step.is_root(),
        "followed": step.is_followed,
        "lineage": step.lineage.as_ref().map(lineage),
    })
}

fn lineage(lineage: &Lineage) -> Vec<Value> {
    let chain = |chain: &Chain| {
        let hops = chain.hops.iter();
        let hops =
            hops.map(|hop| json!({ "trigger": hop.trigger.as_str(), "certname": hop.certname.as_str() }));
        json!({ "root": chain.root.to_string(), "hops": hops.collect::<Vec<_>>() })
    };
    lineage.chains.iter().map(chain).collect()
}
