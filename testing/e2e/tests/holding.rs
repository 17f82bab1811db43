//! `trigger hold` and `trigger release`: a node that is held starts no run, and what waited runs afterwards.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::time::Duration;

use serde_json::Value;
use trigger_e2e::{Answer, BackendKind, Fleet, Node, OPERATOR, eventually, never_for, on_each_backend};

on_each_backend!(
    what_is_fired_at_a_held_node_waits_and_runs_after_the_release,
    a_hold_ends_with_its_time,
    an_operator_holds_where_a_node_names_it_and_nowhere_else,
    a_node_that_was_off_is_held_before_it_runs_anything,
    a_node_holds_itself_and_no_other,
);

const LB: &str = "lb01.example.com";
const LB2: &str = "lb02.example.com";
const WEB: &str = "web01.example.com";

/// Makes a node whose agent takes orders of the operator.
fn obedient(fleet: &Fleet, certname: &str) -> Node {
    let mut node = fleet.node(certname);
    node.set("operators", &format!("{{ certnames = ['{OPERATOR}'] }}")).set("groups", "['lb']").start_agent();
    node
}

/// Runs `trigger hold --output json ARGUMENTS` with a reason.
fn hold(node: &Node, arguments: &[&str]) -> Answer {
    node.trigger(&[&["hold", "--output", "json", "--reason", "database migration"], arguments].concat())
}

fn release(node: &Node, arguments: &[&str]) -> Answer {
    node.trigger(&[&["release", "--output", "json"], arguments].concat())
}

