//! The policy of a node: which events it runs, and what becomes of those that wait when it changes.

use std::fs;

use trigger_e2e::{Authority, BackendKind, Fleet, Node, Request, on_each_backend};

on_each_backend!(a_rule_with_extensions_takes_what_the_ca_has_certified);

const RULES: &str = "[{ trigger = 'refresh*', from = 'web*' }, { trigger = 'deploy', noop = 'only' }, \
                     { from = 'web02', deny = true }, { tags = ['profile::lb'] }]";

fn refused(node: &Node, event: &str) -> String {
    let delivery = node.wait_for(event, "lb01", "refused");
    delivery["reason"].as_str().map(str::to_owned).unwrap_or_default()
}

/// Proves C13.
#[test]
fn an_event_that_no_rule_accepts_ends_refused_with_the_file_that_has_the_rules() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut lb = fleet.node("lb01");
    lb.set("accept", RULES).start_agent();
    let (web, db) = (fleet.node("web01"), fleet.node("db01"));
    let done = web.fire(&["refresh lb", "--host", "lb01"]).committed();
    web.wait_for(&done, "lb01", "done");
    let tagged = db.fire(&["other", "--host", "lb01", "--tag", "profile::lb"]).committed();
    db.wait_for(&tagged, "lb01", "done");
    assert_eq!(lb.runs().len(), 2);

    let file = lb.config().display().to_string();
    let by = |node: &Node, arguments: &[&str], expected: &str| {
        let event = node.fire(&[arguments, &["--host", "lb01"]].concat()).committed();
        assert_eq!(refused(node, &event), expected.replace("FILE", &file));
    };
    by(
        &db,
        &["refresh lb"],
        "the [[accept]] rule 4 in FILE on this node allows the trigger 'refresh lb' from db01 the tags profile::lb \
         only, and this event asks for the whole catalog",
    );
    by(
        &web,
        &["deploy"],
        "the [[accept]] rule 2 in FILE on this node allows the trigger 'deploy' from web01 noop runs only, and this \
         event asks for a real run",
    );
    by(
        &fleet.node("web02"),
        &["x", "--tag", "profile::lb"],
        "the [[accept]] rule 3 in FILE on this node denies the trigger 'x' from web02",
    );
    assert_eq!(lb.runs().len(), 2, "nothing that is refused runs");
}

/// Proves C13.
#[test]
fn an_event_chooses_no_environment_that_no_rule_allows() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut lb = fleet.node("lb01");
    lb.set("accept", "[]").start_agent();
    let web = fleet.node("web01");
    let chosen = |environment: &str, expected: &str| {
        let event = web.fire(&["x", "--host", "lb01", "--environment", environment]).committed();
        let reason = refused(&web, &event);
        assert!(reason.contains(expected), "{reason}");
    };
    chosen("attack", "only an [[accept]] rule with the key environment in");
    lb.kill_agent();
    lb.set("accept", "[{ environment = ['test', 'feature_*'] }]").start_agent();
    chosen(
        "attack",
        "allows the trigger 'x' from web01 the environment test, feature_* besides the node's own",
    );
    chosen(
        "feature_42",
        "this node's run command cannot run in the environment feature_42: 'puppet agent' can",
    );
    let plain = web.fire(&["x", "--host", "lb01"]).committed();
    web.wait_for(&plain, "lb01", "done");
    assert_eq!(lb.runs().len(), 1, "nothing that is refused runs");

    let test = ["policy", "test", "--from", "web01", "--trigger", "x", "--output", "json", "--environment"];
    for (environment, code) in [("test", 0), ("attack", 1), ("a-b", 2)] {
        let answer = lb.trigger(&[&test[..], &[environment]].concat());
        assert_eq!(answer.code, code, "{answer:?}");
    }
    let refused = web.trigger(&["fire", "x", "--host", "lb01", "--environment", "../etc"]);
    assert_eq!(refused.code, 2, "{refused:?}");
}

