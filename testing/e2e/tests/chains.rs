//! Runs that fire: the chains that they extend, the loops that are cut, and the fires that belong to no chain.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use serde_json::{Value, json};
use trigger_e2e::{BackendKind, Fleet, Node, eventually, fired, on_each_backend, then};

on_each_backend!(
    a_run_that_fires_extends_the_chain_and_a_loop_is_cut,
    a_chain_ends_at_its_ttl_and_a_trigger_at_its_fourth_fire,
    a_run_cannot_wait_for_its_own_chain,
    what_outlives_its_run_fires_a_new_root,
    a_daemon_that_keeps_its_runs_output_open_fires_a_new_root,
    a_daemon_of_a_run_whose_supervisor_died_fires_a_new_root,
    fires_at_the_same_time_take_turns_with_the_budget,
    a_fire_that_failed_costs_none_of_three,
    a_member_of_a_group_looks_for_loops_itself,
    a_loop_that_is_allowed_ends_by_its_hops,
    a_loop_that_is_allowed_ends_by_its_fires,
    fires_that_were_suppressed_or_share_a_root_cost_one_of_three_or_none,
    a_run_whose_supervisor_died_is_still_a_parent,
    a_run_fires_as_the_node_it_runs_on_whatever_puppet_calls_itself,
    what_is_suppressed_without_an_agent_is_reported_by_the_next_one,
    a_run_that_cannot_be_read_fires_a_new_root_and_says_so,
    a_fire_that_cannot_be_noted_says_so,
    puppet_logs_what_the_loop_guard_suppressed,
);

fn id(fired: &Value) -> &str {
    fired["event_id"].as_str().unwrap_or_else(|| panic!("no event: {fired}"))
}

/// Returns the chains that an event carries, as the backend stores them.
fn lineage(fleet: &Fleet, event: &str) -> Value {
    let part =
        fleet.backend.get(&format!("/puppet_trigger/events/events/{event}/parts/0")).expect("an event");
    serde_json::from_str::<Value>(&part).expect("an event's JSON")["body"]["event"]["lineage"].clone()
}

/// Proves C7.
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
    // The warning comes at the end of the run, which may be a moment after its fire.
    a.wait_for_log(r#"trigger="to b" target="b" reason="loop: 'to b' already made b run in this chain"#);
    let end = a.wait_for(id(&cut), "b", "suppressed");
    assert!(end["reason"].as_str().is_some_and(|r| r.contains("'to b' → b, 'to a' → a")), "{end}");
    assert_eq!((a.runs().len(), b.runs().len()), (1, 1), "the loop went no further");

    // A fire outside any run may repeat the same event at once: it begins another chain.
    then(&b, "");
    let again = a.fire(&["to b", "--host", "b"]).committed();
    a.wait_for(&again, "b", "done");
}

/// Proves C7.
fn a_chain_ends_at_its_ttl_and_a_trigger_at_its_fourth_fire(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (a, b) = (fleet.running("a"), fleet.running("b"));
    then(&b, "fire short --ttl 1 --host a\nfor n in 1 2 3 4; do fire often --host a; done");
    a.fire(&["root", "--host", "b"]).committed();
    let fired = fired(&b, 5);
    let states: Vec<&str> = fired.iter().filter_map(|answer| answer["state"].as_str()).collect();
    assert_eq!(states, ["suppressed", "committed", "committed", "committed", "suppressed"], "{fired:?}");
    let warning = |answer: &Value| answer["warnings"][0].as_str().unwrap_or_default().to_owned();
    assert!(warning(&fired[0]).contains("1 hop and this trigger's ttl is 1"), "{}", fired[0]);
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
    // The run leaves a daemon behind that has the run's environment.
    let wait = "setsid sh -c 'while [ -e outlive ]; do sleep 0.02; done; trigger fire later --host a --output json >>fired'";
    then(&b, &format!("{wait} </dev/null >/dev/null 2>&1 &"));
    let event = a.fire(&["root", "--host", "b"]).committed();
    let run = a.wait_for(&event, "b", "done")["run_id"].clone();
    std::fs::remove_file(b.path("outlive")).expect("a daemon to let go");
    let later = fired(&b, 1).remove(0);
    assert_eq!(lineage(&fleet, id(&later)), json!([{ "root": id(&later), "hops": [] }]));

    // The variable alone makes no process part of a run that is over, or that never existed.
    let never = "019356b0-7c4a-7000-8000-000000000001";
    for pretended in [run.as_str().expect("a run"), never, "../../etc/passwd", ""] {
        let mut command = b.command(&["fire", "x", "--host", "a", "--output", "json"]);
        let output = command.env("TRIGGER_RUN_ID", pretended).output().expect("trigger");
        let answer: Value = serde_json::from_slice(&output.stdout).expect("an answer");
        assert_eq!(lineage(&fleet, id(&answer)), json!([{ "root": id(&answer), "hops": [] }]), "{pretended}");
    }
}

