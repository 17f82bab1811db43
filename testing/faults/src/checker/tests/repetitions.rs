//! The runs that may be repeated, and those that only claim so.

use super::*;

const ONCE: &str = "no repetition without a crash";
const LOST: &str = "no lost wake-up";
const ENDED: &str = "a run ends by itself or is killed";

#[test]
fn a_double_run_is_found_and_a_repetition_after_a_kill_is_none() {
    assert_eq!(doctored(|e| again(e, "r3", 50)), [ONCE]);
    let after_a_kill = |e: &mut Artifacts| {
        killed(e, "r1", 25);
        again(e, "r3", 50);
    };
    assert_eq!(doctored(after_a_kill), [""; 0]);
    let twice = |e: &mut Artifacts| {
        after_a_kill(e);
        killed(e, "r3", 55);
        again(e, "r4", 70);
    };
    assert_eq!(doctored(twice), [ONCE]);
}

#[test]
fn a_kill_of_a_run_that_had_its_result_excuses_no_repetition() {
    let rules = doctored(|e| {
        killed(e, "r1", 25);
        e.records.get_mut("r1").unwrap().outcome = "changed".to_owned();
        again(e, "r3", 50);
    });
    assert_eq!(rules, [ONCE, ENDED]);
}

#[test]
fn a_delivery_ends_as_interrupted_only_after_a_repetition() {
    let once = |e: &mut Artifacts| {
        killed(e, "r1", 25);
        statuses(e, "e1")[0] = interrupted("b", "r1");
    };
    assert_eq!(doctored(once), [LOST]);
    let twice = |e: &mut Artifacts| {
        killed(e, "r1", 25);
        again(e, "r3", 50);
        killed(e, "r3", 55);
        statuses(e, "e1")[0] = interrupted("b", "r3");
    };
    assert_eq!(doctored(twice), [""; 0]);
}

#[test]
fn a_run_that_vanished_is_found() {
    let rules = doctored(|e| {
        killed(e, "r1", 25);
        e.hits.clear();
        again(e, "r3", 50);
    });
    assert_eq!(rules, [ENDED]);
}

#[test]
fn a_run_that_was_executed_twice_is_found() {
    let rules = doctored(|e| e.runs.push(run("r1", "b", (50, 60), "e1")));
    assert_eq!(rules, [ONCE, "a run is executed once"]);
}

/// Run `r0` was recorded at 15 and wrote nothing to its log; `r1` was killed at 25.
fn silent(e: &mut Artifacts) {
    let (name, record) = record("r0", "b", 15, "e1");
    e.records.insert(name, Record { outcome: "interrupted".to_owned(), ..record });
    killed(e, "r1", 25);
    statuses(e, "e1")[0] = interrupted("b", "r1");
}

#[test]
fn a_run_that_never_said_a_word_needs_its_agents_death_at_that_time() {
    let agent_killed = |node: &str, from: u64| {
        doctored(|e| {
            silent(e);
            let (kind, node) = ("kill -9 of an agent".to_owned(), Some(node.to_owned()));
            e.windows.push(Window { kind, node, from, to: from + 4 });
        })
    };
    assert_eq!(agent_killed("b", 16), [""; 0]);
    assert_eq!(agent_killed("c", 16), [ENDED], "another node's");
    assert_eq!(agent_killed("b", 6_000_000_000), [ENDED], "long after");
}

#[test]
fn a_delivery_that_no_log_and_no_record_knows_the_run_of_is_found() {
    let unknown = |e: &mut Artifacts| {
        killed(e, "r1", 25);
        e.hits.push(hit("r9", 40));
        statuses(e, "e1")[0] = interrupted("b", "r9");
    };
    assert_eq!(doctored(unknown), [LOST]);
}
