//! The chain as a graph in Graphviz's DOT language: events lead to runs, runs to events.

use trigger_core::delivery::DeliveryState;
use trigger_core::event::Target;
use trigger_core::identity::EventId;
use trigger_core::run::RunOutcome;
use trigger_core::run::history::{FiredEvent, SuppressedTarget};
use trigger_core::status::DeliveryRun;
use trigger_core::why::{EventStep, Explanation, RunState, RunStep};
use trigger_fleet::status::EventStatus;

use super::answer::Answer;
use super::text;
use crate::clean;
use crate::output::{count, short_time};
use crate::silence;

/// The most targets of an event that are drawn; the others are counted.
const MAX_TARGETS: usize = 16;
/// The attributes of a target that the loop guard suppressed.
const SUPPRESSED: &str = "shape=box, style=dashed, color=darkorange";

pub(super) fn graph(answer: &Answer) -> String {
    let explanation = &answer.explanation;
    let mut lines = vec![
        "digraph why {".to_owned(),
        "  graph [rankdir=TB];".to_owned(),
        "  node [fontname=\"sans-serif\", fontsize=11];".to_owned(),
        "  edge [fontname=\"sans-serif\", fontsize=9];".to_owned(),
    ];
    for step in explanation.events.iter().filter(|step| step.is_followed) {
        lines.push(event(step));
        if let Some(run) = step.what.as_ref().and_then(|what| what.fired_in)
            && explanation.run(run).is_some()
        {
            lines.push(edge(&format!("run {run}"), &format!("event {}", step.id), ""));
        }
    }
    for step in &explanation.runs {
        lines.extend(run(explanation, step));
        for fired in step.fired.listed.iter().filter(|fired| fired.suppressed.count() > 0) {
            let is_drawn = explanation.event(fired.event).is_some_and(|event| event.is_followed);
            let status = answer.event.as_ref().filter(|status| status.event.id == fired.event);
            lines.extend(suppressed(step, fired, is_drawn, status));
        }
    }
    lines.extend(answer.event.iter().flat_map(targets));
    lines.push("}".to_owned());
    lines.join("\n")
}

