//! Runs that fire: the chain they extend, the loops that are cut, and what is no part of a chain.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use serde_json::{Value, json};
use trigger_e2e::{BackendKind, Fleet, Node, eventually, on_each_backend};

on_each_backend!(
    a_run_that_fires_extends_the_chain_and_a_loop_is_cut,
    a_chain_ends_at_its_ttl_and_a_trigger_at_its_fourth_fire,
    a_run_cannot_wait_for_its_own_chain,
    what_outlives_its_run_fires_a_new_root,
    a_member_of_a_group_looks_for_loops_itself,
    fires_that_were_suppressed_or_share_a_root_cost_one_of_three_or_none,
    a_run_whose_supervisor_died_is_still_a_parent,
);

/// Makes each run of a node end with these lines of shell, `fire` among them.
fn then(node: &Node, lines: &str) {
    node.write("then", &format!("fire() {{ trigger fire --output json \"$@\" >>fired; }}\n{lines}\n"));
}

/// What the runs of a node got as answers to their fires, once there are so many.
fn fired(node: &Node, count: usize) -> Vec<Value> {
    eventually(&format!("{count} fires by runs of {}", node.certname()), || {
        let text = std::fs::read_to_string(node.path("fired")).unwrap_or_default();
        let fired: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if fired.len() >= count { Ok(fired) } else { Err(text) }
    })
}

fn id(fired: &Value) -> &str {
    fired["event_id"].as_str().unwrap_or_else(|| panic!("no event: {fired}"))
}

/// The chains that an event carries, as the backend keeps them.
fn lineage(fleet: &Fleet, event: &str) -> Value {
    let part = fleet.backend.get(&format!("/puppet_trigger/events/events/{event}/0")).expect("an event");
    serde_json::from_str::<Value>(&part).expect("an event's JSON")["lineage"].clone()
}

fn a_run_that_fires_extends_the_chain_and_a_loop_is_cut(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (a, b) = (fleet.running("a"), fleet.running("b"));
    then(&a, "fire 'to b' --host b");
    then(&b, "fire 'to a' --host a");
    let root = a.fire(&["to b", "--host", "b"]).committed();

    let back = fired(&b, 1).remove(0);
    assert_eq!(
        lineage(&fleet, id(&back)),
        json!([{ "root": root, "hops": [{ "trigger": "to b", "certname": "b" }] }])
    );
    a.wait_for(id(&back), "a", "done");

    let cut = fired(&a, 1).remove(0);
    assert_eq!(cut["state"], "suppressed", "{cut}");
    assert!(cut["warnings"][0].as_str().is_some_and(|w| w.contains("not fired at b: loop")), "{cut}");
    let end = a.wait_for(id(&cut), "b", "suppressed");
    assert!(end["reason"].as_str().is_some_and(|r| r.contains("'to b' → b, 'to a' → a")), "{end}");
    assert_eq!((a.runs().len(), b.runs().len()), (1, 1), "the loop went no further");

    // From outside the same may be fired at once again: it is another chain.
    then(&b, "");
    let again = a.fire(&["to b", "--host", "b"]).committed();
    a.wait_for(&again, "b", "done");
}

fn a_chain_ends_at_its_ttl_and_a_trigger_at_its_fourth_fire(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (a, b) = (fleet.running("a"), fleet.running("b"));
    then(&b, "fire short --ttl 1 --host a\nfor n in 1 2 3 4; do fire often --host a; done");
    a.fire(&["root", "--host", "b"]).committed();
    let fired = fired(&b, 5);
    let states: Vec<&str> = fired.iter().filter_map(|answer| answer["state"].as_str()).collect();
    assert_eq!(states, ["suppressed", "committed", "committed", "committed", "suppressed"], "{fired:?}");
    let warning = |answer: &Value| answer["warnings"][0].as_str().unwrap_or_default().to_owned();
    assert!(warning(&fired[0]).contains("1 hops and this trigger's ttl is 1"), "{}", fired[0]);
    assert!(warning(&fired[4]).contains("fired 3 times on this node for the same root"), "{}", fired[4]);
    a.wait_for(id(&fired[3]), "a", "done");
}

