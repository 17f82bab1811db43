//! Why a node ran: the chain over several nodes, the causes that shared a run, and the cuts of the loop guard.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use serde_json::Value;
use trigger_e2e::{
    BackendKind, Fleet, Node, eventually, fired, on_each_backend, on_each_plain_backend, then,
};

on_each_backend!(
    a_chain_over_three_nodes_is_explained_from_each_of_them,
    a_suppressed_loop_shows_where_it_was_suppressed,
    a_backlog_that_was_collapsed_is_counted,
    a_node_whose_certname_has_the_form_of_an_id_is_a_node,
);

on_each_plain_backend!(
    a_chain_over_three_nodes_is_explained_from_each_of_them,
    run_history_survives_its_agent_and_its_backends_memory,
    a_node_that_is_silent_in_the_middle_of_its_run_is_said_to_be,
);

fn id(fired: &Value) -> String {
    fired["event_id"].as_str().unwrap_or_else(|| panic!("no event: {fired}")).to_owned()
}

/// Runs `trigger why ARGUMENTS --output json` on a node.
fn why(node: &Node, arguments: &[&str]) -> Value {
    let answer = node.trigger(&[&["why", "--output", "json"], arguments].concat());
    assert_eq!(answer.code, 0, "{answer:?}");
    answer.json
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[][..], Vec::as_slice)
}

/// Returns the runs of an answer, nearest first, in the form `lb01 changed`.
fn runs(answer: &Value) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let run = |run: &Value| {
        let state = if run["outcome"].is_null() { &run["state"] } else { &run["outcome"] };
        format!("{} {}", word(&run["certname"]), word(state))
    };
    list(&answer["runs"]).iter().map(run).collect()
}

/// Returns an event of an answer.
fn event<'a>(answer: &'a Value, id: &str) -> &'a Value {
    let mut events = list(&answer["events"]).iter();
    events.find(|event| event["event_id"] == id).unwrap_or_else(|| panic!("no event {id} in {answer}"))
}

