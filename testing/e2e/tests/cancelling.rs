//! `trigger cancel`: what waits ends at its targets with the name of the node that asked for it, and nothing runs for it.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::time::Duration;

use serde_json::Value;
use trigger_e2e::{BackendKind, Fleet, Node, OPERATOR, never_for, on_each_backend};

on_each_backend!(
    what_waits_is_cancelled_and_a_run_in_progress_counts,
    a_node_that_was_off_ends_what_was_cancelled_and_runs_nothing,
    an_operator_cancels_where_a_node_names_it_and_nowhere_else,
    a_spooled_event_is_withdrawn,
);

const LB: &str = "lb01.example.com";
const LB2: &str = "lb02.example.com";
const WEB: &str = "web01.example.com";

/// Runs `trigger cancel --output json EVENT ARGUMENTS`.
fn cancel(node: &Node, event: &str, arguments: &[&str]) -> Value {
    let answer = node.trigger(&[&["cancel", "--output", "json", event], arguments].concat());
    assert_eq!(answer.code, 0, "{answer:?}");
    answer.json
}

fn state<'a>(cancelled: &'a Value, certname: &str) -> &'a str {
    let targets = cancelled["targets"].as_array().map_or(&[][..], Vec::as_slice);
    let target = targets.iter().find(|target| target["certname"] == certname);
    target.and_then(|target| target["state"].as_str()).unwrap_or_else(|| panic!("{certname} in {cancelled}"))
}

fn runs_nothing_more(node: &Node, runs: usize) {
    never_for(Duration::from_secs(3), "another run", || {
        let all = node.runs();
        (all.len() > runs).then(|| format!("{all:?}"))
    });
}

/// Proves C6.
fn what_waits_is_cancelled_and_a_run_in_progress_counts(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (lb, web) = (fleet.running(LB), fleet.running(WEB));
    lb.hold();
    let first = web.fire(&["refresh", "--host", LB]).committed();
    web.wait_for(&first, LB, "running");
    let second = web.fire(&["refresh", "--host", LB]).committed();

    let cancelled = cancel(&web, &second, &["--reason", "wrong node"]);
    assert_eq!(state(&cancelled, LB), "cancelled", "{cancelled}");
    let shown = web.delivery(&second, LB);
    assert_eq!(shown["reason"], format!("cancelled by {WEB}: wrong node"), "{shown}");
    // The run in progress ends by itself.
    let running = cancel(&web, &first, &[]);
    assert_eq!(state(&running, LB), "running", "{running}");
    lb.release();
    web.wait_for(&first, LB, "done");
    assert_eq!(web.delivery(&second, LB)["state"], "cancelled");
    let again = cancel(&web, &second, &[]);
    assert_eq!(again["ended_before"][0], LB, "{again}");
    runs_nothing_more(&lb, 1);

    // It is worth another try, and a caller that waits sees a failure.
    let retried = web.fire(&["--retry", &second, "--wait"]);
    assert_eq!(retried.code, 0, "{retried:?}");
    assert_eq!(lb.runs().len(), 2);
    let unknown =
        web.trigger(&["cancel", "--output", "json", &second, "--target", "db01.example.com"]).error(1);
    assert!(unknown.contains("is no target"), "{unknown}");
}

/// Proves C6.
fn a_node_that_was_off_ends_what_was_cancelled_and_runs_nothing(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (mut lb, mut lb2, web) = (fleet.node(LB), fleet.node(LB2), fleet.running(WEB));
    for node in [&mut lb, &mut lb2] {
        node.set("groups", "['lb']").start_agent();
        node.wait_until_connected();
        node.agent().terminate();
        node.agent().wait();
    }
    let named = web.fire(&["refresh", "--host", LB, "--host", LB2]).committed();
    let grouped = web.fire(&["refresh", "--group", "lb"]).committed();
    let whole = web.fire(&["refresh", "--group", "lb"]).committed();
    let pending = cancel(&web, &named, &["--target", LB, "--timeout", "100ms"]);
    assert_eq!(state(&pending, LB), "pending", "{pending}");
    cancel(&web, &grouped, &["--target", LB, "--timeout", "100ms"]);
    cancel(&web, &whole, &["--timeout", "100ms"]);

    lb.start_agent();
    lb2.start_agent();
    for event in [&named, &grouped, &whole] {
        web.wait_for(event, LB, "cancelled");
    }
    web.wait_for(&named, LB2, "done");
    web.wait_for(&grouped, LB2, "done");
    web.wait_for(&whole, LB2, "cancelled");
    runs_nothing_more(&lb, 0);
    assert_eq!(lb2.runs().len(), 1, "what it shares with no cancelled event");
    // What ended stays ended when all is read again.
    lb.agent().terminate();
    lb.agent().wait();
    lb.start_agent();
    lb.wait_until_connected();
    runs_nothing_more(&lb, 0);
}

/// Proves C13.
fn an_operator_cancels_where_a_node_names_it_and_nowhere_else(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (mut lb, mut lb2, web) = (fleet.node(LB), fleet.node(LB2), fleet.running(WEB));
    lb.set("operators", &format!("{{ certnames = ['{OPERATOR}'] }}"));
    for node in [&mut lb, &mut lb2] {
        node.start_agent();
        node.hold();
    }
    let first = web.fire(&["refresh", "--host", LB, "--host", LB2]).committed();
    web.wait_for(&first, LB, "running");
    web.wait_for(&first, LB2, "running");
    let second = web.fire(&["refresh", "--host", LB, "--host", LB2]).committed();
    let operator = fleet.operator();
    let cancelled = cancel(&operator, &second, &["--timeout", "2s"]);
    assert_eq!(state(&cancelled, LB), "cancelled", "{cancelled}");
    assert_eq!(state(&cancelled, LB2), "pending", "{cancelled}");
    assert!(cancelled["warnings"].to_string().contains("[operators]"), "{cancelled}");
    lb2.wait_for_log("a cancellation does not count");
    lb.release();
    lb2.release();
    web.wait_for(&second, LB2, "done");
    assert_eq!(web.delivery(&second, LB)["reason"], format!("cancelled by {OPERATOR}"));
    assert_eq!(lb.runs().len(), 1);
}

fn a_spooled_event_is_withdrawn(kind: BackendKind) {
    let mut fleet = Fleet::on(kind);
    let (lb, web) = (fleet.running(LB), fleet.node(WEB));
    fleet.backend.kill();
    let event = web.fire(&["refresh", "--host", LB]).spooled();
    let partial = web.trigger(&["cancel", "--output", "json", &event, "--target", LB]).error(1);
    assert!(partial.contains("without --target"), "{partial}");
    let cancelled = cancel(&web, &event, &[]);
    assert_eq!(cancelled["was_spooled"], true, "{cancelled}");
    assert_eq!(state(&cancelled, LB), "cancelled", "{cancelled}");
    fleet.backend.restart();
    let marker = web.fire(&["marker", "--host", LB]).committed();
    web.wait_for(&marker, LB, "done");
    assert_eq!(lb.runs().len(), 1);
}
