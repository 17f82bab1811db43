//! No lost wake-up (contract 2) and visible ends (contract 6).

use super::{Evidence, Index, RUNS_AT_MOST, Violation, describe, seconds};
use crate::evidence::{Target, Window};
use crate::journal::{Answer, Fire};

const LOST: &str = "no lost wake-up";
const ENDS: &str = "every delivery ends visibly";
const ONCE: &str = "no repetition without a crash";

pub(super) fn check(evidence: &Evidence, index: &Index<'_>, violations: &mut Vec<Violation>) {
    for fire in &evidence.fires {
        let Answer::Success { event, .. } = &fire.answer else { continue };
        if may_be_forgotten(evidence, fire) && !evidence.statuses.contains_key(event) {
            continue;
        }
        for certname in evidence.targets_of(fire) {
            let verdict = match evidence.target(event, &certname) {
                Some(target) if target.has_ended() => judge(evidence, index, fire, event, target),
                // The hub forgot that it was for this one too.
                _ if may_be_forgotten(evidence, fire) => Ok(()),
                Some(target) => Err((LOST, format!("it is '{}' at the end: {target:?}", target.state))),
                None if is_suppressed_group(fire) => Ok(()),
                None => Err((LOST, "trigger status does not list it".to_owned())),
            };
            if let Err((rule, why)) = verdict {
                let found = format!(
                    "event {event} ({}), fired on {} between {} and {}, at {certname}: {why}{}",
                    answer(fire),
                    fire.origin,
                    seconds(fire.before),
                    seconds(fire.after),
                    covering(index, event, &certname)
                );
                violations.push(Violation { rule, found });
            }
        }
    }
    repetitions(index, violations);
}

/// Committed between a backup and the hub's restore from it, and so forgotten. An event that was spooled
/// then may have been committed at any time before the restore.
fn may_be_forgotten(evidence: &Evidence, fire: &Fire) -> bool {
    let was_spooled = matches!(&fire.answer, Answer::Success { state, .. } if state != "committed");
    let rewinds = evidence.windows.iter().filter(|window| window.rewinds);
    rewinds.into_iter().any(|w| fire.before <= w.to && (was_spooled || fire.after >= w.from))
}

pub(super) fn forgotten(evidence: &Evidence) -> Vec<(String, String)> {
    let mut forgotten = Vec::new();
    for fire in evidence.fires.iter().filter(|fire| may_be_forgotten(evidence, fire)) {
        let Answer::Success { event, .. } = &fire.answer else { continue };
        for certname in evidence.targets_of(fire) {
            let state = evidence.target(event, &certname).map(|target| target.state.as_str());
            if evidence.target(event, &certname).is_none_or(|target| !target.has_ended()) {
                forgotten.push((format!("{event} at {certname}"), state.unwrap_or("unknown").to_owned()));
            }
        }
    }
    forgotten
}

fn is_suppressed_group(fire: &Fire) -> bool {
    fire.hosts.is_empty() && matches!(&fire.answer, Answer::Success { state, .. } if state == "suppressed")
}

/// Whether what status says of one delivery is so.
fn judge(
    evidence: &Evidence,
    index: &Index<'_>,
    fire: &Fire,
    event: &str,
    target: &Target,
) -> Result<(), (&'static str, String)> {
    let is_right = match target.state.as_str() {
        "done" | "failed" => {
            return judge_run(evidence, index, fire, event, target).map_err(|why| (LOST, why));
        }
        "refused" => fire.noop,
        // Only the loop guard leaves out, and only inside a run.
        "suppressed" => fire.parent.is_some(),
        "superseded" => {
            let successor = target.reason.as_deref().and_then(|reason| reason.rsplit(' ').next());
            let end = successor.and_then(|successor| evidence.target(successor, &target.certname));
            end.is_some_and(Target::has_ended)
        }
        _ => false,
    };
    if is_right { Ok(()) } else { Err((ENDS, format!("an end it should not have: {target:?}"))) }
}

/// The run that ended a delivery must have started after the event was fired, have listed it, and ended so.
fn judge_run(
    evidence: &Evidence,
    index: &Index<'_>,
    fire: &Fire,
    event: &str,
    target: &Target,
) -> Result<(), String> {
    if fire.noop {
        return Err(format!("a noop event ran: {target:?}"));
    }
    let run_id = target.run_id.as_deref().unwrap_or_default();
    let was_interrupted = target.outcome.as_deref() == Some("interrupted");
    let Some(run) = index.runs.get(run_id) else {
        // Killed before it could say a word; or its agent was, between the record and the supervisor.
        let killed_agent = |window: &&Window| {
            window.node.as_ref() == Some(&target.certname)
                && (window.kind == "kill -9 of an agent" || window.kind == "crash of a node")
        };
        let is_explained = was_interrupted
            && (index.hits.contains(run_id) || evidence.windows.iter().any(|window| killed_agent(&window)));
        return if is_explained { Ok(()) } else { Err(format!("no log knows its run: {target:?}")) };
    };
    if run.start.certname != target.certname {
        return Err(format!("its run was another node's: {}", describe(run)));
    }
    if !run.start.causes.iter().any(|cause| cause.event == event) {
        return Err(format!("its run did not cover it: {}", describe(run)));
    }
    if run.start.at < fire.before {
        return Err(format!("its run started before it was fired: {}", describe(run)));
    }
    let code = run.end.as_ref().map(|end| end.code);
    let is_so = match (target.state.as_str(), code) {
        ("done", code) => code == Some(0),
        (_, Some(1..)) => true,
        _ => was_interrupted && index.hits.contains(run_id),
    };
    if is_so { Ok(()) } else { Err(format!("{target:?} is not how its run ended: {}", describe(run))) }
}

/// An event runs again at a node only after a run for it was killed, and once only (contract 4).
fn repetitions(index: &Index<'_>, violations: &mut Vec<Violation>) {
    for ((event, certname), runs) in &index.covering {
        let undisturbed = runs.iter().rev().skip(1).find(|run| !index.hits.contains(run.start.run.as_str()));
        let why = match undisturbed {
            Some(run) => format!("it ran again although nothing hit {}", describe(run)),
            None if runs.len() > RUNS_AT_MOST => format!("{} runs covered it", runs.len()),
            None => continue,
        };
        let found = format!("event {event} at {certname}: {why}{}", covering(index, event, certname));
        violations.push(Violation { rule: ONCE, found });
    }
}

fn answer(fire: &Fire) -> &str {
    match &fire.answer {
        Answer::Success { state, .. } => state,
        Answer::Killed => "killed",
        Answer::Failure(_) => "failed",
    }
}

/// The runs that covered an event at a node, a line each.
fn covering(index: &Index<'_>, event: &str, certname: &str) -> String {
    let runs = index.covering.get(&(event, certname)).into_iter().flatten();
    let line = |run: &&crate::evidence::Run| {
        let hit = if index.hits.contains(run.start.run.as_str()) { ", hit" } else { "" };
        format!("\n      {}{hit}", describe(run))
    };
    runs.map(line).collect()
}
