//! The checker accepts a good trial, and names the violation in each doctored one.

mod ends;
mod fires;
mod repetitions;
mod restores;

use std::collections::BTreeSet;

use super::check;
use crate::artifacts::{Artifacts, Record, Run, Target, Window};
use crate::journal::{Answer, Cause, Chain, Fire, Hit, RunEnd, RunStart};

/// Event `e1` is fired at 10 on `a` for `b` and for the group `g` (`c`); `b` runs `r1` from 20 to 30, `c` runs
/// `r2` from 21 to 40.
fn good() -> Artifacts {
    Artifacts {
        groups: [("g".to_owned(), BTreeSet::from(["c".to_owned()]))].into(),
        fires: vec![fire("e1", 10)],
        runs: vec![run("r1", "b", (20, 30), "e1"), run("r2", "c", (21, 40), "e1")],
        records: [record("r1", "b", 20, "e1"), record("r2", "c", 21, "e1")].into(),
        statuses: [("e1".to_owned(), vec![done("b", "r1"), done("c", "r2")])].into(),
        ..Artifacts::default()
    }
}

fn fire(event: &str, before: u64) -> Fire {
    Fire {
        origin: "a".to_owned(),
        parent: None,
        trigger: "t".to_owned(),
        hosts: vec!["b".to_owned()],
        groups: vec!["g".to_owned()],
        noop: false,
        away: false,
        before,
        after: before + 5,
        answer: Answer::Success { event: event.to_owned(), state: "committed".to_owned() },
    }
}

fn run(run: &str, certname: &str, (from, to): (u64, u64), event: &str) -> Run {
    let start = RunStart {
        run: run.to_owned(),
        certname: certname.to_owned(),
        pid: 1,
        supervisor: 1,
        at: from,
        alone: true,
        causes: vec![cause(event, &[])],
    };
    Run { start, end: Some(RunEnd { run: run.to_owned(), at: to, code: 0 }) }
}

/// Makes a run's own record, with its result.
fn record(run: &str, certname: &str, started: u64, event: &str) -> (String, Record) {
    let (certname, outcome) = (certname.to_owned(), "changed".to_owned());
    (run.to_owned(), Record { certname, causes: vec![event.to_owned()], outcome, started })
}

fn cause(event: &str, hops: &[(&str, &str)]) -> Cause {
    let hops = hops.iter().map(|(trigger, node)| ((*trigger).to_owned(), (*node).to_owned())).collect();
    Cause {
        event: event.to_owned(),
        trigger: "t".to_owned(),
        chains: vec![Chain { root: "root".to_owned(), hops }],
    }
}

fn target(certname: &str, state: &str) -> Target {
    Target {
        certname: certname.to_owned(),
        state: state.to_owned(),
        outcome: None,
        run_id: None,
        reason: None,
    }
}

fn done(certname: &str, run: &str) -> Target {
    Target { run_id: Some(run.to_owned()), outcome: Some("changed".to_owned()), ..target(certname, "done") }
}

fn hit(run: &str, at: u64) -> Hit {
    Hit { run: run.to_owned(), at, process: true }
}

/// Doctors the good trial and returns the rules that the checker finds broken.
#[track_caller]
fn doctored(doctor: impl FnOnce(&mut Artifacts)) -> Vec<&'static str> {
    let mut artifacts = good();
    doctor(&mut artifacts);
    let mut rules: Vec<_> = check(&artifacts).into_iter().map(|violation| violation.rule).collect();
    rules.dedup();
    rules
}

fn statuses<'a>(artifacts: &'a mut Artifacts, event: &str) -> &'a mut Vec<Target> {
    artifacts.statuses.entry(event.to_owned()).or_default()
}

/// Makes a run one that was killed before its end.
fn killed(artifacts: &mut Artifacts, run: &str, at: u64) {
    let of_it = artifacts.runs.iter_mut().filter(|known| known.start.run == run);
    of_it.for_each(|run| run.end = None);
    artifacts.records.get_mut(run).unwrap().outcome = "interrupted".to_owned();
    artifacts.hits.push(hit(run, at));
}

/// Adds one more run of `b` for `e1`.
fn again(artifacts: &mut Artifacts, name: &str, from: u64) {
    artifacts.runs.push(run(name, "b", (from, from + 10), "e1"));
    artifacts.records.extend([record(name, "b", from, "e1")]);
    statuses(artifacts, "e1")[0] = done("b", name);
}

fn interrupted(certname: &str, run: &str) -> Target {
    let outcome = Some("interrupted".to_owned());
    Target { outcome, state: "failed".to_owned(), ..done(certname, run) }
}

#[test]
fn a_good_trial_has_no_violation() {
    assert_eq!(check(&good()), []);
}

#[test]
fn a_lost_event_is_found() {
    let rule = ["no lost wake-up"];
    assert_eq!(doctored(|e| statuses(e, "e1")[0] = target("b", "pending")), rule);
    assert_eq!(doctored(|e| drop(statuses(e, "e1").remove(1))), rule);
    assert_eq!(doctored(|e| drop(e.statuses.remove("e1"))), rule);
}