/// A quoted string of DOT. Backslashes are doubled, because in labels they begin an escape.
fn quoted(text: &str) -> String {
    let escaped = clean::lines(text);
    let escaped = escaped.chars().map(|char| match char {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        '\n' => "\\n".to_owned(),
        other => other.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

fn node(name: &str, label: &[String], attributes: &str) -> String {
    let label: Vec<_> = label.iter().map(|line| clean::line(line)).collect();
    format!("  {} [label={}, {attributes}];", quoted(name), quoted(&label.join("\n")))
}

fn edge(from: &str, to: &str, attributes: &str) -> String {
    let attributes = if attributes.is_empty() { String::new() } else { format!(" [{attributes}]") };
    format!("  {} -> {}{attributes};", quoted(from), quoted(to))
}

fn event(step: &EventStep) -> String {
    let label = match &step.what {
        Some(what) => {
            vec![
                format!("'{}'", what.trigger),
                format!("fired on {}", what.origin),
                short_time(what.fired_at),
            ]
        }
        None => vec!["an event that was swept".to_owned(), step.id.to_string()],
    };
    let width = if step.is_root() { ", penwidth=2" } else { "" };
    node(&format!("event {}", step.id), &label, &format!("shape=ellipse{width}"))
}

fn run(explanation: &Explanation, step: &RunStep) -> Vec<String> {
    let name = format!("run {}", step.run_id);
    let (words, attributes) = match &step.state {
        RunState::Running { started_at, seen_at } => {
            let words = vec!["running".to_owned(), format!("since {}", short_time(*started_at))];
            (words.into_iter().chain(silence::sentence(*seen_at)).collect(), "color=blue")
        }
        RunState::Ended { run, .. } => {
            let words = vec![text::outcome(run), short_time(run.result.started_at)];
            (words, colour(run.result.outcome))
        }
        RunState::Gone => (vec!["no longer on record".to_owned()], "color=gray"),
    };
    let label: Vec<String> = std::iter::once(format!("{} ran", step.certname)).chain(words).collect();
    let mut lines = vec![node(&name, &label, &format!("shape=box, style=rounded, {attributes}"))];
    let is_drawn = |cause: &&EventId| explanation.event(**cause).is_some_and(|event| event.is_followed);
    let causes = step.causes.listed.iter().filter(is_drawn);
    lines.extend(causes.map(|cause| edge(&format!("event {cause}"), &name, "")));
    let (kinds, unnamed) = explanation.merged(step);
    let others = kinds.iter().map(|((trigger, origin, _), count)| {
        vec![format!("{count} more of '{trigger}'"), format!("fired on {origin}")]
    });
    let unnamed = (unnamed > 0).then(|| vec![count(unnamed, "more event")]);
    let superseded = (step.superseded > 0)
        .then(|| vec![count(step.superseded, "earlier event"), "of a backlog, superseded".to_owned()]);
    for (index, label) in others.chain(unnamed).chain(superseded).enumerate() {
        let more = format!("more of {} {index}", step.run_id);
        lines.push(node(&more, &label, "shape=plaintext"));
        lines.push(edge(&more, &name, ""));
    }
    lines
}

fn colour(outcome: RunOutcome) -> &'static str {
    match outcome {
        RunOutcome::Unchanged | RunOutcome::Changed => "color=darkgreen",
        RunOutcome::NotRun | RunOutcome::Interrupted => "color=darkorange",
        RunOutcome::Failed | RunOutcome::TimedOut | RunOutcome::Unknown => "color=red",
    }
}

/// An event of which the loop guard suppressed targets, with those targets. The nodes among the targets of the event
/// that was asked about are drawn by [`targets`].
fn suppressed(
    step: &RunStep,
    fired: &FiredEvent,
    is_drawn: bool,
    status: Option<&EventStatus>,
) -> Vec<String> {
    let name = format!("event {}", fired.event);
    let mut lines = Vec::new();
    if !is_drawn {
        lines.push(node(&name, &[format!("'{}'", fired.trigger)], "shape=ellipse, style=dashed"));
        lines.push(edge(&format!("run {}", step.run_id), &name, "style=dashed"));
    }
    let is_target = |suppressed: &&SuppressedTarget| match &suppressed.target {
        Target::Node(certname) => status.is_some_and(|status| status.targets.contains_key(certname)),
        Target::Group(_) => false,
    };
    for suppressed in fired.suppressed.listed.iter().filter(|suppressed| !is_target(suppressed)) {
        let target = match &suppressed.target {
            Target::Node(certname) => certname.to_string(),
            Target::Group(group) => format!("group {group}"),
        };
        let there = format!("{name} at {target}");
        lines.push(node(&there, &[target], SUPPRESSED));
        lines.push(edge(&name, &there, &suppressed_because(&suppressed.reason)));
    }
    if fired.suppressed.more > 0 && status.is_none() {
        let there = format!("{name} elsewhere");
        lines.push(node(&there, &[count(fired.suppressed.more, "more target")], "shape=plaintext"));
        lines.push(edge(&name, &there, "style=dashed, label=\"suppressed\""));
    }
    lines
}

fn suppressed_because(reason: &str) -> String {
    format!("style=dashed, label=\"suppressed\", tooltip={}", quoted(reason))
}

/// The deliveries of the event that was asked about.
fn targets(status: &EventStatus) -> Vec<String> {
    let id = status.event.id;
    let mut lines = Vec::new();
    for (certname, target) in text::worst_first(status).into_iter().take(MAX_TARGETS) {
        let name = format!("event {id} at {certname}");
        let outcome = match &target.run {
            Some(DeliveryRun::Ended(run)) => Some(text::outcome(run)),
            _ => None,
        };
        let label: Vec<String> =
            [certname.to_string(), target.state.to_string()].into_iter().chain(outcome).collect();
        let (shape, line) = match target.state {
            DeliveryState::Suppressed => {
                (SUPPRESSED, suppressed_because(target.reason.as_deref().unwrap_or_default()))
            }
            _ => ("shape=box, style=rounded", String::new()),
        };
        lines.push(node(&name, &label, shape));
        lines.push(edge(&format!("event {id}"), &name, &line));
    }
    if status.targets.len() > MAX_TARGETS {
        let more = count(status.targets.len() - MAX_TARGETS, "more target");
        lines.push(node("more targets", &[more], "shape=plaintext"));
        lines.push(edge(&format!("event {id}"), "more targets", ""));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        assert_eq!(quoted(r#"a "b" \N c"#), r#""a \"b\" \\N c""#);
        assert_eq!(quoted("\"]; x [label=\""), r#""\"]; x [label=\"""#);
        assert_eq!(quoted("größe → <b>&amp;"), "\"größe → <b>&amp;\"");
        assert_eq!(quoted("one\ntwo\\"), r#""one\ntwo\\""#);
        assert_eq!(quoted("\u{1b}[1m"), r#""\\u{1b}[1m""#);
    }
}
