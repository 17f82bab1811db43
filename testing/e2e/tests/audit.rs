//! The audit: what it says of an event from its fire to its end, and that its file may be rotated.

#![allow(clippy::expect_used, reason = "helpers that tests call")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use trigger_e2e::{Authority, BackendKind, Crl, Fleet, eventually};

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// The first line with these values, once it is there.
fn line_with(path: &Path, wanted: &Value) -> Value {
    let wanted = wanted.as_object().expect("an object");
    eventually(&format!("a line with {wanted:?}"), || {
        let lines = lines(path);
        let found = lines.iter().find(|line| wanted.iter().all(|(key, value)| line[key] == *value));
        found.cloned().ok_or_else(|| format!("{lines:?}"))
    })
}

#[test]
fn an_event_is_audited_from_its_fire_to_its_end_across_a_rotation() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("web01");
    let file = node.path("log/audit.log");
    node.set("audit", &format!("{{ file = '{}' }}", file.display()));
    node.set("accept", "[{ trigger = 'refused', deny = true }, { from = 'web*' }]").start_agent();
    let event = node.fire(&["refresh", "--host", "web01"]).committed();
    let fired = line_with(&file, &json!({ "action": "fire", "event": event }));
    let expected = json!({
        "time": fired["time"], "action": "fire", "certname": "web01", "decision": "accepted", "event": event,
        "origin": "web01", "state": "committed", "targets": "web01", "trigger": "refresh", "uid": 0,
    });
    assert_eq!(fired, expected);
    let delivered = line_with(&file, &json!({ "action": "deliver", "event": event }));
    assert_eq!((&delivered["decision"], &delivered["rule"]), (&"accepted".into(), &2.into()), "{delivered}");
    assert!(delivered["signature"].is_string(), "{delivered}");
    let run = line_with(&file, &json!({ "action": "run", "events": event }));
    let end = line_with(&file, &json!({ "action": "end", "event": event, "state": "done" }));
    assert_eq!((&end["run"], &end["certname"]), (&run["run"], &"web01".into()), "{end}");
    let mode = fs::metadata(&file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);

    fs::rename(&file, file.with_extension("log.1")).expect("a rotation");
    let refused = node.fire(&["refused", "--host", "web01"]).committed();
    let judged = line_with(&file, &json!({ "action": "deliver", "event": refused, "decision": "refused" }));
    assert_eq!(judged["rule"], 1);
    assert!(judged["reason"].as_str().is_some_and(|reason| reason.contains("denies")), "{judged}");
    line_with(&file, &json!({ "action": "end", "event": refused, "state": "refused" }));
    assert!(lines(&file).iter().all(|line| line["event"] != event.as_str()), "the rotated file has these");
    let log = node.agent_log();
    assert!(!log.contains("\"action\""), "what is in the file is not in the log: {log}");
}

#[test]
fn an_audit_that_cannot_be_written_is_reported_and_holds_up_nothing() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("web01");
    let place = node.write("place", "a file where the directory should be");
    node.set("audit", &format!("{{ file = '{}/audit.log' }}", place.display())).start_agent();
    let event = node.fire(&["refresh", "--host", "web01"]).committed();
    node.wait_for(&event, "web01", "done");
    node.wait_for_log("cannot write the audit");
    fs::remove_file(&place).expect("the file");
    let event = node.fire(&["refresh", "--host", "web01"]).committed();
    node.wait_for(&event, "web01", "done");
    let file = place.join("audit.log");
    let dropped = line_with(&file, &json!({ "action": "drop" }));
    assert!(dropped["lines"].as_u64().is_some_and(|lines| lines > 0), "{dropped}");
    line_with(&file, &json!({ "action": "end", "event": event }));
}

#[test]
fn a_hub_audits_who_fires_who_is_denied_and_who_is_not_let_in() {
    let mut fleet = Fleet::on(BackendKind::Hub);
    let file = fleet.path().join("log/hub.log");
    // What follows is no longer below [hub].
    fleet.backend.restart_with(&["[audit]".to_owned(), format!("file = '{}'", file.display())]);
    let (web, mut lb) = (fleet.running("web01"), fleet.running("lb01"));
    let event = web.fire(&["refresh", "--host", "lb01"]).committed();
    web.wait_for(&event, "lb01", "done");
    let fired = line_with(&file, &json!({ "action": "fire", "event": event, "part": 0 }));
    let expected = json!({
        "time": fired["time"], "action": "fire", "certname": "web01", "decision": "accepted", "event": event,
        "fingerprint": fired["fingerprint"], "origin": "web01", "part": 0, "peer": fired["peer"], "targets": "lb01",
        "trigger": "refresh",
    });
    assert_eq!(fired, expected);
    let delivered = fired["fingerprint"].as_str().unwrap_or_default();
    assert_eq!(delivered.len(), 64, "a SHA-256 in hexadecimal digits: {fired}");

    let others = json!({ "keys": [format!("/puppet_trigger/events/deliveries/web01/{event}")] });
    let (status, reply) = fleet.backend.post_as(&lb.ssl(), "/v1/delete", &others);
    assert_eq!(status, 403, "{reply}");
    let denied = line_with(&file, &json!({ "action": "delete", "decision": "refused", "certname": "lb01" }));
    assert_eq!(denied["reason"], reply["error"], "{denied}");

    let revoked = lb.ssl();
    let lists = Crl { revoked: vec![&revoked], number: 2, ..Crl::default() };
    fleet.backend.ssl().set_crl(&Authority::puppet().crl(&lists));
    lb.wait_until_disconnected("it is revoked");
    for action in ["close", "connect"] {
        let wanted = json!({ "action": action, "decision": "refused", "certname": "lb01" });
        let line = line_with(&file, &wanted);
        assert!(line["reason"].as_str().is_some_and(|reason| reason.contains("revoked")), "{line}");
        assert!(line["peer"].as_str().is_some_and(|peer| peer.starts_with("127.0.0.1:")), "{line}");
    }
    lb.kill_agent();
}