/// A daemon that a run leaves behind: it waits until the file `outlive` is gone, then fires, with the run's
/// environment and everything else that it inherited.
const DAEMON: &str = "setsid sh -c 'while [ -e outlive ]; do sleep 0.02; done; \
                      trigger fire later --host a --output json >>fired' &";

/// Lets the daemon of a run fire, and proves that it is no longer part of the run.
fn let_fire_a_new_root(fleet: &Fleet, node: &Node) {
    std::fs::remove_file(node.path("outlive")).expect("a daemon to let go");
    let later = fired(node, 1).remove(0);
    let key = format!("/puppet_trigger/events/events/{}/parts/0", id(&later));
    let part = fleet.backend.get(&key).expect("an event");
    let part: Value = serde_json::from_str(&part).expect("an event's JSON");
    let event = &part["body"]["event"];
    assert_eq!(event["lineage"], json!([{ "root": id(&later), "hops": [] }]), "{part}");
    assert!(event.get("fired_in").is_none(), "{part}");
}

fn a_daemon_that_keeps_its_runs_output_open_fires_a_new_root(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (a, b) = (fleet.running("a"), fleet.running("b"));
    b.write("outlive", "");
    then(&b, DAEMON);
    let event = a.fire(&["root", "--host", "b"]).committed();
    a.wait_for(&event, "b", "done");
    let_fire_a_new_root(&fleet, &b);
}

fn a_daemon_of_a_run_whose_supervisor_died_fires_a_new_root(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let a = fleet.running("a");
    let mut b = fleet.node("b");
    // Without a supervisor the run and its daemon cannot be distinguished until the run's timeout.
    b.set("run_timeout", "'5s'").start_agent();
    b.write("outlive", "");
    then(&b, &format!("[ -e second ] || {{ touch second; {DAEMON} }}"));
    b.hold();
    let event = a.fire(&["root", "--host", "b"]).committed();
    trigger_e2e::kill(b.wait_for_runs(1)[0].supervisor);
    b.release();
    a.wait_for(&event, "b", "done");
    assert_eq!(b.runs().len(), 2, "the run that was interrupted is repeated");
    let_fire_a_new_root(&fleet, &b);
}

fn fires_at_the_same_time_take_turns_with_the_budget(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (a, b) = (fleet.running("a"), fleet.running("b"));
    then(&b, "for n in 1 2 3 4 5 6 7 8; do fire often --host a & done; wait");
    a.fire(&["root", "--host", "b"]).committed();
    let states: Vec<Value> = fired(&b, 8).iter().map(|answer| answer["state"].clone()).collect();
    assert_eq!(states.iter().filter(|state| *state == "committed").count(), 3, "{states:?}");
    assert_eq!(states.iter().filter(|state| *state == "suppressed").count(), 5, "{states:?}");
}

fn a_fire_that_failed_costs_none_of_three(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (a, b) = (fleet.running("a"), fleet.running("b"));
    let failing = "for n in 1 2 3 4; do fire often --host a --prefix /unused; done";
    then(&b, &format!("{failing}; for n in 1 2 3 4; do fire often --host a; done"));
    a.fire(&["root", "--host", "b"]).committed();
    let answers = fired(&b, 8);
    assert!(answers[..4].iter().all(|answer| answer["error"].is_string()), "{answers:?}");
    let states: Vec<&Value> = answers[4..].iter().map(|answer| &answer["state"]).collect();
    assert_eq!(states, ["committed", "committed", "committed", "suppressed"]);
}

fn a_member_of_a_group_looks_for_loops_itself(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let mut a = fleet.node("a");
    a.set("groups", "['all']").start_agent();
    then(&a, "fire everybody --group all");
    let root = a.fire(&["everybody", "--group", "all"]).committed();
    a.wait_for(&root, "a", "done");
    let again = fired(&a, 1).remove(0);
    let warning = again["warnings"][0].as_str().unwrap_or_default();
    let expected = "not fired at the group member a: loop: 'everybody' already made a run in this chain";
    assert!(again["state"] == "committed" && warning.starts_with(expected), "{again}");
    let end = a.wait_for(id(&again), "a", "suppressed");
    assert!(end["reason"].as_str().is_some_and(|r| r.contains("already made a run in this chain")), "{end}");
    assert_eq!(a.runs().len(), 1);
}