/// What a node said of an order.
fn state(answer: &Answer, certname: &str) -> String {
    let nodes = answer.json["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    let node = nodes.iter().find(|node| node["certname"] == certname);
    let state = node.and_then(|node| node["state"].as_str());
    state.unwrap_or_else(|| panic!("{certname} in {answer:?}")).to_owned()
}

/// What `trigger nodes` shows of a node.
fn shown(by: &Node, certname: &str) -> Value {
    let nodes = by.trigger(&["nodes", "--output", "json", certname]);
    assert_eq!(nodes.code, 0, "{nodes:?}");
    nodes.json["nodes"][0].clone()
}

fn runs_nothing_more(node: &Node, runs: usize) {
    never_for(Duration::from_secs(3), "another run", || {
        let all = node.runs();
        (all.len() > runs).then(|| format!("{all:?}"))
    });
}

/// Proves C2: nothing that waits for the end of a hold is lost, over a restart of the agent.
fn what_is_fired_at_a_held_node_waits_and_runs_after_the_release(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (mut lb, web, operator) = (obedient(&fleet, LB), fleet.running(WEB), fleet.operator());
    lb.hold();
    let running = web.fire(&["refresh", "--host", LB]).committed();
    web.wait_for(&running, LB, "running");

    let held = hold(&operator, &["--group", "lb", "--for", "2h"]);
    assert_eq!((held.code, &*state(&held, LB)), (0, "held"), "{held:?}");
    // The run in progress goes on and ends by itself.
    lb.release();
    web.wait_for(&running, LB, "done");
    let waiting = web.fire(&["refresh", "--host", LB]).committed();
    let to_group = web.fire(&["refresh", "--group", "lb"]).committed();
    let delivery = web.wait_for(&waiting, LB, "held");
    let reason = delivery["reason"].as_str().expect("a reason").to_owned();
    assert!(reason.starts_with("held until "), "{reason}");
    assert!(reason.ends_with(&format!(" UTC by {OPERATOR}: database migration")), "{reason}");
    web.wait_for(&to_group, LB, "held");
    let queue = lb.queue();
    assert_eq!(queue["blocked"], reason, "{queue}");
    assert_eq!(queue["blocked_by"], "hold", "{queue}");
    assert_eq!(queue["hold"]["by"], OPERATOR, "{queue}");
    assert_eq!(shown(&web, LB)["hold"]["reason"], "database migration");
    let doctor = lb.trigger(&["doctor"]);
    assert!(doctor.stdout.contains("no run starts on this node: it is held until"), "{doctor:?}");

    lb.agent().terminate();
    lb.agent().wait();
    lb.launch_agent();
    eventually("an agent that is still held", || match lb.queue() {
        queue if queue["blocked_by"] == "hold" && queue["disconnected"].is_null() => Ok(()),
        queue => Err(queue.to_string()),
    });
    runs_nothing_more(&lb, 1);

    let released = release(&operator, &[LB]);
    assert_eq!((released.code, &*state(&released, LB)), (0, "released"), "{released:?}");
    web.wait_for(&waiting, LB, "done");
    web.wait_for(&to_group, LB, "done");
    assert_eq!(lb.runs().len(), 2, "what waited shares a run");
    assert!(shown(&web, LB)["hold"].is_null());
}

/// Proves C2.
fn a_hold_ends_with_its_time(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (lb, web, operator) = (obedient(&fleet, LB), fleet.running(WEB), fleet.operator());
    let held = hold(&operator, &[LB, "--for", "6s"]);
    assert_eq!(state(&held, LB), "held", "{held:?}");
    let waiting = web.fire(&["refresh", "--host", LB]).committed();
    web.wait_for(&waiting, LB, "held");
    web.wait_for(&waiting, LB, "done");
    lb.wait_for_log("the time of the hold is over");
    // The order is still there, and is over.
    let later = web.fire(&["refresh", "--host", LB]).committed();
    web.wait_for(&later, LB, "done");
    let long = hold(&operator, &[LB, "--for", "8d"]).error(2);
    assert!(long.contains("7d at most"), "{long}");
}

/// Proves C13.
fn an_operator_holds_where_a_node_names_it_and_nowhere_else(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (lb, lb2, web) = (obedient(&fleet, LB), fleet.running(LB2), fleet.running(WEB));
    let operator = fleet.operator();
    let held = hold(&operator, &[LB, LB2, "--for", "1h"]);
    assert_eq!(held.code, 1, "{held:?}");
    assert_eq!([state(&held, LB), state(&held, LB2)], ["held", "refused"], "{held:?}");
    let refused = shown(&web, LB2);
    assert_eq!(refused["refused_order"]["by"], OPERATOR, "{refused}");
    assert!(refused["refused_order"]["reason"].to_string().contains("[operators]"), "{refused}");
    lb2.wait_for_log("an order to hold or release this node does not count");
    let event = web.fire(&["refresh", "--host", LB, "--host", LB2]).committed();
    web.wait_for(&event, LB2, "done");
    web.wait_for(&event, LB, "held");
    assert_eq!(state(&release(&operator, &[LB]), LB), "released");
    web.wait_for(&event, LB, "done");
    assert_eq!(lb.runs().len(), 1);

    let unknown = hold(&operator, &["lb03.example.com", "--for", "1h", "--timeout", "0s"]);
    assert_eq!(state(&unknown, "lb03.example.com"), "pending", "{unknown:?}");
    assert!(unknown.json["warnings"].to_string().contains("did you mean lb01.example.com?"), "{unknown:?}");
    let no_group = hold(&operator, &["--group", "db", "--for", "1h"]).error(1);
    assert!(no_group.contains("no registered node belongs to the group db"), "{no_group}");
}

/// Proves C13.
fn a_node_that_was_off_is_held_before_it_runs_anything(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (mut lb, web, operator) = (obedient(&fleet, LB), fleet.running(WEB), fleet.operator());
    lb.agent().terminate();
    lb.agent().wait();
    let waiting = web.fire(&["refresh", "--host", LB]).committed();
    let pending = hold(&operator, &[LB, "--for", "1h", "--timeout", "100ms"]);
    assert_eq!(state(&pending, LB), "pending", "{pending:?}");
    assert!(pending.json["warnings"].to_string().contains("has answered yet"), "{pending:?}");
    lb.launch_agent();
    web.wait_for(&waiting, LB, "held");
    runs_nothing_more(&lb, 0);
    assert_eq!(state(&release(&operator, &[LB]), LB), "released");
    web.wait_for(&waiting, LB, "done");
}

/// Proves C13.
fn a_node_holds_itself_and_no_other(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (lb, web) = (obedient(&fleet, LB), fleet.running(WEB));
    let held = hold(&web, &[WEB, "--for", "1h"]);
    assert_eq!(state(&held, WEB), "held", "{held:?}");
    assert_eq!(state(&release(&web, &[WEB]), WEB), "released");
    let other = hold(&web, &[LB, "--for", "1h"]);
    if kind == BackendKind::Hub {
        // A hub that knows its clients does not even store it.
        assert!(other.error(4).contains("an operator, any node"));
    } else {
        assert_eq!((other.code, &*state(&other, LB)), (1, "refused"), "{other:?}");
    }
    let event = web.fire(&["refresh", "--host", LB]).committed();
    web.wait_for(&event, LB, "done");
    assert_eq!(lb.runs().len(), 1);
}
