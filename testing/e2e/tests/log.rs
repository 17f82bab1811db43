//! The output of runs, as `trigger log` shows it on the node and elsewhere.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::process::{Command, Stdio};

use serde_json::Value;
use trigger_e2e::{BackendKind, Fleet, Node, OPERATOR, eventually, on_each_backend};

on_each_backend!(
    an_operator_reads_the_output_of_a_run_and_nothing_stays_in_the_backend,
    a_reader_follows_a_run_until_it_ends,
    a_node_that_may_not_read_is_refused_with_the_reason,
    a_node_that_does_not_answer_is_said_with_when_it_was_seen,
);

const LB: &str = "lb01.example.com";
const WEB: &str = "web01.example.com";
const PREFIX: &str = "/puppet_trigger/events";
/// The run command: it prints, waits while the file `hold` exists, and prints again.
const TALKATIVE: &str = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\necho 'before \u{1b}[31mthe pause'\n\
    while [ -e hold ]; do sleep 0.02; done\necho 'after the pause'\n";

struct Scene {
    fleet: Fleet,
    lb: Node,
    web: Node,
    operator: Node,
}

impl Scene {
    fn new(kind: BackendKind) -> Self {
        let fleet = Fleet::on(kind);
        let mut lb = fleet.node(LB);
        let command = lb.script("talk.sh", TALKATIVE);
        lb.set("run_cmd", &format!("'{}'", command.display()));
        // A hub knows its operators; at an etcd, a node names its readers.
        if !kind.is_hub() {
            lb.set("log", &format!("{{ readers = ['{OPERATOR}'] }}"));
        }
        lb.start_agent();
        let (web, operator) = (fleet.running(WEB), fleet.operator());
        Self { fleet, lb, web, operator }
    }

    fn fire(&self) -> String {
        self.web.fire(&["refresh", "--host", LB]).committed()
    }

    /// Fires, and returns the id of the run when it has ended.
    fn run(&self) -> String {
        let event = self.fire();
        let done = self.web.wait_for(&event, LB, "done");
        done["run_id"].as_str().expect("a run").to_owned()
    }

    fn is_left_behind(&self) -> bool {
        let keys = [format!("log-requests/{LB}/{OPERATOR}"), format!("log-answers/{OPERATOR}/{LB}")];
        keys.iter().any(|key| match self.fleet.backend.kind() {
            // A hub shows it to the reader alone.
            kind if kind.is_hub() => {
                let asked = serde_json::json!({ "ranges": [{ "key": format!("{PREFIX}/{key}") }] });
                let (code, read) = self.fleet.backend.post_as(&self.operator.ssl(), "/v1/read", &asked);
                assert_eq!(code, 200, "{read}");
                !read["entries"].as_array().expect("entries").is_empty()
            }
            _ => self.fleet.backend.get(&format!("{PREFIX}/{key}")).is_some(),
        })
    }
}

fn log(node: &Node, arguments: &[&str]) -> Value {
    let answer = node.trigger(&[&["log", "--output", "json"], arguments].concat());
    assert_eq!(answer.code, 0, "{answer:?}");
    answer.json
}

/// What a `trigger log` says that fails.
fn failure(node: &Node, arguments: &[&str]) -> String {
    let answer = node.trigger(&[&["log"], arguments].concat());
    assert_eq!(answer.code, 1, "{answer:?}");
    answer.stderr
}