/// Proves C13.
fn a_rule_with_extensions_takes_what_the_ca_has_certified(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let mut lb = fleet.node("lb01");
    lb.set("require_signature", "true")
        .set("accept", "[{ extensions = { pp_role = 'web*' } }]")
        .start_agent();
    let with_role = |certname: &str, role: &str| {
        let node = fleet.node(certname);
        let request = Request::of(certname).with_extension("1.13", role);
        Authority::puppet().issue(&request, node.ssl().directory());
        node
    };
    let (web, db, plain) =
        (with_role("web01", "webserver"), with_role("db01", "database"), fleet.node("app01"));
    let event = web.fire(&["refresh lb", "--host", "lb01"]).committed();
    web.wait_for(&event, "lb01", "done");
    for node in [&db, &plain] {
        let event = node.fire(&["refresh lb", "--host", "lb01"]).committed();
        let reason = refused(node, &event);
        let expected = format!("is for the trigger 'refresh lb' from {}", node.certname());
        assert!(reason.contains(&expected), "{reason}");
    }
    assert_eq!(lb.runs().len(), 1);
}

/// Proves C13.
#[test]
fn a_changed_policy_applies_to_what_waits_and_a_broken_one_does_not() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut lb = fleet.node("lb01");
    lb.start_agent();
    lb.hold();
    let web = fleet.node("web01");
    let running = web.fire(&["first", "--host", "lb01"]).committed();
    web.wait_for(&running, "lb01", "running");
    let waiting = web.fire(&["second", "--host", "lb01"]).committed();
    web.wait_for(&waiting, "lb01", "pending");

    lb.set("accept", "[{ form = 'web*' }]");
    lb.wait_for_log("the policy that was read before stays in force");
    assert_eq!(web.delivery(&waiting, "lb01")["state"], "pending");
    fs::remove_file(lb.config()).unwrap();
    lb.wait_for_log("trigger.toml is gone");
    assert_eq!(web.delivery(&waiting, "lb01")["state"], "pending");

    lb.set("accept", "[{ trigger = 'third' }]");
    let reason = refused(&web, &waiting);
    assert!(reason.starts_with("no [[accept]] rule in "), "{reason}");
    lb.release();
    web.wait_for(&running, "lb01", "done");
    let third = web.fire(&["third", "--host", "lb01"]).committed();
    web.wait_for(&third, "lb01", "done");
    assert_eq!(lb.runs().len(), 2);
}

#[test]
fn the_decision_about_an_event_can_be_asked_for() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut lb = fleet.node("lb01");
    lb.set("accept", RULES);
    let check = |arguments: &[&str], code: i32, text: &str| {
        let answer = lb.trigger(&[&["policy", "test"], arguments].concat());
        assert_eq!(answer.code, code, "{answer:?}");
        assert!(answer.stdout.contains(text), "{answer:?}");
    };
    check(&["--from", "WEB01", "--trigger", "refresh*"], 0, "rule 1 in");
    check(
        &["--from", "web01", "--trigger", "deploy", "--noop"],
        0,
        "2. trigger deploy; noop only: it decides",
    );
    check(&["--from", "db01", "--trigger", "x", "--tag", "profile::lb", "--tag", "web"], 1, "asks for web");
    check(&["--from", "db 01", "--trigger", "x"], 2, "");
    let answer = lb.trigger(&["policy", "test", "--from", "web02", "--trigger", "x", "--output", "json"]);
    assert_eq!((answer.code, &answer.json["accepted"], &answer.json["rule"]), (1, &false.into(), &3.into()));
    lb.set("accept", "[{ extensions = { pp_role = 'web' } }]");
    let from = ["policy", "test", "--from", "a", "--trigger", "x"];
    for (more, code) in [(&["--extension", "pp_role=web"][..], 0), (&[][..], 1), (&["--unsigned"][..], 1)] {
        assert_eq!(lb.trigger(&[&from, more].concat()).code, code, "{more:?}");
    }
    lb.set("accept", "[{ from = 'a/b' }]");
    let answer = lb.trigger(&from);
    assert_eq!(answer.code, 3, "{answer:?}");
    assert!(answer.stderr.contains("[[accept]] rule 1: from: 'a/b' matches no certname"), "{answer:?}");
    let mut broken = fleet.node("lb02");
    broken.set("accept", "[{ from = 'a/b' }]").launch_agent();
    assert_eq!(broken.agent().wait(), 3);
}
