//! Attacks on a node and on those who work there: by another user of its machine, by what the target does not want, and
//! by text (C8, C13). On a real hub and a real etcd with TLS.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use trigger_e2e::{Authority, BackendKind, Fleet, Request, eventually, on_each_backend, program};

on_each_backend!(
    another_user_of_the_machine_has_nothing_of_the_node,
    an_event_runs_only_if_the_policy_of_its_target_accepts_its_certificate,
    text_of_another_node_controls_no_terminal_and_makes_no_lines,
);

const PREFIX: &str = "/puppet_trigger/events";
const LB: &str = "lb01.example.com";
const WEB: &str = "web01.example.com";

/// Proves C11 and C13.
fn another_user_of_the_machine_has_nothing_of_the_node(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let mut lb = fleet.node(LB);
    lb.set("require_signature", "true").start_agent();
    // All may reach the node's directory and the program, as on a real machine.
    for directory in lb.path("").ancestors().chain(program().ancestors().skip(1)) {
        let mode = fs::metadata(directory).map_or(0o755, |metadata| metadata.permissions().mode());
        if directory.parent().is_some() && mode & 0o005 != 0o005 {
            fs::set_permissions(directory, fs::Permissions::from_mode(mode | 0o055)).expect("a mode");
        }
    }
    let own = fleet.directory("own");
    fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).expect("a mode");
    let as_nobody = |command: &str| {
        let mut shell = Command::new("setpriv");
        shell.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--", "sh", "-c", command]);
        shell.current_dir("/").output().expect("setpriv")
    };
    let text = |path: &Path| path.display().to_string();
    let (state, key) = (text(&lb.path("state")), text(&lb.ssl().key()));
    for attack in [
        format!("cat {key}"),
        format!("ls {state}"),
        format!("cat {state}/*"),
        format!("touch {state}/planted"),
        format!("rm -rf {state} && ! test -e {state}"),
        format!("mv {state} {state}-2"),
        format!("mv {} {}", text(&lb.config()), text(&lb.path("moved"))),
        "touch /run/trigger/planted".to_owned(),
        "mv /run/trigger /run/trigger-2".to_owned(),
    ] {
        let answer = as_nobody(&attack);
        assert!(!answer.status.success(), "{attack}: {answer:?}");
        assert!(answer.stdout.is_empty(), "{attack}: {answer:?}");
    }
    // Through the agent's socket; and past it, into an outbox of its own, from where nothing goes without the key.
    let fire = format!("{} fire attack --host {LB} --config {}", text(program()), text(&lb.config()));
    let answer = as_nobody(&fire);
    assert!(!answer.status.success(), "{answer:?}");
    let answer = as_nobody(&format!("{fire} --state-dir {}", text(&own)));
    let said = String::from_utf8_lossy(&answer.stderr).into_owned();
    assert!(said.contains("the event cannot be signed: cannot read the private key"), "{answer:?}");
    let event = lb.fire(&["refresh", "--host", LB]).committed();
    lb.wait_for(&event, LB, "done");
    assert_eq!(lb.runs().len(), 1);
}

/// Proves C13: what counts is the certificate, which no node can choose.
fn an_event_runs_only_if_the_policy_of_its_target_accepts_its_certificate(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let mut lb = fleet.node(LB);
    let rules = format!(
        "[{{ from = '{WEB}', trigger = 'refresh*' }}, {{ extensions = {{ pp_role = 'deployer' }} }}]"
    );
    lb.set("require_signature", "true").set("accept", &rules).start_agent();
    let (web, evil) = (fleet.node(WEB), fleet.node("evil.example.com"));
    for (node, trigger) in [(&evil, "refresh"), (&web, "destroy")] {
        let event = node.fire(&[trigger, "--host", LB]).committed();
        let refused = node.wait_for(&event, LB, "refused");
        assert!(refused["reason"].as_str().is_some_and(|why| why.contains("[[accept]]")), "{refused}");
    }
    // With another node's name in its configuration it fires in no name at all.
    let mut impostor = fleet.node_in("impostor", WEB);
    impostor.has_certificate(&evil.ssl());
    let answer = impostor.fire(&["refresh", "--host", LB]);
    assert_ne!(answer.json["state"], "committed", "{answer:?}");
    // A role that the CA has signed counts.
    let mut deployer = fleet.node("deploy01.example.com");
    let request = Request::of("deploy01.example.com").with_extension("1.13", "deployer");
    deployer.has_certificate(&Authority::puppet().issue(&request, &deployer.path("role")));
    for (node, trigger) in [(&deployer, "anything"), (&web, "refresh")] {
        let event = node.fire(&[trigger, "--host", LB]).committed();
        node.wait_for(&event, LB, "done");
    }
    assert_eq!(lb.runs().len(), 2);
}

/// Proves C8: a target that was taken over writes a reason of its own for the origin to read.
fn text_of_another_node_controls_no_terminal_and_makes_no_lines(kind: BackendKind) {
    const FORGED: &str = "why\u{1b}[2J\u{9b}8m\u{7f}\u{202e}\r\nweb09 done";
    let fleet = Fleet::on(kind);
    let (mut web, evil) = (fleet.node(WEB), fleet.node("evil.example.com"));
    // It believes any outcome, as one that the target has signed.
    web.set("require_signature", "false").start_agent();
    let event = web.fire(&["a\u{202e}name", "--host", "evil.example.com"]).committed();
    let key = format!("{PREFIX}/outcomes/{event}/evil.example.com");
    let value = json!({ "v": 1, "body": { "state": "refused", "reason": FORGED } }).to_string();
    if kind.is_hub() {
        let body = json!({ "entries": [{ "key": key, "value": value }] });
        let (status, reply) = fleet.backend.post_as(&evil.ssl(), "/v1/put", &body);
        assert_eq!(status, 200, "{reply}");
    } else {
        fleet.backend.etcdctl_as(&evil.ssl(), &["put", "--", &key, &value]).expect("a write");
    }
    web.wait_for(&event, "evil.example.com", "refused");
    for arguments in [&["status", &event][..], &["status"], &["why", &event], &["queue"]] {
        let answer = web.trigger(arguments);
        for text in [&answer.stdout, &answer.stderr] {
            let is_hidden = |char: char| (char.is_control() && char != '\n') || char == '\u{202e}';
            assert!(!text.contains(is_hidden), "{arguments:?}: {text:?}");
            assert!(!text.lines().any(|line| line.starts_with("web09")), "{arguments:?}: {text:?}");
        }
    }
    let status = web.trigger(&["status", &event]);
    let line = status.stdout.lines().find(|line| line.contains("why")).expect("the reason");
    assert!(line.contains("web09 done"), "on the line of its own target: {status:?}");
    assert!(!web.agent_log().contains(['\u{1b}', '\u{202e}']), "{}", web.agent_log());
    eventually("an agent that goes on", || match web.queue()["agent_running"].as_bool() {
        Some(true) => Ok(()),
        _ => Err(String::new()),
    });
}