fn a_chain_over_three_nodes_is_explained_from_each_of_them(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (a, b, c) = (fleet.running("a"), fleet.running("b"), fleet.running("c"));
    let operator = fleet.operator();
    let nothing = operator.trigger(&["why", "c", "--output", "json"]).error(1);
    assert!(nothing.contains("c is registered, but reports no run"), "{nothing}");
    let unknown = operator.trigger(&["why", "unknown", "--output", "json"]).error(1);
    assert!(unknown.contains("no agent has registered"), "{unknown}");

    then(&b, "fire 'from b' --host c");
    c.hold();
    let first = a.fire(&["first", "--host", "c"]).committed();
    c.wait_for_runs(1);
    let running = eventually("c's run in progress", || {
        let answer = operator.trigger(&["why", "c", "--output", "json"]);
        if answer.code == 0 { Ok(answer.json) } else { Err(answer.stdout) }
    });
    assert_eq!(runs(&running), ["c running"], "{running}");
    assert_eq!(event(&running, &first)["trigger"], "first");

    // All of these events share c's next run.
    let root = a.fire(&["to b", "--host", "b"]).committed();
    let from_b = id(&fired(&b, 1)[0]);
    let by_hand: Vec<String> = (0..12).map(|_| a.fire(&["by \"hand\"", "--host", "c"]).committed()).collect();
    eventually("all that waits at c", || {
        let waiting = c.queue()["waiting"].clone();
        if list(&waiting).len() == 13 { Ok(()) } else { Err(waiting.to_string()) }
    });
    c.release();
    let end = b.wait_for(&from_b, "c", "done");

    let latest = why(&operator, &["c"]);
    assert_eq!(latest["run_id"], end["run_id"]);
    assert_eq!(runs(&latest), ["c changed", "b changed"]);
    assert_eq!(list(&latest["runs"][0]["causes"]).len(), 13, "{latest}");
    assert_eq!(latest["runs"][0]["started_at"], end["started_at"]);
    assert_eq!(event(&latest, &from_b)["fired_in"], latest["runs"][1]["run_id"], "{latest}");
    assert_eq!(event(&latest, &root)["root"], true);
    assert_eq!(event(&latest, &by_hand[11])["origin"], "a");
    assert_eq!(runs(&why(&c, &[]))[0], "c changed", "without a name, on the node itself");
    // A hub that knows its clients shows other nodes' runs to operators only.
    if kind != BackendKind::Hub {
        assert_eq!(why(&a, &["c"]), latest, "every node gives the same answer");
        assert_eq!(why(&b, &["c"]), latest);
        assert_eq!(why(&c, &[]), latest);
    }

    let text = operator.trigger(&["why", "c"]);
    let expected = [
        "c ran at ",
        "because of 'from b', fired on b at ",
        "b ran at ",
        "because of 'to b', fired on a at ",
        "the root: fired outside any run",
        "and 11 more events that shared the run",
        "11 of 'by \"hand\"', fired on a",
    ];
    for line in expected {
        assert!(text.stdout.contains(line), "'{line}' in\n{}", text.stdout);
    }
    assert_eq!(text.stderr, "");

    let back = why(&operator, &["c", "--run", "1"]);
    assert_eq!(
        (runs(&back), &event(&back, &first)["root"]),
        (vec!["c changed".to_owned()], &Value::Bool(true))
    );
    let by_id = why(&operator, &["c", "--run", back["run_id"].as_str().expect("a run")]);
    assert_eq!(by_id, back);
    let too_far = operator.trigger(&["why", "c", "--run", "2", "--output", "json"]).error(1);
    assert!(too_far.contains("its latest 2 runs only: --run goes from 0 to 1"), "{too_far}");

    let of_event = why(&operator, &[&from_b]);
    assert_eq!(runs(&of_event), ["b changed"]);
    assert_eq!(of_event["targets"][0]["run_id"], latest["run_id"]);
    let status = operator.trigger(&["status", &from_b]).stdout;
    assert!(status.contains(&format!("1 hop long: trigger why {from_b}")), "{status}");

    let dot = operator.trigger(&["why", "c", "--output", "dot"]);
    assert_eq!(dot.code, 0, "{dot:?}");
    assert!(dot.stdout.starts_with("digraph why {\n") && dot.stdout.ends_with("}\n"), "{}", dot.stdout);
    assert!(dot.stdout.contains(r#"[label="11 more of 'by \"hand\"'\nfired on a""#), "{}", dot.stdout);
}

fn a_suppressed_loop_shows_where_it_was_suppressed(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (mut a, b) = (fleet.node("a"), fleet.running("b"));
    a.set("groups", "['all']").start_agent();
    let operator = fleet.operator();
    then(&a, "fire 'to b' --host b; fire everybody --group all");
    then(&b, "fire 'to a' --host a");
    b.fire(&["everybody", "--group", "all"]).committed();

    let [to_b, by_group] = [0, 1].map(|index| id(&fired(&a, 2)[index]));
    a.wait_for(&by_group, "a", "suppressed");
    a.wait_for(&to_b, "b", "done");
    let to_a = id(&fired(&b, 1)[0]);
    a.wait_for(&to_a, "a", "done");
    let cut = id(&fired(&a, 4)[2]);
    a.wait_for(&cut, "b", "suppressed");

    let latest = eventually("a's second run", || {
        let latest = why(&operator, &["a"]);
        if runs(&latest).len() == 3 { Ok(latest) } else { Err(latest.to_string()) }
    });
    assert_eq!(runs(&latest), ["a changed", "b changed", "a changed"]);
    let suppressed = |run: usize, event: &str| {
        let fired = list(&latest["runs"][run]["fired"]).iter().find(|fired| fired["event_id"] == event);
        let fired = fired.unwrap_or_else(|| panic!("{event} was not fired in {}", latest["runs"][run]));
        fired["suppressed"][0].clone()
    };
    let here = suppressed(0, &cut);
    assert_eq!(here["certname"], "b", "{latest}");
    assert!(here["reason"].as_str().is_some_and(|reason| reason.contains("loop: 'to b' already")), "{here}");
    let by_member = suppressed(2, &by_group);
    assert_eq!(by_member["certname"], "a", "a member of a group checks for loops itself: {latest}");

    let text = operator.trigger(&["why", "a"]).stdout;
    assert!(text.contains("suppressed at b: loop: 'to b' already made b run in this chain"), "{text}");
    let of_event = operator.trigger(&["why", &cut]).stdout;
    assert!(of_event.contains("at b suppressed: loop:"), "{of_event}");
    let graph = operator.trigger(&["why", &cut, "--output", "dot"]).stdout;
    let edge = format!("\"event {cut}\" -> \"event {cut} at b\"");
    assert_eq!(graph.matches(&edge).count(), 1, "{graph}");
    assert!(graph.contains("label=\"suppressed\", tooltip=\"loop:"), "{graph}");
}

fn a_node_whose_certname_has_the_form_of_an_id_is_a_node(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (a, operator) = (fleet.running("a"), fleet.operator());
    for certname in ["0f8fad5b-d9cb-469f-a165-70867728950e", "019356b0-7c4a-7000-8000-000000000001"] {
        let named = fleet.running(certname);
        let nothing = operator.trigger(&["why", certname, "--output", "json"]).error(1);
        assert!(nothing.contains("is registered, but reports no run"), "{nothing}");
        let event = a.fire(&["t", "--host", certname]).committed();
        a.wait_for(&event, certname, "done");
        assert_eq!(runs(&why(&operator, &[certname])), [format!("{certname} changed")]);
        assert_eq!(runs(&why(&operator, &[certname, "--run", "0"])), [format!("{certname} changed")]);
        drop(named);
    }
    let event = "019356b0-7c4a-7000-8000-000000000002";
    let unknown = operator.trigger(&["why", event, "--output", "json"]).error(1);
    assert!(unknown.starts_with(&format!("no event {event} is known")), "{unknown}");
    let runs_of_event = operator.trigger(&["why", event, "--run", "1", "--output", "json"]).error(1);
    assert!(
        runs_of_event.ends_with("the form of an event's id, and --run goes with a certname"),
        "{runs_of_event}"
    );
}

fn a_node_that_is_silent_in_the_middle_of_its_run_is_said_to_be(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (a, mut b) = (fleet.running("a"), fleet.running("b"));
    b.hold();
    a.fire(&["t", "--host", "b"]).committed();
    b.wait_for_runs(1);
    let key = "/puppet_trigger/events/nodes/b";
    let record = eventually("b's run in its registration", || {
        let record = fleet.backend.get(key).expect("a registration");
        if record.contains("\"running\"") { Ok(record) } else { Err(record) }
    });
    let text = a.trigger(&["why", "b"]).stdout;
    assert!(text.starts_with("b has been running since ") && !text.contains("silent"), "{text}");
    b.kill_agent();
    let mut record: Value = serde_json::from_str(&record).expect("a registration's JSON");
    record["body"]["seen_at_unix_ms"] = Value::from(1_763_812_800_000_u64);
    fleet.backend.put(key, &record.to_string());
    let text = a.trigger(&["why", "b"]).stdout;
    assert!(text.contains("; its agent has been silent for "), "{text}");
    let run = why(&a, &["b"])["runs"][0].clone();
    assert_eq!(run["seen_at"], "2025-11-22T12:00:00.000Z", "{run}");
    assert!(run["reason"].as_str().is_some_and(|reason| reason.contains("silent for")), "{run}");
    b.release();
}

fn a_backlog_that_was_collapsed_is_counted(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (a, b, operator) = (fleet.running("a"), fleet.running("b"), fleet.operator());
    a.hold();
    b.fire(&["first", "--host", "a"]).committed();
    a.wait_for_runs(1);
    let events: Vec<String> = (0..70).map(|_| b.fire(&["t", "--host", "a"]).committed()).collect();
    let first = b.wait_for(&events[0], "a", "superseded");
    // The last event supersedes it.
    b.wait_for(&events[5], "a", "superseded");
    a.release();
    b.wait_for(&events[69], "a", "done");
    let latest = why(&operator, &["a"]);
    let run = &latest["runs"][0];
    let causes = list(&run["causes"]).len() + run["more_causes"].as_u64().map_or(0, |more| more as usize);
    assert_eq!((causes, run["superseded"].as_u64()), (64, Some(6)), "{latest}");
    let text = operator.trigger(&["why", "a"]).stdout;
    for line in [
        "and 63 more events that shared the run",
        "31 of 't', fired on b",
        "and 6 earlier events of a backlog",
    ] {
        assert!(text.contains(line), "'{line}' in\n{text}");
    }
    let of_event = why(&operator, &[&events[0]]);
    assert_eq!(of_event["targets"][0]["reason"], first["reason"], "it names the event that took its place");
}

fn run_history_survives_its_agent_and_its_backends_memory(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (mut a, b) = (fleet.running("a"), fleet.running("b"));
    for _ in 0..2 {
        let event = b.fire(&["t", "--host", "a"]).committed();
        b.wait_for(&event, "a", "done");
    }
    a.kill_agent();
    // The history is empty, as after a restore of a backup, or in a new backend.
    fleet.backend.put("/puppet_trigger/events/run-history/a", "{\"v\":1,\"body\":{\"runs\":[]}}");
    a.start_agent();
    let event = b.fire(&["t", "--host", "a"]).committed();
    b.wait_for(&event, "a", "done");
    assert_eq!(event, why(&b, &["a"])["events"][0]["event_id"]);
    assert_eq!(runs(&why(&b, &["a", "--run", "2"])), ["a changed"], "made again from what the node keeps");

    // An entry that cannot be read counts as absent, and harms nothing else.
    fleet.backend.put("/puppet_trigger/events/run-history/a", "\u{1}{");
    eventually("a history that counts as absent", || {
        // The registration may still list the run that has just ended.
        let answer = b.trigger(&["why", "a", "--output", "json"]);
        if answer.code == 1 { Ok(()) } else { Err(answer.stdout) }
    });
    let of_event = why(&b, &[&event]);
    assert_eq!(of_event["targets"][0]["state"], "done");
}
