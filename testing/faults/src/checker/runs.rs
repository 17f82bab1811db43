//! A node runs one thing at a time (C5), never without a cause, never for an event that was not fired yet, and never
//! one run twice (C10).

use std::collections::BTreeMap;

use super::deliveries::{is_forgotten, was_ended};
use super::describe::{describe, seconds};
use super::index::Index;
use super::violation::Violation;
use crate::artifacts::{Artifacts, Run};
use crate::journal::Answer;

const ALONE: &str = "one run at a time";
const CAUSED: &str = "no run without a cause";
const ENDED: &str = "a run ends by itself or is killed";
const ONCE: &str = "a run is executed once";

pub(super) fn check(artifacts: &Artifacts, index: &Index<'_>, violations: &mut Vec<Violation>) {
    overlaps(artifacts, violations);
    executions(artifacts, violations);
    interruptions(artifacts, index, violations);
    for run in &artifacts.runs {
        for (rule, why) in objections(artifacts, index, run) {
            violations.push(Violation { rule, found: format!("{why}: {}", describe(run)) });
        }
    }
}

fn overlaps(artifacts: &Artifacts, violations: &mut Vec<Violation>) {
    let mut nodes: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
    for run in &artifacts.runs {
        nodes.entry(run.start.certname.as_str()).or_default().push(run);
    }
    for runs in nodes.values_mut() {
        runs.sort_by_key(|run| run.start.at);
        let mut latest: Option<(u64, &Run)> = None;
        for run in runs.iter() {
            let before = latest.filter(|(end, _)| *end > run.start.at);
            if let Some((end, before)) = before {
                let found =
                    format!("{} although until {}: {}", describe(run), seconds(end), describe(before));
                violations.push(Violation { rule: ALONE, found });
            } else if !run.start.alone {
                let found = format!("another run's process lived: {}", describe(run));
                violations.push(Violation { rule: ALONE, found });
            }
            let end = end_of(artifacts, run);
            latest = latest.into_iter().chain([(end, *run)]).max_by_key(|(end, _)| *end);
        }
    }
}

/// Checks that each start of a run has an id of its own.
fn executions(artifacts: &Artifacts, violations: &mut Vec<Violation>) {
    let mut first: BTreeMap<&str, &Run> = BTreeMap::new();
    for run in &artifacts.runs {
        if let Some(before) = first.insert(&run.start.run, run) {
            let found = format!("{} although before: {}", describe(run), describe(before));
            violations.push(Violation { rule: ONCE, found });
        }
    }
}

/// Checks that the trial interrupted exactly those runs whose results report an interruption.
fn interruptions(artifacts: &Artifacts, index: &Index<'_>, violations: &mut Vec<Violation>) {
    for (run, record) in &artifacts.records {
        let why = match record.outcome.as_str() {
            "interrupted" if !was_ended(artifacts, index, run) => "nothing interrupted it",
            outcome if outcome != "interrupted" && index.hits.contains(run.as_str()) => "we killed it",
            _ => continue,
        };
        let found = format!(
            "run {run} on {}, recorded at {}, is {}, but {why}",
            record.certname,
            seconds(record.started),
            record.outcome
        );
        violations.push(Violation { rule: ENDED, found });
    }
}

/// Returns the latest time at which a run's process can have ended or, if it was killed, the time until which it was
/// alive.
fn end_of(artifacts: &Artifacts, run: &Run) -> u64 {
    let killed =
        artifacts.hits.iter().filter(|hit| hit.process && hit.run == run.start.run).map(|hit| hit.at);
    run.end.as_ref().map(|end| end.at).or_else(|| killed.min()).unwrap_or(run.start.at)
}

fn objections(artifacts: &Artifacts, index: &Index<'_>, run: &Run) -> Vec<(&'static str, String)> {
    let mut objections = Vec::new();
    if run.start.causes.is_empty() {
        objections.push((CAUSED, "its record lists nothing".to_owned()));
    }
    let why = run.start.causes.iter().filter_map(|cause| objection(artifacts, index, run, &cause.event));
    objections.extend(why.map(|why| (CAUSED, why)));
    if run.end.is_none() && !artifacts.hits.iter().any(|hit| hit.process && hit.run == run.start.run) {
        objections.push((ENDED, "nothing killed it".to_owned()));
    }
    objections
}

fn objection(artifacts: &Artifacts, index: &Index<'_>, run: &Run, event: &str) -> Option<String> {
    let certname = &run.start.certname;
    let Some(fire) = index.fires.get(event) else { return Some(format!("no fire made event {event}")) };
    if fire.before > run.start.at {
        return Some(format!("event {event} was fired later"));
    }
    if fire.noop {
        return Some(format!("event {event} asked for noop"));
    }
    if !artifacts.targets_of(fire).contains(certname) {
        return Some(format!("event {event} was not for this node"));
    }
    // The backend must know the event even if its fire was killed before it could answer.
    let is_known = artifacts.target(event, certname).is_some() || is_forgotten(artifacts, event, certname);
    (fire.answer == Answer::Killed && !is_known).then(|| format!("the backend does not know event {event}"))
}
