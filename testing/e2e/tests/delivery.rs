//! The normal course of an event: it is fired on one node, runs on others, and ends visibly.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use trigger_e2e::{BackendKind, Fleet, eventually, on_each_backend, on_each_plain_backend};

on_each_backend!(
    an_event_runs_after_its_commit_and_its_outcome_is_visible,
    each_of_several_hosts_runs,
    a_group_is_the_nodes_that_had_joined_it,
    a_group_is_joined_again_on_another_backend,
    an_empty_group_is_reported,
    tags_and_noop_stay_what_they_are,
    a_run_in_progress_does_not_count,
    a_burst_shares_a_handful_of_runs,
    a_node_that_was_off_catches_up,
    a_backlog_shares_one_run_at_the_start_and_at_a_reconnect,
    waiting_distinguishes_good_outcomes_from_bad_ones,
    the_queue_shows_what_runs_and_what_waits,
);

on_each_plain_backend!(
    an_event_runs_after_its_commit_and_its_outcome_is_visible,
    a_group_is_the_nodes_that_had_joined_it,
    a_node_that_was_off_catches_up,
    a_backlog_shares_one_run_at_the_start_and_at_a_reconnect,
    what_outlived_its_life_expires_visibly,
    a_replayed_delivery_costs_no_run,
);

fn now_ns() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_nanos()
}

fn an_event_runs_after_its_commit_and_its_outcome_is_visible(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let web = fleet.running("web01.example.com");
    let lb = fleet.running("lb01.example.com");
    let before = now_ns();
    let event = web.fire(&["refresh", "--host", "lb01.example.com"]).committed();

    let target = web.wait_for(&event, lb.certname(), "done");
    assert_eq!(target["outcome"], "changed");
    assert_eq!(target["noop"], false);
    assert!(target["reason"].as_str().is_some_and(|reason| reason.contains("exit code 0")), "{target}");

    let runs = lb.runs();
    assert_eq!(runs.len(), 1, "{runs:?}");
    assert_eq!(target["run_id"], runs[0].run_id.as_str());
    assert!(runs[0].has_ended && runs[0].started_at_ns > before, "{runs:?}");
    assert!(web.runs().is_empty(), "it was not fired at its own node");

    let status = web.status(&event).expect("a status");
    assert_eq!(status["trigger"], "refresh");
    assert_eq!(status["origin"], "web01.example.com");
    assert_eq!(status["expires_in_seconds"], 24 * 60 * 60);
    let latest = web.trigger(&["status", "--output", "json"]).json;
    assert_eq!(latest["events"][0], status, "the list shows the same");
    let text = lb.trigger(&["status", &event]).stdout;
    assert!(text.contains("lb01.example.com") && text.contains("done"), "{text}");
}

fn each_of_several_hosts_runs(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let names = ["a.example.com", "b.example.com", "c.example.com"];
    let nodes = names.map(|name| fleet.running(name));
    let hosts = names.map(|name| format!("{name}\n")).concat();
    // One of the nodes fires, also at itself; a name that is given twice counts once.
    let arguments = ["fire", "all", "--host", names[0], "--hosts-from", "-", "--output", "json"];
    let answer = nodes[0].trigger_reading(&arguments, &hosts);
    assert_eq!(answer.json["targets"].as_array().map(Vec::len), Some(3), "{answer:?}");
    let event = answer.committed();
    for node in &nodes {
        nodes[0].wait_for(&event, node.certname(), "done");
        assert_eq!(node.runs().len(), 1, "{}", node.certname());
    }
}

fn a_group_is_the_nodes_that_had_joined_it(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let origin = fleet.running("web01.example.com");
    let mut early = fleet.node("early.example.com");
    early.set("groups", "['lb', 'other']").start_agent();
    let first = origin.fire(&["first", "--group", "lb"]).committed();

    let mut late = fleet.node("late.example.com");
    late.set("groups", "['lb']").start_agent();
    let second = origin.fire(&["second", "--group", "lb", "--group", "other"]).committed();

    origin.wait_for(&second, late.certname(), "done");
    origin.wait_for(&second, early.certname(), "done");
    let target = origin.wait_for(&first, early.certname(), "done");
    let causes = late.runs();
    assert_eq!(causes.len(), 1, "the first event was not for a later member: {causes:?}");
    assert_ne!(target["run_id"], causes[0].run_id.as_str());
    let members = origin.status(&first).expect("a status")["targets"].clone();
    assert_eq!(members.as_array().map(Vec::len), Some(1), "{members}");
    // An event that arrives through two groups is one cause.
    assert!(early.runs().len() <= 2, "{:?}", early.runs());

    // A restarted member neither joins again nor runs anything twice.
    early.kill_agent();
    let third = origin.fire(&["third", "--group", "lb"]).committed();
    let before = early.runs().len();
    early.start_agent();
    origin.wait_for(&third, early.certname(), "done");
    assert_eq!(early.runs().len(), before + 1, "{:?}", early.runs());
}

