//! One run at a time (contract 5), none without a cause, none for an event that was not fired yet.

use std::collections::BTreeMap;

use super::{Evidence, Index, Violation, describe, seconds};
use crate::evidence::Run;

const ALONE: &str = "one run at a time";
const CAUSED: &str = "no run without a cause";
const ENDED: &str = "a run ends by itself or is killed";

pub(super) fn check(evidence: &Evidence, index: &Index<'_>, violations: &mut Vec<Violation>) {
    overlaps(evidence, violations);
    for run in &evidence.runs {
        for (rule, why) in objections(evidence, index, run) {
            violations.push(Violation { rule, found: format!("{why}: {}", describe(run)) });
        }
    }
}

fn overlaps(evidence: &Evidence, violations: &mut Vec<Violation>) {
    let mut nodes: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
    for run in &evidence.runs {
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
            let end = end_of(evidence, run);
            latest = latest.into_iter().chain([(end, *run)]).max_by_key(|(end, _)| *end);
        }
    }
}

/// When a run's process was gone at the latest, or, where it was killed, still lived.
fn end_of(evidence: &Evidence, run: &Run) -> u64 {
    let killed = evidence.hits.iter().filter(|hit| hit.process && hit.run == run.start.run).map(|hit| hit.at);
    run.end.as_ref().map(|end| end.at).or_else(|| killed.min()).unwrap_or(run.start.at)
}

fn objections(evidence: &Evidence, index: &Index<'_>, run: &Run) -> Vec<(&'static str, String)> {
    let mut objections = Vec::new();
    if run.start.causes.is_empty() {
        objections.push((CAUSED, "its record lists nothing".to_owned()));
    }
    for cause in &run.start.causes {
        match index.fires.get(cause.event.as_str()) {
            Some(fire) if fire.before > run.start.at => {
                objections.push((CAUSED, format!("event {} was fired later", cause.event)));
            }
            Some(fire) if fire.noop => {
                objections.push((CAUSED, format!("event {} asked for noop", cause.event)));
            }
            Some(fire) if !evidence.targets_of(fire).contains(&run.start.certname) => {
                objections.push((CAUSED, format!("event {} was not for this node", cause.event)));
            }
            Some(_) => {}
            // Of a fire that did not live to answer; the backend must know it all the same.
            None if evidence.target(&cause.event, &run.start.certname).is_some() => {}
            None if evidence.windows.iter().any(|window| window.rewinds) => {}
            None => objections.push((CAUSED, format!("nobody fired event {}", cause.event))),
        }
    }
    if run.end.is_none() && !evidence.hits.iter().any(|hit| hit.process && hit.run == run.start.run) {
        objections.push((ENDED, "nothing killed it".to_owned()));
    }
    objections
}
