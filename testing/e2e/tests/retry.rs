//! Firing an event again for the nodes where it failed.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::fs;

use trigger_e2e::{BackendKind, Fleet, SERVER, on_each_backend};

on_each_backend!(an_event_is_fired_again_where_it_failed);

fn an_event_is_fired_again_where_it_failed(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (web, lb01, lb02) = (fleet.running("web"), fleet.running("lb01"), fleet.running("lb02"));
    lb01.write("then", "exit 3\n");
    let first =
        web.fire(&["refresh lb", "--host", "lb01", "--host", "lb02", "--expires-in", "2h"]).committed();
    web.wait_for(&first, "lb01", "failed");
    web.wait_for(&first, "lb02", "done");

    fs::remove_file(lb01.path("then")).expect("a script that fails");
    let retry = web.fire(&["--retry", &first]);
    let second = retry.committed();
    assert_eq!(retry.json["trigger"], "refresh lb", "{retry:?}");
    assert_eq!(retry.json["retry_of"], first.as_str(), "{retry:?}");
    assert_eq!(retry.json["targets"].as_array().map(Vec::len), Some(1), "{retry:?}");
    web.wait_for(&second, "lb01", "done");
    assert_eq!((lb01.runs().len(), lb02.runs().len()), (2, 1));

    let status = web.status(&second).expect("a status");
    assert_eq!(status["retry_of"], first.as_str(), "{status}");
    assert_eq!(status["expires_in_seconds"], 7200, "{status}");
    let why = lb01.trigger(&["why", "lb01"]).stdout;
    assert!(why.contains(&format!("by a retry of event {first}")), "{why}");

    let nothing = web.fire(&["--retry", &second]).error(1);
    assert!(nothing.contains("nothing to retry (1 done)"), "{nothing}");
    let unknown = web.fire(&["--retry", "019ac0de-7c4a-7000-8000-000000000001"]).error(1);
    assert!(unknown.contains("no event 019ac0de"), "{unknown}");
    web.fire(&["x", "--retry", &first]).error(2);
}

#[test]
fn at_a_hub_that_knows_its_clients_the_origin_or_an_operator_retries() {
    let fleet = Fleet::on(BackendKind::Hub);
    let (web, lb01) = (fleet.running("web01.example.com"), fleet.running("lb01.example.com"));
    lb01.write("then", "exit 3\n");
    let event = web.fire(&["refresh", "--host", "lb01.example.com"]).committed();
    web.wait_for(&event, "lb01.example.com", "failed");
    let refused = lb01.fire(&["--retry", &event]).error(1);
    assert!(refused.contains("retry it there, or as an operator"), "{refused}");
    // The certname of the hub itself is an operator.
    let by_operator = fleet.node(SERVER).fire(&["--retry", &event]);
    by_operator.committed();
    assert_eq!(by_operator.json["targets"].as_array().map(Vec::len), Some(1), "{by_operator:?}");
}