/// Proves C5.
fn tags_and_noop_stay_what_they_are(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let origin = fleet.running("web01.example.com");
    // The script has Puppet's name, so Trigger takes it for Puppet; it prints the arguments that Puppet would get.
    let mut puppet = fleet.node("puppet.example.com");
    let script = r#"#!/bin/sh
cd "$(dirname "$0")"
if [ "$1" = config ]; then
  for name in agent_catalog_run_lockfile agent_disabled_lockfile lastrunreport config; do
    echo "$name = $PWD/none/$name"
  done
  for name in certname logdest skip_tags tags; do echo "$name = "; done
  exit 0
fi
echo "$@" >>arguments
exit 2
"#;
    let program = puppet.script("puppet", script);
    puppet.set("run_cmd", &format!("'{} apply /site.pp'", program.display())).start_agent();
    let other = fleet.running("other.example.com");

    let hosts = ["--host", "puppet.example.com", "--host", "other.example.com"];
    let tags = ["tagged", "--tag", "web", "--tag", "profile::db"];
    let tagged = origin.fire(&[&tags, &hosts[..]].concat()).committed();
    let ended = origin.wait_for(&tagged, puppet.certname(), "failed");
    assert_eq!(ended["outcome"], "unknown", "this puppet leaves no report: {ended}");
    origin.wait_for(&tagged, other.certname(), "done");

    let noop = origin.fire(&[&["noop", "--noop"], &hosts[..]].concat()).committed();
    let ended = origin.wait_for(&noop, puppet.certname(), "failed");
    assert_eq!(ended["noop"], true);
    let refused = origin.wait_for(&noop, other.certname(), "refused");
    assert!(refused["reason"].as_str().is_some_and(|r| r.contains("cannot honour noop")), "{refused}");
    assert_eq!(other.runs().len(), 1, "a noop event is never run for real");

    let arguments = std::fs::read_to_string(puppet.path("arguments")).expect("puppet's arguments");
    let [first, second] = arguments.lines().collect::<Vec<_>>()[..] else { panic!("two runs: {arguments}") };
    assert!(
        first.contains("--tags profile::db,web,trigger_internal") && !first.contains("--noop"),
        "{first}"
    );
    assert!(second.contains("--noop") && !second.contains("--tags"), "{second}");
    let status = origin.status(&tagged).expect("a status");
    assert_eq!(status["tags"], serde_json::json!(["profile::db", "web"]));
}

/// Proves C2.
fn a_run_in_progress_does_not_count(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let node = fleet.running("a.example.com");
    node.hold();
    let first = node.fire(&["first", "--host", "a.example.com"]).committed();
    node.wait_for_runs(1);
    node.wait_for(&first, node.certname(), "running");
    let later: Vec<String> =
        (0..3).map(|_| node.fire(&["later", "--host", "a.example.com"]).committed()).collect();
    let committed_at = now_ns();
    // A delivery that comes after the end of the first run may just miss the second.
    eventually("all of them at the node", || {
        let waiting = node.queue()["waiting"].clone();
        if waiting.as_array().map(Vec::len) == Some(3) { Ok(()) } else { Err(waiting.to_string()) }
    });
    node.release();
    let ends: Vec<Value> = later.iter().map(|event| node.wait_for(event, node.certname(), "done")).collect();
    let runs = node.runs();
    assert_eq!(runs.len(), 2, "events during the first run share the second: {runs:?}");
    assert!(ends.iter().all(|end| end["run_id"] == runs[1].run_id.as_str()), "{ends:?}");
    assert!(runs[1].started_at_ns > committed_at, "{runs:?}");
    assert_eq!(node.wait_for(&first, node.certname(), "done")["run_id"], runs[0].run_id.as_str());
}

