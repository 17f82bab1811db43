//! Whether a trial covered enough: without faults, load and runs, its findings would prove nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::artifacts::Artifacts;
use crate::journal::Answer;
use crate::load::EVERY;

/// Returns what the trial lacks, one sentence each; an empty list if it is a proof. `kinds` are the faults that
/// should have happened.
pub(crate) fn lacks(artifacts: &Artifacts, kinds: &BTreeSet<String>, budget: Duration) -> Vec<String> {
    let mut lacks: Vec<String> = Vec::new();
    let happened: BTreeSet<&str> = artifacts.windows.iter().map(|window| window.kind.as_str()).collect();
    let missing = kinds.iter().filter(|kind| !happened.contains(kind.as_str()));
    lacks.extend(missing.map(|kind| format!("this never happened: {kind}")));
    let state = |wanted: &str| {
        let is_it = |answer: &Answer| matches!(answer, Answer::Success { state, .. } if state == wanted);
        artifacts.fires.iter().any(|fire| is_it(&fire.answer))
    };
    let events = artifacts.fires.iter().filter(|fire| matches!(fire.answer, Answer::Success { .. })).count();
    // This is half of what is fired on an idle machine.
    let enough = (budget.as_secs_f64() / EVERY.as_secs_f64() / 2.0) as usize;
    if events < enough {
        lacks.push(format!("only {events} events, at least {enough} should be"));
    }
    let needs = [
        (!artifacts.runs.is_empty(), "nothing ran"),
        (!artifacts.hits.is_empty(), "no run was hit"),
        (state("spooled"), "no event was spooled"),
        (artifacts.fires.iter().any(|fire| fire.parent.is_some()), "nothing was fired inside a run"),
    ];
    lacks.extend(needs.into_iter().filter(|(is_there, _)| !is_there).map(|(_, lack)| lack.to_owned()));
    lacks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifacts::{Run, Window};
    use crate::journal::{Fire, Hit, RunStart};

    const BUDGET: Duration = Duration::from_secs(60);

    fn kinds() -> BTreeSet<String> {
        ["crash of a node", "kill -9 of a run"].map(str::to_owned).into()
    }

    /// Makes a trial of 150 spooled events, the first of them fired inside a run, with both kinds of faults.
    fn whole() -> Artifacts {
        let fire = |number: usize| Fire {
            origin: "n01".to_owned(),
            parent: (number == 0).then(|| "r1".to_owned()),
            trigger: "t".to_owned(),
            hosts: Vec::new(),
            groups: Vec::new(),
            noop: false,
            away: false,
            before: 1,
            after: 2,
            answer: Answer::Success { event: format!("e{number}"), state: "spooled".to_owned() },
        };
        let start = RunStart {
            run: "r1".to_owned(),
            certname: "n01".to_owned(),
            pid: 1,
            supervisor: 1,
            at: 1,
            alone: true,
            causes: Vec::new(),
        };
        let window = |kind: &String| Window { kind: kind.clone(), node: None, from: 1, to: 2 };
        Artifacts {
            fires: (0..150).map(fire).collect(),
            runs: vec![Run { start, end: None }],
            hits: vec![Hit { run: "r1".to_owned(), at: 1, process: true }],
            windows: kinds().iter().map(window).collect(),
            ..Artifacts::default()
        }
    }

    fn lacking(doctor: impl FnOnce(&mut Artifacts)) -> Vec<String> {
        let mut artifacts = whole();
        doctor(&mut artifacts);
        lacks(&artifacts, &kinds(), BUDGET)
    }

    #[test]
    fn a_whole_trial_lacks_nothing() {
        assert_eq!(lacking(|_| ()), [""; 0]);
    }

    #[test]
    fn what_did_not_happen_is_named() {
        assert_eq!(lacking(|e| drop(e.windows.remove(0))), ["this never happened: crash of a node"]);
        assert_eq!(lacking(|e| e.runs.clear()), ["nothing ran"]);
        assert_eq!(lacking(|e| e.hits.clear()), ["no run was hit"]);
        assert_eq!(lacking(|e| e.fires[0].parent = None), ["nothing was fired inside a run"]);
        assert_eq!(lacking(|e| drop(e.fires.pop())), ["only 149 events, at least 150 should be"]);
        let commit = |fire: &mut Fire| {
            fire.answer = Answer::Success { event: "e".to_owned(), state: "committed".to_owned() };
        };
        assert_eq!(lacking(|e| e.fires.iter_mut().for_each(commit)), ["no event was spooled"]);
    }
}
