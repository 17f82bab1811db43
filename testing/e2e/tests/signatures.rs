//! What an attacker with full write access to the backend can do: hide and delay, never make Puppet run (C13).

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::fs;

use trigger_e2e::{BackendKind, Fleet, Node, eventually, on_each_backend, on_each_plain_backend};

const PREFIX: &str = "/puppet_trigger/events";

// A fleet without a CA: its hub knows no clients, so that each of them may write everything.
on_each_plain_backend!(
    an_event_that_is_signed_runs_and_its_forgeries_are_refused,
    what_is_put_back_after_a_run_costs_no_run,
    a_forged_outcome_is_not_shown_as_true,
    an_agent_needs_a_key_or_has_to_be_told_that_it_needs_none,
);
// Nodes with certificates as Puppet makes them.
on_each_backend!(a_node_whose_configuration_says_nothing_of_signatures_requires_them);

/// A node that signs with the key of the fleet, and requires signatures.
fn signing(fleet: &Fleet, certname: &str) -> Node {
    let mut node = fleet.node(certname);
    let key = fleet.path().join("shared.key");
    if !key.exists() {
        let made = node.trigger(&["keygen", &key.display().to_string()]);
        assert_eq!(made.code, 0, "{made:?}");
    }
    node.set("shared_key", &format!("'{}'", key.display())).set("require_signature", "true");
    node.start_agent();
    node
}

fn part(event: &str) -> String {
    format!("{PREFIX}/events/{event}/parts/0")
}

fn delivery(certname: &str, event: &str) -> String {
    format!("{PREFIX}/deliveries/{certname}/{event}")
}

fn outcome(certname: &str, event: &str) -> String {
    format!("{PREFIX}/outcomes/{event}/{certname}")
}

fn is_gone(fleet: &Fleet, key: &str) {
    eventually(key, || fleet.backend.get(key).map_or(Ok(()), Err));
}

