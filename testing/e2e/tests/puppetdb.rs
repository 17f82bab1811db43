//! What other nodes export arrives: a run waits until PuppetDB has stored the catalog that its event was fired with.

#![allow(clippy::expect_used, reason = "a test fails where its scenery cannot be built")]

use std::time::{Duration, Instant};

use trigger_e2e::{Answer, BackendKind, Fleet, Node, PuppetDb, eventually, on_each_backend};

on_each_backend!(
    a_run_waits_until_puppetdb_has_the_exporters_catalog,
    a_run_that_could_not_wait_any_longer_is_repeated_when_the_catalog_has_arrived,
);

const OLD: &str = "0c23df3f-7ac7-4a51-bd58-e4a91e7a3f95";
const NEW: &str = "0c23df3f-7ac7-4a51-bd58-e4a91e7a3f96";
const NEWEST: &str = "0c23df3f-7ac7-4a51-bd58-e4a91e7a3f97";

/// A balancer with an agent that waits for so long, a web server, and PuppetDB with the web server's last catalog but one.
fn scenery(kind: BackendKind, settle: &str) -> (Fleet, Node, Node, PuppetDb) {
    let fleet = Fleet::on(kind);
    let mut lb = fleet.node("lb01");
    let puppetdb = PuppetDb::start(&lb.path("puppetdb"));
    puppetdb.store("web01", OLD);
    lb.set("settle", settle).set("puppetdb", &format!("{{ url = '{}' }}", puppetdb.url())).start_agent();
    let web = fleet.node("web01");
    (fleet, lb, web, puppetdb)
}

fn fire(web: &Node, catalog: &str) -> String {
    web.fire_from_puppet(&["refresh", "--host", "lb01", "--catalog", catalog]).committed()
}

fn reason(web: &Node, event: &str, holds: &str) {
    eventually(&format!("the reason '{holds}'"), || {
        let status = web.status(event)?.to_string();
        if status.contains(holds) { Ok(()) } else { Err(status) }
    });
}

/// Proves C2.
fn a_run_waits_until_puppetdb_has_the_exporters_catalog(kind: BackendKind) {
    let (_fleet, lb, web, puppetdb) = scenery(kind, "'10m'");
    let event = fire(&web, NEW);
    reason(&web, &event, "PuppetDB has not stored the catalog of web01 yet, with what it exports");
    assert_eq!(lb.runs().len(), 0);
    puppetdb.store("web01", NEW);
    web.wait_for(&event, "lb01", "done");
    assert_eq!(lb.runs().len(), 1);

    // A later catalog is as good, and without a catalog nothing is asked for.
    let event = fire(&web, NEW);
    web.wait_for(&event, "lb01", "done");
    let event = fire(&web, NEWEST);
    reason(&web, &event, "PuppetDB has not stored");
    puppetdb.store_of("web01", OLD, "2100-01-01T00:00:00.000Z");
    web.wait_for(&event, "lb01", "done");
    let asked = puppetdb.asked().len();
    let event = web.fire(&["refresh", "--host", "lb01"]).committed();
    web.wait_for(&event, "lb01", "done");
    assert_eq!(puppetdb.asked().len(), asked);
    let questions = puppetdb.asked();
    let (path, query) = &questions[0];
    assert_eq!(path, "/pdb/query/v4/catalogs");
    assert_eq!(
        query,
        r#"["extract",["certname","catalog_uuid","producer_timestamp"],["in","certname",["array",["web01"]]]]"#
    );
}

/// Proves C2: also across a restart of the agent.
fn a_run_that_could_not_wait_any_longer_is_repeated_when_the_catalog_has_arrived(kind: BackendKind) {
    let (_fleet, mut lb, web, puppetdb) = scenery(kind, "'1s'");
    let event = fire(&web, NEW);
    let went_ahead = "did not wait any longer for PuppetDB, which had not stored the catalog of web01";
    reason(&web, &event, went_ahead);
    assert_eq!(lb.runs().len(), 1);
    assert!(lb.agent_log().contains(went_ahead), "{}", lb.agent_log());
    puppetdb.store("web01", NEW);
    web.wait_for(&event, "lb01", "done");
    assert_eq!(lb.runs().len(), 2);

    let event = fire(&web, NEWEST);
    reason(&web, &event, went_ahead);
    lb.kill_agent();
    puppetdb.store("web01", NEWEST);
    lb.start_agent();
    web.wait_for(&event, "lb01", "done");
    assert_eq!(lb.runs().len(), 4);
}

