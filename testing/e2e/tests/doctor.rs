//! What `trigger doctor` finds on a node, and that it says how to mend it.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::fs;

use serde_json::Value;
use trigger_e2e::{BackendKind, Fleet, Node, on_each_backend, on_each_plain_backend};

on_each_plain_backend!(a_sound_node_is_found_so_and_a_broken_one_is_not);
on_each_backend!(a_certificate_is_judged_with_the_link_that_it_is_for);

/// Runs `trigger doctor --output json`, which has to end with this code.
fn doctor(node: &Node, code: i32) -> Value {
    let answer = node.trigger(&["doctor", "--output", "json"]);
    assert_eq!(answer.code, code, "{answer:?}");
    answer.json
}

/// Returns the findings about an area that are not in order, in the form `error: SUMMARY`.
fn bad(found: &Value, area: &str) -> Vec<String> {
    let findings = found["findings"].as_array().map_or(&[][..], Vec::as_slice);
    let of_area = findings.iter().filter(|finding| finding["area"] == area && finding["severity"] != "ok");
    let line = |finding: &Value| {
        assert!(!finding["remedy"].is_null(), "{finding}");
        let word = |name: &str| finding[name].as_str().unwrap_or_default().to_owned();
        format!("{}: {}", word("severity"), word("summary"))
    };
    of_area.map(line).collect()
}

fn check(found: &Value, area: &str, parts: &[&str]) {
    let lines = bad(found, area);
    assert_eq!(lines.len(), parts.len(), "{area}: {found}");
    for (line, part) in lines.iter().zip(parts) {
        assert!(line.contains(part), "'{part}' in {line}");
    }
}

fn a_sound_node_is_found_so_and_a_broken_one_is_not(kind: BackendKind) {
    let mut fleet = Fleet::on(kind);
    let mut web = fleet.node("web01");
    let before = doctor(&web, 1);
    check(&before, "state directory", &["error: there is no state directory"]);
    assert!(!web.path("state").exists(), "doctor changes nothing");

    web.start_agent();
    let sound = doctor(&web, 0);
    // The run command of these tests is a script.
    check(&sound, "configuration", &["warning: the run command"]);
    for area in ["certname", "state directory", "backend", "agent", "outbox", "claim"] {
        check(&sound, area, &[]);
        assert!(sound.to_string().contains(&format!("\"area\":\"{area}\"")), "{area}: {sound}");
    }
    let text = web.trigger(&["doctor"]).stdout;
    assert!(text.contains("ok       agent: it runs, and is connected"), "{text}");

    // The node gets another name, and events wait for a backend that is not its own.
    web.set("certname", "'web02'");
    web.trigger(&["fire", "x", "--host", "lb", "--backend", "hub+http://127.0.0.1:9", "--certname", "web01"]);
    let renamed = doctor(&web, 1);
    check(&renamed, "certname", &["error: the state directory belongs to web01, and this node is web02"]);
    check(&renamed, "outbox", &["warning: 1 event is for a backend"]);
    web.set("certname", "'web01'");

    web.kill_agent();
    let without_agent = doctor(&web, 1);
    check(&without_agent, "agent", &["error: no agent runs on this node"]);
    check(&without_agent, "claim", &["error: another agent acts for web01"]);

    fleet.backend.kill();
    let cut_off = doctor(&web, 1);
    check(&cut_off, "backend", &["error: backend"]);
    check(&cut_off, "claim", &[]);

    web.set("runs_per_minute", "0");
    let mistake = doctor(&web, 1);
    check(&mistake, "configuration", &["error: setting runs_per_minute", "warning: the run command"]);
    web.set("no_such_key", "1");
    check(&doctor(&web, 1), "configuration", &["unknown key 'no_such_key'"]);
}

fn a_certificate_is_judged_with_the_link_that_it_is_for(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let web = fleet.running("web01.example.com");
    let sound = doctor(&web, 0);
    check(&sound, "certificate", &[]);
    check(&sound, "rights", &[]);
    let lines = sound.to_string();
    assert!(lines.contains("it is valid until"), "{lines}");

    fs::remove_file(web.ssl().certificate()).expect("a certificate");
    let unsigned = doctor(&web, 1);
    check(&unsigned, "certificate", &["error: "]);
    assert!(!bad(&unsigned, "backend").is_empty(), "{unsigned}");
}