/// Proves C13.
fn an_event_that_is_signed_runs_and_its_forgeries_are_refused(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (web, lb) = (signing(&fleet, "web01.example.com"), signing(&fleet, "lb01.example.com"));
    let db = signing(&fleet, "db01.example.com");
    let event = web.fire(&["refresh", "--host", lb.certname()]).committed();
    web.wait_for(&event, lb.certname(), "done");
    let (original, pointer) =
        (fleet.backend.get(&part(&event)).expect("a part"), r#"{"v":1,"body":{"part":0}}"#);
    assert!(original.contains("\"sig\":\"hmac_sha256:"), "{original}");

    // Moved to a node that the signed part does not name.
    fleet.backend.put(&delivery(db.certname(), &event), pointer);
    let moved = web.wait_for(&event, db.certname(), "refused");
    assert!(moved["reason"].as_str().is_some_and(|why| why.contains("does not name this target")), "{moved}");

    // Copied under another id, as it is; and forged without a signature, with this node as target.
    let copy = "019356b0-7c4a-7000-8000-000000000001";
    fleet.backend.put(&part(copy), &original);
    fleet.backend.put(&delivery(lb.certname(), copy), pointer);
    is_gone(&fleet, &delivery(lb.certname(), copy));
    let forged = "019356b0-7c4a-7000-8000-000000000002";
    let renamed = original.replace(&event, forged);
    let unsigned = format!("{}}}", renamed.split_once(",\"sig\"").expect("a signature").0);
    fleet.backend.put(&part(forged), &unsigned);
    fleet.backend.put(&delivery(lb.certname(), forged), pointer);
    let refused = web.wait_for(forged, lb.certname(), "refused");
    assert!(refused["reason"].as_str().is_some_and(|why| why.contains("require_signature")), "{refused}");
    assert_eq!((lb.runs().len(), db.runs().len()), (1, 0));

    // And none of this has held up what is genuine.
    let next = web.fire(&["refresh", "--host", lb.certname(), "--host", db.certname()]).committed();
    web.wait_for(&next, lb.certname(), "done");
    web.wait_for(&next, db.certname(), "done");
}

/// Proves C13.
fn what_is_put_back_after_a_run_costs_no_run(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let mut lb = signing(&fleet, "lb01.example.com");
    let event = lb.fire(&["refresh", "--host", lb.certname()]).committed();
    lb.wait_for(&event, lb.certname(), "done");
    let (end, waits) = (outcome(lb.certname(), &event), delivery(lb.certname(), &event));
    is_gone(&fleet, &waits);
    // The database of before the run: the delivery is there, and the outcome is not.
    let put_back = || {
        fleet.backend.delete(&end);
        fleet.backend.put(&waits, r#"{"v":1,"body":{"part":0}}"#);
    };
    put_back();
    is_gone(&fleet, &waits);
    lb.wait_for(&event, lb.certname(), "done");
    lb.kill_agent();
    put_back();
    lb.start_agent();
    is_gone(&fleet, &waits);
    lb.wait_for(&event, lb.certname(), "done");
    assert_eq!(lb.runs().len(), 1);
}

/// Proves C13.
fn a_forged_outcome_is_not_shown_as_true(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (web, mut lb) = (signing(&fleet, "web01.example.com"), signing(&fleet, "lb01.example.com"));
    let done = web.fire(&["first", "--host", lb.certname()]).committed();
    web.wait_for(&done, lb.certname(), "done");
    lb.kill_agent();
    let event = web.fire(&["second", "--host", lb.certname()]).committed();
    // The signed outcome of another event.
    let genuine = fleet.backend.get(&outcome(lb.certname(), &done)).expect("an outcome");
    let forged_key = outcome(lb.certname(), &event);
    fleet.backend.put(&forged_key, &genuine);
    let status = web.status(&event).expect("a status");
    assert_eq!(status["targets"][0]["state"], "pending", "{status}");
    assert!(status["warnings"].to_string().contains(&forged_key), "{status}");
    // The target runs all the same.
    lb.start_agent();
    web.wait_for(&event, lb.certname(), "done");
    assert_eq!(lb.runs().len(), 2);
}

/// Proves C13.
fn an_agent_needs_a_key_or_has_to_be_told_that_it_needs_none(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let mut node = fleet.node("lb01.example.com");
    node.set("require_signature", "true");
    let answer = node.trigger(&["agent"]);
    assert_eq!(answer.code, 3, "{answer:?}");
    for way in ["puppet ssl bootstrap", "trigger keygen", "require_signature = false"] {
        assert!(answer.stderr.contains(way), "{answer:?}");
    }
    node.set("require_signature", "false");
    node.start_agent();
    node.wait_for_log("nothing is signed or verified (require_signature = false)");
}

/// Proves C13.
fn a_node_whose_configuration_says_nothing_of_signatures_requires_them(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let untold = |certname: &str| {
        let mut node = fleet.node(certname);
        node.unset("require_signature").start_agent();
        let settings = fs::read_to_string(node.config()).expect("a configuration");
        assert!(!settings.contains("require_signature"), "{settings}");
        node
    };
    let (web, lb) = (untold("web01.example.com"), untold("lb01.example.com"));
    let event = web.fire(&["refresh", "--host", lb.certname()]).committed();
    web.wait_for(&event, lb.certname(), "done");
    let genuine = fleet.backend.get(&part(&event)).expect("a part");
    assert!(genuine.contains("\"cert\""), "signed with a certificate: {genuine}");

    // Put there by the origin itself, past its program, because a hub takes an event from its origin alone: without a
    // signature, and with that of another event.
    for (n, is_signed, why) in [(1, false, "require_signature"), (2, true, "the signature does not fit")] {
        // An id in the form of earlier versions, which anyone could make.
        let forged = format!("{}7{}{n:012x}", &event[..14], &event[15..24]);
        let renamed = genuine.replace(&event, &forged);
        let unsigned = format!("{}}}", renamed.split_once(",\"sig\"").expect("a signature").0);
        let text = if is_signed { &renamed } else { &unsigned };
        let put = |key: &str, value: &str| fleet.backend.put_as(&web.ssl(), key, value).expect("a write");
        put(&part(&forged), text);
        put(&delivery(lb.certname(), &forged), r#"{"v":1,"body":{"part":0}}"#);
        let refused = web.wait_for(&forged, lb.certname(), "refused");
        assert!(refused["reason"].as_str().is_some_and(|reason| reason.contains(why)), "{refused}");
    }
    assert_eq!(lb.runs().len(), 1);
    let event = web.fire(&["refresh", "--host", lb.certname()]).committed();
    web.wait_for(&event, lb.certname(), "done");
    assert_eq!(lb.runs().len(), 2);
}