#[test]
fn an_end_that_no_run_bears_out_is_found() {
    let rule = ["no lost wake-up"];
    assert_eq!(doctored(|e| statuses(e, "e1")[0] = done("b", "r9")), rule);
    assert_eq!(doctored(|e| statuses(e, "e1")[0] = done("b", "r2")), rule);
    assert_eq!(doctored(|e| statuses(e, "e1")[0] = done("b", "r1")), [""; 0]);
    assert_eq!(doctored(|e| e.runs[0].end.as_mut().unwrap().code = 1), rule);
    assert_eq!(doctored(|e| statuses(e, "e1")[0] = interrupted("b", "r1")), rule, "nothing hit it");
    assert_eq!(doctored(|e| statuses(e, "e1")[0].state = "failed".to_owned()), rule);
}

#[test]
fn a_run_that_did_not_cover_the_event_is_found() {
    let rules = doctored(|e| {
        e.fires.push(fire("e2", 11));
        e.statuses.insert("e2".to_owned(), vec![done("b", "r1"), done("c", "r2")]);
    });
    assert_eq!(rules, ["no lost wake-up"]);
}

#[test]
fn a_run_that_started_before_the_event_is_found() {
    let rules = doctored(|e| e.runs[0].start.at = 9);
    assert_eq!(rules, ["no lost wake-up", "no run without a cause"]);
}

#[test]
fn runs_side_by_side_are_found() {
    let beside = |from| {
        doctored(|e| {
            e.fires.push(fire("e2", 12));
            e.runs.push(run("r3", "b", (from, from + 20), "e2"));
            e.runs.push(run("r4", "c", (50, 60), "e2"));
            e.statuses.insert("e2".to_owned(), vec![done("b", "r3"), done("c", "r4")]);
        })
    };
    assert_eq!(beside(29), ["one run at a time"]);
    assert_eq!(beside(31), [""; 0]);
    assert_eq!(doctored(|e| e.runs[0].start.alone = false), ["one run at a time"]);
}

#[test]
fn a_run_beside_one_whose_supervisor_was_killed_is_found() {
    let rules = doctored(|e| {
        let end = e.runs[0].end.clone();
        killed(e, "r1", 22);
        e.hits[0].process = false;
        e.runs[0].end = end;
        again(e, "r3", 25);
    });
    assert_eq!(rules, ["one run at a time"]);
}

#[test]
fn a_run_without_a_cause_is_found() {
    let rule = ["no run without a cause"];
    assert_eq!(doctored(|e| e.runs.push(run("r3", "b", (50, 60), "e9"))), rule);
    assert_eq!(doctored(|e| e.runs.push(run("r3", "d", (50, 60), "e1"))), rule);
    assert_eq!(
        doctored(|e| {
            let idle = run("r3", "b", (50, 60), "e1");
            e.runs.push(Run { start: RunStart { causes: Vec::new(), ..idle.start }, end: idle.end });
        }),
        rule
    );
}

#[test]
fn an_end_that_the_event_should_not_have_is_found() {
    let rule = ["every delivery ends visibly"];
    for state in ["expired", "refused", "suppressed", "superseded"] {
        assert_eq!(doctored(|e| statuses(e, "e1")[0] = target("b", state)), rule, "{state}");
    }
}

#[test]
fn a_noop_event_that_ran_is_found() {
    let rules = doctored(|e| e.fires[0].noop = true);
    assert_eq!(rules, ["no lost wake-up", "no run without a cause"]);
}

#[test]
fn loops_are_found() {
    let rule = ["no runaway loops"];
    let chain = |hops: &[(&str, &str)]| {
        let cause = cause("e1", hops);
        doctored(|e| e.runs[0].start.causes = vec![cause])
    };
    assert_eq!(chain(&[("s", "a"), ("s", "b")]), [""; 0]);
    assert_eq!(chain(&[("s", "a"), ("t", "b")]), rule, "this trigger made this node run before");
    assert_eq!(chain(&[("s", "a"), ("s", "c"), ("s", "a")]), rule, "twice the same pair");
    let long = [("s", "a"), ("s", "b"), ("s", "c"), ("s", "d"), ("s", "e"), ("s", "f")];
    assert_eq!(chain(&long), rule, "more hops than the ttl");
}

#[test]
fn a_fourth_fire_for_one_root_is_found() {
    let fires = |count: u64| {
        doctored(|e| {
            for number in 0..count {
                let (event, b, c) = (format!("f{number}"), format!("b{number}"), format!("c{number}"));
                let at = 100 * (number + 1);
                e.fires.push(Fire { parent: Some("r1".to_owned()), ..fire(&event, at) });
                e.runs.push(run(&b, "b", (at + 10, at + 20), &event));
                e.runs.push(run(&c, "c", (at + 10, at + 20), &event));
                e.statuses.insert(event, vec![done("b", &b), done("c", &c)]);
            }
        })
    };
    assert_eq!(fires(3), [""; 0]);
    assert_eq!(fires(4), ["no runaway loops"]);
}

#[test]
fn what_is_left_behind_is_found() {
    let rules = doctored(|e| e.leftovers.push("b: spooled: 1 event".to_owned()));
    assert_eq!(rules, ["nothing is left behind"]);
}

#[test]
fn what_died_by_itself_is_found() {
    let rules = doctored(|e| e.deaths.push("the agent of b ended with 101".to_owned()));
    assert_eq!(rules, ["nothing dies by itself"]);
}
