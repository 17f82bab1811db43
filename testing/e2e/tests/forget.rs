//! Removing a node that is gone.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::fs;

use serde_json::Value;
use trigger_e2e::{BackendKind, Fleet, Node, SERVER, on_each_plain_backend};

on_each_plain_backend!(what_waits_for_a_node_that_is_gone_expires);

/// Runs `trigger node forget CERTNAME --output json`.
fn forget(node: &Node, certname: &str) -> Value {
    let answer = node.trigger(&["node", "forget", certname, "--output", "json"]);
    assert_eq!(answer.code, 0, "{answer:?}");
    answer.json
}

fn stop(node: &mut Node) {
    node.agent().terminate();
    node.agent().wait();
}

fn what_waits_for_a_node_that_is_gone_expires(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let mut web = fleet.node("web");
    web.set("audit", &format!("{{ file = '{}' }}", web.path("audit.log").display()));
    let mut old = fleet.node("old");
    old.set("groups", "['lb']");
    old.start_agent();
    let alive = web.trigger(&["node", "forget", "old", "--output", "json"]).error(1);
    assert!(alive.contains("old is not gone"), "{alive}");

    stop(&mut old);
    let by_name = web.fire(&["refresh", "--host", "old"]).committed();
    let by_group = web.fire(&["refresh", "--group", "lb"]).committed();
    assert_eq!(web.delivery(&by_name, "old")["state"], "pending");
    let forgotten = forget(&web, "old");
    assert_eq!(forgotten["was_registered"], true, "{forgotten}");
    assert_eq!(forgotten["expired"].as_array().map(Vec::len), Some(2), "{forgotten}");
    for event in [&by_name, &by_group] {
        let delivery = web.delivery(event, "old");
        assert_eq!(delivery["state"], "expired", "{delivery}");
        let reason = delivery["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("old was removed by web"), "{delivery}");
    }
    let audit = fs::read_to_string(web.path("audit.log")).expect("an audit");
    assert!(audit.contains("\"action\":\"forget\"") && audit.contains(&by_name), "{audit}");

    let again = forget(&web, "old");
    assert_eq!(again["was_registered"], false, "{again}");
    assert_eq!(again["expired"], Value::Array(Vec::new()), "{again}");
    // The node was not gone after all: it comes back, and what has expired stays so.
    old.start_agent();
    let event = web.fire(&["refresh", "--host", "old"]).committed();
    web.wait_for(&event, "old", "done");
    assert_eq!(web.delivery(&by_name, "old")["state"], "expired");
}

#[test]
fn at_a_hub_that_knows_its_clients_only_an_operator_removes_a_node() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut old = fleet.running("old.example.com");
    let web = fleet.running("web01.example.com");
    stop(&mut old);
    let event = web.fire(&["refresh", "--host", "old.example.com"]).committed();
    let refused = web.trigger(&["node", "forget", "old.example.com", "--output", "json"]);
    assert_ne!(refused.code, 0, "{refused:?}");
    assert_eq!(web.delivery(&event, "old.example.com")["state"], "pending");
    let operator = fleet.node(SERVER);
    let forgotten = forget(&operator, "old.example.com");
    assert_eq!(forgotten["expired"][0], event.as_str(), "{forgotten}");
    let delivery = web.delivery(&event, "old.example.com");
    assert_eq!(delivery["state"], "expired", "{delivery}");
    assert!(delivery["reason"].to_string().contains(SERVER), "{delivery}");
}