/// Proves C13.
fn an_operator_reads_the_output_of_a_run_and_nothing_stays_in_the_backend(kind: BackendKind) {
    let scene = Scene::new(kind);
    let first = scene.run();
    let shown = log(&scene.operator, &[LB]);
    assert_eq!((&shown["certname"], &shown["run_id"]), (&LB.into(), &first.as_str().into()), "{shown}");
    assert_eq!(shown["has_ended"], true, "{shown}");
    assert_eq!(shown["output"], "before \u{1b}[31mthe pause\nafter the pause\n", "{shown}");
    // By the run, which the node's history names, and by how many runs back it is.
    let second = scene.run();
    assert_eq!(log(&scene.operator, &[LB])["run_id"], second.as_str());
    assert_eq!(log(&scene.operator, &[LB, "--run", "1"])["run_id"], first.as_str());
    assert_eq!(log(&scene.operator, &[LB, "--run", &first])["run_id"], first.as_str());
    let by_id = eventually("the node of a run", || {
        let answer = scene.operator.trigger(&["log", &first]);
        if answer.code == 0 { Ok(answer) } else { Err(format!("{answer:?}")) }
    });
    assert_eq!(by_id.stdout, "before \\u{1b}[31mthe pause\nafter the pause\n", "{by_id:?}");
    assert!(by_id.stderr.contains(&format!("run {first} on {LB}, ended")), "{by_id:?}");
    let unknown = failure(&scene.operator, &[LB, "--run", "7"]);
    assert!(unknown.contains("has no such run any more"), "{unknown}");
    assert!(!scene.is_left_behind());
    let audit = scene.lb.agent_log();
    assert!(audit.contains("action=log") || audit.contains("\"action\":\"log\""), "{audit}");

    // On the node itself it needs no backend and no agent.
    let own = log(&scene.lb, &["--backend", "hub+http://127.0.0.1:1", "--run", "1"]);
    assert_eq!(own["run_id"], first.as_str(), "{own}");
    let own = log(&scene.lb, &["--backend", "hub+http://127.0.0.1:1", &second]);
    assert_eq!(own["output"], "before \u{1b}[31mthe pause\nafter the pause\n", "{own}");
}

fn a_reader_follows_a_run_until_it_ends(kind: BackendKind) {
    let scene = Scene::new(kind);
    for reader in [&scene.operator, &scene.lb] {
        scene.lb.hold();
        let event = scene.fire();
        scene.web.wait_for(&event, LB, "running");
        eventually("output", || {
            let shown = log(reader, &[LB]);
            let is_there = shown["output"].as_str().is_some_and(|text| text.contains("before"));
            if is_there && shown["has_ended"] == false { Ok(()) } else { Err(shown.to_string()) }
        });
        let mut command: Command = reader.command(&["log", LB, "--follow"]);
        let following = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("trigger log");
        scene.lb.release();
        let followed = following.wait_with_output().expect("its output");
        let text = String::from_utf8_lossy(&followed.stdout);
        assert!(followed.status.success(), "{followed:?}");
        assert_eq!(text, "before \\u{1b}[31mthe pause\nafter the pause\n", "{followed:?}");
        scene.web.wait_for(&event, LB, "done");
    }
    assert!(!scene.is_left_behind());
}

/// Proves C13.
fn a_node_that_may_not_read_is_refused_with_the_reason(kind: BackendKind) {
    let scene = Scene::new(kind);
    let run = scene.run();
    let error = failure(&scene.web, &[LB]);
    assert!(error.contains(&format!("{LB} refuses: {WEB} may not read the output of runs here")), "{error}");
    assert!(error.contains("[log] in "), "{error}");
    // A policy that names it lets it, without a restart.
    let mut lb = scene.lb;
    lb.set("log", &format!("{{ operators = false, readers = ['{WEB}'] }}"));
    eventually("the new policy", || {
        let answer = scene.web.trigger(&["log", LB, "--run", &run]);
        if answer.code == 0 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    let refused = failure(&scene.operator, &[LB]);
    assert!(refused.contains("may not read the output of runs here"), "{refused}");
}

fn a_node_that_does_not_answer_is_said_with_when_it_was_seen(kind: BackendKind) {
    let mut scene = Scene::new(kind);
    scene.lb.kill_agent();
    let silent = failure(&scene.operator, &[LB, "--timeout", "1s"]);
    assert!(silent.contains(&format!("{LB} has not answered within 1s: its agent was seen at ")), "{silent}");
    assert!(silent.contains(&format!("its version {} ", env!("CARGO_PKG_VERSION"))), "{silent}");
    scene.lb.start_agent();
    scene.lb.agent().terminate();
    scene.lb.agent().wait();
    let stopped = failure(&scene.operator, &[LB, "--timeout", "1s"]);
    assert!(stopped.contains("its agent was stopped, and last seen at "), "{stopped}");
    let unknown = failure(&scene.operator, &["lb09.example.com", "--timeout", "1s"]);
    assert!(unknown.contains("no agent has registered as lb09.example.com"), "{unknown}");
    assert!(!scene.is_left_behind());
}