/// Proves C5.
fn a_burst_shares_a_handful_of_runs(kind: BackendKind) {
    const BURST: usize = 200;
    let fleet = Fleet::on(kind);
    let node = fleet.running("a.example.com");
    // On a slow machine too, the burst falls into the first run and the runs after it.
    node.hold();
    let mut fired: Vec<String> = Vec::new();
    let mut last_fire = 0;
    for _ in 0..BURST {
        last_fire = now_ns();
        fired.push(node.fire(&["burst", "--host", "a.example.com"]).committed());
    }
    node.release();

    let last = node.wait_for(&fired[BURST - 1], node.certname(), "done");
    let runs = node.runs();
    let covering = runs.iter().find(|run| last["run_id"] == run.run_id.as_str()).expect("the last one's run");
    assert!(covering.started_at_ns > last_fire, "{covering:?}");
    for event in &fired {
        let end = eventually(&format!("the end of {event}"), || {
            let end = node.delivery(event, node.certname());
            let over = ["done", "superseded"].iter().any(|state| end["state"] == *state);
            if over { Ok(end) } else { Err(end.to_string()) }
        });
        if end["state"] == "superseded" {
            let reason = end["reason"].as_str().unwrap_or_default();
            let later = fired.iter().find(|other| reason.contains(other.as_str()));
            // The successor is later, and one of the events of this test: so the chain of successors ends in a run.
            assert!(later.is_some_and(|later| later > event), "no later event of ours: {end}");
        }
    }
    assert!((2..=5).contains(&node.runs().len()), "{:?}", node.runs());
}

/// Proves C2.
fn a_node_that_was_off_catches_up(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let origin = fleet.running("web01.example.com");
    let mut off = fleet.node("lb01.example.com");
    let never_seen = origin.fire(&["t", "--host", "lb01.example.com"]).committed();
    let pending = origin.wait_for(&never_seen, off.certname(), "pending");
    assert!(pending["reason"].as_str().is_some_and(|r| r.contains("no agent has registered")), "{pending}");
    off.start_agent();
    origin.wait_for(&never_seen, off.certname(), "done");

    off.kill_agent();
    let while_off = origin.fire(&["t", "--host", "lb01.example.com"]).committed();
    assert_eq!(origin.delivery(&while_off, off.certname())["state"], "pending");
    off.start_agent();
    origin.wait_for(&while_off, off.certname(), "done");
    assert_eq!(off.runs().len(), 2, "each once: {:?}", off.runs());
}

/// Proves C5.
fn a_backlog_shares_one_run_at_the_start_and_at_a_reconnect(kind: BackendKind) {
    let mut fleet = Fleet::on(kind);
    let origin = fleet.node("web01.example.com");
    let mut node = fleet.node("lb01.example.com");
    let fire = |count: usize| -> Vec<String> {
        (0..count).map(|_| origin.fire(&["t", "--host", "lb01.example.com"]).committed()).collect()
    };
    let all_done = |events: &[String], node: &trigger_e2e::Node, runs: usize| {
        for event in events {
            origin.wait_for(event, "lb01.example.com", "done");
        }
        assert_eq!(node.runs().len(), runs, "{:?}\n{}", node.runs(), node.agent_log());
    };
    // More than the agent reads at once.
    let waiting = fire(70);
    node.start_agent();
    for event in &waiting {
        eventually("an end", || {
            let state = origin.delivery(event, "lb01.example.com")["state"].clone();
            if state == "done" || state == "superseded" { Ok(()) } else { Err(state.to_string()) }
        });
    }
    assert_eq!(node.runs().len(), 1, "{:?}\n{}", node.runs(), node.agent_log());

    node.agent().pause();
    fleet.backend.kill();
    fleet.backend.restart();
    let waiting = fire(3);
    node.agent().go_on();
    all_done(&waiting, &node, 2);

    node.kill_agent();
    let waiting = fire(3);
    node.start_agent();
    all_done(&waiting, &node, 3);
}