fn a_loop_that_is_allowed_ends_by_its_hops(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (mut a, b) = (fleet.node("a"), fleet.running("b"));
    a.set("groups", "['all']").start_agent();
    // One direction goes through a group, whose member checks for loops itself; the other does not.
    then(&a, "fire 'to b' --loops allow --host b");
    then(&b, "fire 'to a' --loops allow --group all");
    a.fire(&["to b", "--host", "b"]).committed();
    let (by_a, by_b) = (fired(&a, 2), fired(&b, 3));
    assert!(by_a.iter().chain(&by_b[..2]).all(|answer| answer["state"] == "committed"), "{by_a:?} {by_b:?}");
    assert_eq!(by_b[2]["state"], "suppressed", "{}", by_b[2]);
    let warning = by_b[2]["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.contains("the chain has 5 hops and this trigger's ttl is 5"), "{warning}");
    b.wait_for_log(r#"trigger="to a" target="group all" reason="loop guard: the chain has 5 hops"#);
    let end = a.wait_for(id(&by_b[2]), "a", "suppressed");
    assert_eq!((a.runs().len(), b.runs().len()), (2, 3), "{end}");
}

fn a_loop_that_is_allowed_ends_by_its_fires(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (a, b) = (fleet.running("a"), fleet.running("b"));
    then(&a, "fire 'to b' --loops allow --ttl 64 --host b");
    then(&b, "fire 'to a' --loops allow --ttl 64 --host a");
    let root = a.fire(&["to b", "--host", "b"]).committed();
    let by_b = fired(&b, 4);
    assert!(by_b[..3].iter().all(|answer| answer["state"] == "committed"), "{by_b:?}");
    assert_eq!(by_b[3]["state"], "suppressed", "{}", by_b[3]);
    let warning = by_b[3]["warnings"][0].as_str().unwrap_or_default();
    let expected = format!("'to a' fired 3 times on this node for the same root event {root}");
    assert!(warning.contains(&expected), "{warning}");
    assert_eq!((a.runs().len(), b.runs().len()), (3, 4));
}

fn fires_that_were_suppressed_or_share_a_root_cost_one_of_three_or_none(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (a, b, c) = (fleet.running("a"), fleet.running("b"), fleet.running("c"));
    then(&b, "fire one --host c; fire two --host c");
    // The first run of c only delays the others, so that the next run has two causes of one root.
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
    assert_eq!(states[4..], none_then_one, "a suppressed event counts as no fire: {answers:?}");
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

fn a_run_fires_as_the_node_it_runs_on_whatever_puppet_calls_itself(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (a, b) = (fleet.running("a"), fleet.running("b"));
    then(&b, "fire next --certname puppet-name.example.com --host a");
    a.fire(&["root", "--host", "b"]).committed();
    let next = fired(&b, 1).remove(0);
    a.wait_for(id(&next), "a", "done");
    assert_eq!(a.status(id(&next)).expect("an event")["origin"], "b");
    // The run is found under its node's certname.
    let why = eventually("b's run", || {
        let why = a.trigger(&["why", "a", "--output", "json"]);
        if why.json["runs"][1]["state"] == "ended" { Ok(why.json) } else { Err(why.stdout) }
    });
    assert_eq!(why["runs"][1]["certname"], "b", "{why}");
}

fn what_is_suppressed_without_an_agent_is_reported_by_the_next_one(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (a, mut b) = (fleet.running("a"), fleet.node("b"));
    let metrics = format!("'{}'", b.path("trigger.prom").display());
    b.set("metrics_file", &metrics).start_agent();
    // A fire that fails suppresses no target.
    let failing = "fire failing --prefix /unused --ttl 1 --host a --host n1";
    then(
        &b,
        &format!("{failing}; fire short --ttl 1 --host a --host n1 --host n2 --host n3 --host n4 --host n5"),
    );
    b.hold();
    let root = a.fire(&["root", "--host", "b"]).committed();
    b.wait_for_runs(1);
    b.kill_agent();
    b.release();
    let short = fired(&b, 2).remove(1);
    assert_eq!(short["state"], "suppressed", "{short}");
    let named =
        "not fired at a, n1, n2 and 3 more: loop guard: the chain has 1 hop and this trigger's ttl is 1";
    assert!(short["warnings"][0].as_str().is_some_and(|warning| warning.starts_with(named)), "{short}");
    b.start_agent();
    a.wait_for(&root, "b", "done");
    b.wait_for_log(r#"trigger="short" target="n1" reason="loop guard: the chain has 1 hop"#);
    b.wait_for_log("more targets suppressed more=2");
    assert!(!b.agent_log().contains("\"failing\""), "{}", b.agent_log());
    let counted = "trigger_agent_targets_suppressed_total{rule=\"hops\"} 6";
    eventually("targets that were counted", || {
        let text = std::fs::read_to_string(b.path("trigger.prom")).unwrap_or_default();
        if text.lines().any(|line| line == counted) { Ok(()) } else { Err(text) }
    });
}

fn a_run_that_cannot_be_read_fires_a_new_root_and_says_so(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (a, b) = (fleet.running("a"), fleet.running("b"));
    then(&b, "fire next --host a");
    b.hold();
    a.fire(&["root", "--host", "b"]).committed();
    let run = b.wait_for_runs(1).remove(0).run_id;
    let record = b.path(&format!("state/runs/{run}.json"));
    let whole = std::fs::read_to_string(&record).expect("a record");
    // This is the record in the form of a newer version.
    std::fs::write(&record, whole.replacen("\"v\":1", "\"v\":2", 1)).expect("another version");
    b.release();
    let next = fired(&b, 1).remove(0);
    std::fs::write(&record, whole).expect("the record as it was");
    let warning = next["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.starts_with("the loop guard does not know what led to this event"), "{next}");
    assert_eq!(lineage(&fleet, id(&next)), json!([{ "root": id(&next), "hops": [] }]));
}

fn a_fire_that_cannot_be_noted_says_so(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (a, b) = (fleet.running("a"), fleet.running("b"));
    // A directory takes the place of the note.
    then(&b, "mkdir state/runs/$TRIGGER_RUN_ID.fired; fire next --host a");
    let root = a.fire(&["root", "--host", "b"]).committed();
    let next = fired(&b, 1).remove(0);
    let warning = next["warnings"][0].as_str().unwrap_or_default();
    assert!(warning.starts_with("neither 'trigger why' nor the agent's log will show"), "{next}");
    assert_eq!(next["state"], "committed", "{next}");
    a.wait_for(&root, "b", "done");
    b.wait_for_log("cannot read which targets the loop guard suppressed");
}

/// Returns the warnings in the output of a run of Puppet, without Facter's warnings about a container.
fn warnings(node: &Node, run: &Value) -> Vec<String> {
    let run = run["run_id"].as_str().unwrap_or_else(|| panic!("no run: {run}"));
    let log = std::fs::read_to_string(node.path(&format!("state/runs/{run}.log"))).expect("a run's output");
    let warnings = log.lines().filter(|line| line.contains("Warning:") && !line.contains("Facter:"));
    warnings.map(str::to_owned).collect()
}

/// Proves C7.
fn puppet_logs_what_the_loop_guard_suppressed(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let a = fleet.running("a");
    let mut b = fleet.node("b");
    b.runs_puppet(
        "notify { 'a change': } ~> trigger { 'once': hosts => ['b'] }
         notify { 'another': } ~> trigger { 'twice': hosts => ['b'], loops => 'allow', ttl => 2 }",
    );
    b.start_agent();
    let root = a.fire(&["once", "--host", "b"]).committed();
    let first = a.wait_for(&root, "b", "done");
    let said = warnings(&b, &first);
    let expected =
        "Trigger[once]: not fired at b: loop: 'once' already made b run in this chain ('once' → b)";
    assert!(matches!(&said[..], [only] if only.contains(expected)), "{said:?}");

    let latest = eventually("the end of the run that 'twice' led to", || {
        let events = b.trigger(&["status", "--output", "json"]).json["events"].clone();
        let twice = |event: &&Value| event["trigger"] == "twice" && event["targets"][0]["state"] == "done";
        let found = events.as_array().and_then(|events| events.iter().find(twice).cloned());
        found.map(|event| event["targets"][0].clone()).ok_or_else(|| events.to_string())
    });
    let said = warnings(&b, &latest);
    let expected = [
        "Trigger[once]: not fired at b: loop: 'once' already made b run in this chain",
        "Trigger[twice]: not fired at b: loop guard: the chain has 2 hops and this trigger's ttl is 2 \
         ('once' → b, 'twice' → b)",
    ];
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(expected.iter().all(|words| said.iter().any(|line| line.contains(words))), "{said:?}");
}