#[test]
fn a_puppetdb_that_does_not_answer_or_lies_delays_no_run_for_long() {
    let (_fleet, mut lb, web, puppetdb) = scenery(BackendKind::Hub, "'10m'");
    let ran = |lb: &Node, runs| {
        let begun = Instant::now();
        let event = fire(&web, NEW);
        web.wait_for(&event, "lb01", "done");
        assert_eq!(lb.runs().len(), runs);
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    };
    puppetdb.answers(403);
    ran(&lb, 1);
    lb.wait_for_log("let this node's certificate query it");
    let doctor = lb.trigger(&["doctor", "--output", "json"]).stdout;
    assert!(
        doctor.contains("answered 403") && doctor.contains("runs do not wait until it has stored"),
        "{doctor}"
    );
    puppetdb.answers(200);
    // More than it is read of.
    puppetdb.answers_with_bytes(64 << 20);
    lb.kill_agent();
    lb.start_agent();
    ran(&lb, 2);
    lb.wait_for_log("sent more than");
    // It says what it was not asked for, and nothing that was.
    puppetdb.answers_with_bytes(0);
    puppetdb.store("web01", "not a uuid");
    puppetdb.store_of("other", NEW, "2100-01-01T00:00:00.000Z");
    lb.kill_agent();
    lb.set("settle", "'1s'").start_agent();
    let event = fire(&web, NEW);
    reason(&web, &event, "another run follows");
    assert_eq!(lb.runs().len(), 3);
}

#[test]
fn a_query_is_fired_at_the_active_nodes_that_it_finds() {
    let (fleet, lb, mut web, puppetdb) = scenery(BackendKind::Hub, "0");
    web.set("puppetdb", &format!("{{ url = '{}' }}", puppetdb.url()));
    puppetdb.finds(&["lb01", "lb02", "gone"], &["lb01", "lb02"]);
    let query = "resources[certname] { type = \"Class\" }";
    let fired = |answer: &Answer| {
        let targets = answer.json["targets"].as_array().cloned().unwrap_or_default();
        targets.iter().map(|target| target["certname"].to_string()).collect::<Vec<_>>().join(",")
    };
    let answer = web.fire(&["refresh", "--query", query, "--host", "db01"]);
    assert_eq!(fired(&answer), r#""db01","lb01","lb02""#);
    web.wait_for(&answer.committed(), "lb01", "done");
    assert_eq!(lb.runs().len(), 1);
    assert_eq!(puppetdb.asked()[0], ("/pdb/query/v4".to_owned(), query.into()));

    puppetdb.finds(&["gone"], &[]);
    let answer = web.fire(&["refresh", "--query", query]);
    assert_eq!((answer.code, answer.json["state"].as_str()), (0, Some("no_targets")), "{answer:?}");
    assert_eq!(answer.warnings(), "PuppetDB knows no active node for the query");
    let answer = web.fire(&["refresh", "--query", query, "--host", "lb01"]);
    assert_eq!(fired(&answer), r#""lb01""#);
    assert_eq!(answer.warnings(), "PuppetDB knows no active node for the query");

    puppetdb.answers(400);
    let error = web.fire(&["refresh", "--query", query]).error(1);
    assert!(error.contains("answered 400") && error.ends_with("nothing was fired"), "{error}");
    puppetdb.answers(200);
    puppetdb.answers_with_bytes(64 << 20);
    let error = web.fire(&["refresh", "--query", query]).error(1);
    assert!(error.contains("sent more than"), "{error}");
    let without = fleet.node("web02").fire(&["refresh", "--query", query]);
    assert!(without.error(3).contains("no PuppetDB is known here"), "{without:?}");
}