fn waiting_distinguishes_good_outcomes_from_bad_ones(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let good = fleet.running("good.example.com");
    let mut bad = fleet.node("bad.example.com");
    bad.set("run_cmd", "'false'").start_agent();
    let wait = |hosts: &[&str]| good.fire(&[&["t", "--wait", "--timeout", "60s"], hosts].concat());

    let answer = wait(&["--host", "good.example.com"]);
    assert_eq!(answer.code, 0, "{answer:?}");
    assert_eq!(answer.json["targets"][0]["state"], "done");
    assert_eq!(answer.json["timed_out"], false);
    let answer = wait(&["--host", "good.example.com", "--host", "bad.example.com"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert_eq!(answer.json["targets"][0]["outcome"], "failed");
    assert_eq!(answer.json["targets"][1]["state"], "done");

    let answer = good.fire(&["t", "--wait", "--timeout", "1s", "--host", "away.example.com"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert_eq!(answer.json["timed_out"], true);
    assert_eq!(answer.json["targets"][0]["state"], "pending");
    let text = good.trigger(&["fire", "t", "--wait", "--host", "good.example.com"]);
    assert_eq!(text.code, 0, "{text:?}");
    assert!(text.stderr.contains("good.example.com: done"), "{text:?}");
}

fn the_queue_shows_what_runs_and_what_waits(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let node = fleet.running("a.example.com");
    assert!(node.trigger(&["queue"]).stdout.contains("Nothing runs and nothing waits."));
    node.hold();
    let first = node.fire(&["first", "--host", "a.example.com"]).committed();
    let run = node.wait_for_runs(1).remove(0);
    let second = node.fire(&["second", "--host", "a.example.com", "--tag", "web"]).committed();

    let queue = eventually("the second event in the queue", || {
        let queue = node.queue();
        if queue["waiting"][0].is_object() { Ok(queue) } else { Err(queue.to_string()) }
    });
    assert_eq!(queue["certname"], "a.example.com");
    assert_eq!(queue["backend"], fleet.backend.url());
    assert_eq!(queue["running"]["run_id"], run.run_id.as_str());
    assert_eq!(queue["running"]["causes"], serde_json::json!([first]));
    let waiting = &queue["waiting"][0];
    assert_eq!(waiting["event_id"], second.as_str());
    assert_eq!(waiting["trigger"], "second");
    assert_eq!(waiting["tags"], serde_json::json!(["web"]));
    for empty in ["held", "unreadable", "spooled", "quarantined"] {
        assert_eq!(queue[empty], serde_json::json!([]), "{empty}");
    }
    let text = node.trigger(&["queue"]).stdout;
    assert!(text.contains(&format!("Running {}", run.run_id)) && text.contains(&second), "{text}");
    node.release();
    node.wait_for(&second, node.certname(), "done");
    assert!(node.queue()["running"].is_null());
}

/// Proves C6.
fn what_outlived_its_life_expires_visibly(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let mut node = fleet.node("a.example.com");
    // The node sees this after a downtime that exceeds the event's life: fired an hour ago, for a minute.
    let event = node.fire(&["t", "--host", "a.example.com", "--expires-in", "1m"]).committed();
    let key = format!("/puppet_trigger/events/events/{event}/parts/0");
    let mut part: Value = serde_json::from_str(&fleet.backend.get(&key).expect("the event")).expect("JSON");
    let fired_at = part["body"]["event"]["fired_at_unix_ms"].as_u64().expect("milliseconds");
    part["body"]["event"]["fired_at_unix_ms"] = (fired_at - 60 * 60 * 1000).into();
    fleet.backend.put(&key, &part.to_string());
    let alive = node.fire(&["t", "--host", "a.example.com", "--expires-in", "1s"]).committed();

    node.start_agent();
    let expired = node.wait_for(&event, "a.example.com", "expired");
    assert!(expired["run_id"].is_null(), "{expired}");
    // Clocks may disagree by minutes, so an event is not expired in its last second.
    node.wait_for(&alive, "a.example.com", "done");
    assert_eq!(node.runs().len(), 1, "{:?}", node.runs());
    let wait = node.fire(&["t", "--wait", "--host", "a.example.com"]);
    assert_eq!(wait.code, 0, "{wait:?}");
}

/// Proves C4.
fn a_replayed_delivery_costs_no_run(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let mut node = fleet.running("a.example.com");
    let event = node.fire(&["t", "--host", "a.example.com"]).committed();
    let delivery = format!("/puppet_trigger/events/deliveries/a.example.com/{event}");
    let gone = |when: &str| {
        eventually(when, || fleet.backend.get(&delivery).map_or(Ok(()), Err));
    };
    node.wait_for(&event, "a.example.com", "done");
    gone("a delivery that is deleted when it has ended");
    fleet.backend.put(&delivery, r#"{"v":1,"body":{"part":0}}"#);
    gone("a delivery that came again while its agent watched");
    node.kill_agent();
    fleet.backend.put(&delivery, r#"{"v":1,"body":{"part":0}}"#);
    node.start_agent();
    gone("a delivery that came again while its agent was away");
    assert_eq!(node.runs().len(), 1, "{:?}", node.runs());
}

fn a_group_is_joined_again_on_another_backend(kind: BackendKind) {
    let before = Fleet::on(kind);
    let after = Fleet::on(if kind.is_hub() { BackendKind::Etcd } else { BackendKind::Hub });
    let mut node = before.node("lb01.example.com");
    node.set("groups", "['lb']").start_agent();
    node.kill_agent();
    node.set("backend", &format!("'{}'", after.backend.url())).start_agent();
    let origin = after.running("web01.example.com");
    let event = origin.fire(&["t", "--group", "lb"]).committed();
    origin.wait_for(&event, "lb01.example.com", "done");
}

fn an_empty_group_is_reported(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let origin = fleet.running("web01.example.com");
    let answer = origin.fire(&["t", "--group", "misspelt"]);
    assert!(answer.warnings().contains("no agent belongs to the group 'misspelt'"), "{answer:?}");
    let error = origin.fire(&["t", "--group", "misspelt", "--wait"]).error(1);
    assert!(error.contains("has no target"), "{error}");
}
