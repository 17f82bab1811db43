//! Clocks that disagree, and names that no node has.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use serde_json::Value;
use trigger_e2e::{BackendKind, Fleet, on_each_backend, on_each_plain_backend};

on_each_backend!(a_name_that_never_registered_is_reported_with_the_nearest);

on_each_plain_backend!(
    a_clock_that_is_ahead_is_reported_when_an_event_is_fired_at_it,
    an_event_that_expired_on_its_way_names_the_clocks,
);

const TWO_DAYS_MS: u64 = 2 * 24 * 60 * 60 * 1000;

fn a_name_that_never_registered_is_reported_with_the_nearest(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (with_agent, alone) = (fleet.running("lb01.example.com"), fleet.node("web01.example.com"));
    for origin in [&with_agent, &alone] {
        let answer = origin.fire(&["t", "--host", "lb1.example.com", "--host", "lb01.example.com"]);
        let expected = "no agent has registered as lb1.example.com (did you mean lb01.example.com?): the event waits there";
        assert!(answer.warnings().contains(expected), "{answer:?}");
        answer.committed();
        assert_eq!(origin.fire(&["t", "--host", "lb01.example.com"]).warnings(), "");
    }
}

fn a_clock_that_is_ahead_is_reported_when_an_event_is_fired_at_it(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let origin = fleet.node("web01");
    let mut ahead = fleet.running("lb01");
    let fire = || origin.fire(&["t", "--host", "lb01"]);
    assert_eq!(fire().warnings(), "", "clocks that agree");
    ahead.kill_agent();
    let key = "/puppet_trigger/events/nodes/lb01";
    let mut record: Value =
        serde_json::from_str(&fleet.backend.get(key).expect("a registration")).expect("JSON");
    let seen_at = record["body"]["seen_at_unix_ms"].as_u64().expect("milliseconds");
    record["body"]["seen_at_unix_ms"] = (seen_at + TWO_DAYS_MS).into();
    fleet.backend.put(key, &record.to_string());
    let warnings = fire().warnings();
    assert!(warnings.contains("the clock of lb01 is up to 1d 23h ahead of this node's"), "{warnings}");
    // An agent that was off for days has an old registration, which says nothing about its clock.
    record["body"]["seen_at_unix_ms"] = (seen_at - TWO_DAYS_MS).into();
    fleet.backend.put(key, &record.to_string());
    assert_eq!(fire().warnings(), "");
}

/// Proves C12.
fn an_event_that_expired_on_its_way_names_the_clocks(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let node = fleet.running("lb01");
    let event = node.fire(&["t", "--host", "web01", "--host", "lb01"]).committed();
    node.wait_for(&event, "lb01", "done");
    // The same event as an origin would store it whose clock is two days behind.
    // An id of version 7 is of an earlier Trigger, and follows from no origin.
    let late = format!("{}7{}ffff", &event[..14], &event[15..event.len() - 4]);
    let key = |event: &str| format!("/puppet_trigger/events/events/{event}/parts/0");
    let part = fleet.backend.get(&key(&event)).expect("the event").replace(&event, &late);
    let mut part: Value = serde_json::from_str(&part).expect("JSON");
    let fired_at = part["body"]["event"]["fired_at_unix_ms"].as_u64().expect("milliseconds");
    part["body"]["event"]["fired_at_unix_ms"] = (fired_at - TWO_DAYS_MS).into();
    fleet.backend.put(&key(&late), &part.to_string());
    let delivery = format!("/puppet_trigger/events/deliveries/lb01/{late}");
    fleet.backend.put(&delivery, r#"{"v":1,"body":{"part":0}}"#);
    let expired = node.wait_for(&late, "lb01", "expired");
    let reason = expired["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("the event expired before a run could start: it was fired at 20"), "{reason}");
    assert!(reason.contains("the clock of lb01 is at least 23h 5"), "{reason}");
}