fn a_run_cannot_wait_for_its_own_chain(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (a, b) = (fleet.running("a"), fleet.running("b"));
    then(&b, "fire self --wait --host b\nfire other --wait --timeout 60s --host a");
    a.fire(&["root", "--host", "b"]).committed();
    let fired = fired(&b, 2);
    assert!(fired[0]["error"].as_str().is_some_and(|e| e.contains("could deadlock")), "{}", fired[0]);
    assert_eq!(fired[1]["targets"][0]["state"], "done", "a is no part of the chain: {}", fired[1]);
}

fn what_outlives_its_run_fires_a_new_root(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (a, b) = (fleet.running("a"), fleet.running("b"));
    b.write("outlive", "");
    // A daemon that the run leaves behind, with the run's environment in it.
    let wait = "setsid sh -c 'while [ -e outlive ]; do sleep 0.02; done; trigger fire later --host a --output json >>fired'";
    then(&b, &format!("{wait} </dev/null >/dev/null 2>&1 &"));
    let event = a.fire(&["root", "--host", "b"]).committed();
    let run = a.wait_for(&event, "b", "done")["run_id"].clone();
    std::fs::remove_file(b.path("outlive")).expect("a daemon to let go");
    let later = fired(&b, 1).remove(0);
    assert_eq!(lineage(&fleet, id(&later)), json!([{ "root": id(&later), "hops": [] }]));

    // Nor does a variable make anybody part of a run that is over, or that never was.
    let never = "019356b0-7c4a-7000-8000-000000000001";
    for pretended in [run.as_str().expect("a run"), never, "../../etc/passwd", ""] {
        let mut command = b.command(&["fire", "x", "--host", "a", "--output", "json"]);
        let output = command.env("TRIGGER_RUN_ID", pretended).output().expect("trigger");
        let answer: Value = serde_json::from_slice(&output.stdout).expect("an answer");
        assert_eq!(lineage(&fleet, id(&answer)), json!([{ "root": id(&answer), "hops": [] }]), "{pretended}");
    }
}

fn a_member_of_a_group_looks_for_loops_itself(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let mut a = fleet.node("a");
    a.set("groups", "['all']").start_agent();
    then(&a, "fire everybody --group all");
    let root = a.fire(&["everybody", "--group", "all"]).committed();
    a.wait_for(&root, "a", "done");
    let again = fired(&a, 1).remove(0);
    let end = a.wait_for(id(&again), "a", "suppressed");
    assert!(end["reason"].as_str().is_some_and(|r| r.contains("already made a run in this chain")), "{end}");
    assert_eq!(a.runs().len(), 1);
}

fn fires_that_were_suppressed_or_share_a_root_cost_one_of_three_or_none(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (a, b, c) = (fleet.running("a"), fleet.running("b"), fleet.running("c"));
    then(&b, "fire one --host c; fire two --host c");
    // The first run of c only keeps the others waiting, so that the next one has two causes of one root.
    let skip_first = "[ -e second ] || { touch second; return 0; }";
    let looped = "for n in 1 2 3; do fire root --host b; done; fire root --host a";
    then(&c, &format!("{skip_first}\nfor n in 1 2 3 4; do fire next --host a; done\n{looped}"));
    c.hold();
    a.fire(&["first", "--host", "c"]).committed();
    c.wait_for_runs(1);
    a.fire(&["root", "--host", "b"]).committed();
    fired(&b, 2);
    eventually("two causes that wait", || {
        let waiting = c.queue()["waiting"].clone();
        if waiting.as_array().map(Vec::len) == Some(2) { Ok(()) } else { Err(waiting.to_string()) }
    });
    c.release();
    let answers = fired(&c, 8);
    let states: Vec<&str> = answers.iter().filter_map(|answer| answer["state"].as_str()).collect();
    let three_then_none = ["committed", "committed", "committed", "suppressed"];
    assert_eq!(states[..4], three_then_none, "two chains to one root are one fire for it: {answers:?}");
    let none_then_one = ["suppressed", "suppressed", "suppressed", "committed"];
    assert_eq!(states[4..], none_then_one, "what was suppressed was no fire: {answers:?}");
}

fn a_run_whose_supervisor_died_is_still_a_parent(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (a, b) = (fleet.running("a"), fleet.running("b"));
    then(&b, "fire next --host a");
    b.hold();
    let root = a.fire(&["root", "--host", "b"]).committed();
    trigger_e2e::kill(b.wait_for_runs(1)[0].supervisor);
    b.release();
    let next = fired(&b, 1).remove(0);
    assert_eq!(lineage(&fleet, id(&next))[0]["root"], root, "{next}");
}
