//! The fleet at a glance, as `trigger nodes` shows it to a node and to an operator.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use serde_json::Value;
use trigger_e2e::{BackendKind, Fleet, Node, SERVER, eventually, on_each_plain_backend};

on_each_plain_backend!(nodes_are_shown_with_their_last_run_and_what_they_hold);

/// Runs `trigger nodes --output json ARGUMENTS`.
fn nodes(node: &Node, arguments: &[&str]) -> Value {
    let answer = node.trigger(&[&["nodes", "--output", "json"], arguments].concat());
    assert_eq!(answer.code, 0, "{answer:?}");
    answer.json
}

fn names(shown: &Value) -> Vec<&str> {
    let nodes = shown["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    nodes.iter().filter_map(|node| node["certname"].as_str()).collect()
}

/// Waits until a node is shown so.
fn shown(by: &Node, certname: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    eventually(&format!("{certname} in trigger nodes"), || {
        let node = nodes(by, &[certname])["nodes"][0].clone();
        if is_so(&node) { Ok(node) } else { Err(node.to_string()) }
    })
}

fn nodes_are_shown_with_their_last_run_and_what_they_hold(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let mut lb01 = fleet.node("lb01");
    lb01.set("groups", "['lb']");
    lb01.start_agent();
    let mut web01 = fleet.running("web01");
    let event = web01.fire(&["refresh", "--host", "lb01"]).committed();
    web01.wait_for(&event, "lb01", "done");

    let all = nodes(&web01, &[]);
    assert_eq!(names(&all), ["lb01", "web01"], "{all}");
    assert_eq!(all["shows_all_runs"], true);
    let lb = shown(&web01, "lb01", |node| !node["last_run"].is_null());
    assert_eq!(lb["agent"], "alive", "{lb}");
    assert_eq!(lb["groups"][0], "lb", "{lb}");
    assert_eq!(lb["last_run"]["outcome"], "changed", "{lb}");
    assert_eq!(lb["last_run"]["causes"][0]["event_id"], event.as_str(), "{lb}");
    assert_eq!(lb["last_run"]["causes"][0]["origin"], "web01", "{lb}");

    // A run in progress, and a node that was stopped.
    lb01.hold();
    let second = web01.fire(&["refresh", "--group", "lb"]).committed();
    let lb = shown(&web01, "lb01", |node| node["deliveries"][0]["state"] == "running");
    assert_eq!(lb["deliveries"][0]["event_id"], second.as_str(), "{lb}");
    lb01.release();
    web01.wait_for(&second, "lb01", "done");
    web01.agent().terminate();
    web01.agent().wait();
    shown(&lb01, "web01", |node| node["agent"] == "stopped");
    assert_eq!(names(&nodes(&lb01, &["--away"])), ["web01"]);
    assert_eq!(names(&nodes(&lb01, &["--group", "lb"])), ["lb01"]);
    assert_eq!(names(&nodes(&lb01, &["--held"])), Vec::<&str>::new());
    let absent = nodes(&lb01, &["lb09"]);
    assert!(absent["warnings"].to_string().contains("no agent has registered as lb09"), "{absent}");

    let text = lb01.trigger(&["nodes"]).stdout;
    assert!(text.contains("refresh from web01") && text.contains("stopped"), "{text}");
}

#[test]
fn a_hub_shows_the_runs_of_other_nodes_to_operators() {
    let fleet = Fleet::on(BackendKind::Hub);
    let (lb01, web01) = (fleet.running("lb01.example.com"), fleet.running("web01.example.com"));
    for (from, to) in [(&web01, "lb01.example.com"), (&lb01, "web01.example.com")] {
        let event = from.fire(&["refresh", "--host", to]).committed();
        from.wait_for(&event, to, "done");
    }
    // The certname of the hub itself is an operator.
    let operator = fleet.node(SERVER);
    for name in ["lb01.example.com", "web01.example.com"] {
        shown(&operator, name, |node| node["last_run"]["outcome"] == "changed");
    }
    let by_operator = nodes(&operator, &[]);
    assert_eq!(by_operator["shows_all_runs"], true, "{by_operator}");
    assert_eq!(by_operator["warnings"], Value::Array(Vec::new()), "{by_operator}");

    let by_node = nodes(&web01, &[]);
    assert_eq!(names(&by_node), ["lb01.example.com", "web01.example.com"], "{by_node}");
    assert_eq!(by_node["shows_all_runs"], false, "{by_node}");
    assert!(by_node["warnings"].to_string().contains("to operators only"), "{by_node}");
    assert!(by_node["nodes"][0]["last_run"].is_null(), "{by_node}");
    assert_eq!(by_node["nodes"][1]["last_run"]["outcome"], "changed", "{by_node}");
}
