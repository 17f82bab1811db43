//! Attacks on a node and on those who work there: by another user of its machine, by what the target does not want, and
//! by text (C8, C13). On a real hub and a real etcd with TLS.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use trigger_e2e::{Authority, BackendKind, Fleet, Request, Ssl, eventually, on_each_backend, program};

on_each_backend!(
    another_user_of_the_machine_has_nothing_of_the_node,
    an_event_runs_only_if_the_policy_of_its_target_accepts_its_certificate,
    a_certificate_with_another_nodes_name_beside_its_own_makes_it_no_other_node,
    text_of_another_node_controls_no_terminal_and_makes_no_lines,
);

const PREFIX: &str = "/puppet_trigger/events";
const LB: &str = "lb01.example.com";
const WEB: &str = "web01.example.com";
const EVIL: &str = "evil.example.com";
const TO_PART_0: &str = r#"{"v":1,"body":{"part":0}}"#;

fn part(event: &str) -> String {
    format!("{PREFIX}/events/{event}/parts/0")
}

fn delivery(certname: &str, event: &str) -> String {
    format!("{PREFIX}/deliveries/{certname}/{event}")
}

/// An id like that of an event, of which nothing is stored yet.
fn new_id(like: &str) -> String {
    // In the form of earlier versions, which anyone could make.
    format!("{}7{}{:012x}", &like[..14], &like[15..24], 1)
}

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
    let (web, evil) = (fleet.node(WEB), fleet.node(EVIL));
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

/// A stored value that was altered, with a signature that fits it again: made with this key, as a program other than
/// Trigger would make it.
fn signed_again(ssl: &Ssl, key: &str, text: &str) -> String {
    let (value, rest) = text.split_once(",\"sig\":").expect("a signature");
    let body = value.strip_prefix(r#"{"v":1,"body":"#).expect("a body");
    let (_, certificate) = rest.split_once(",\"cert\":").expect("a certificate");
    let signed = format!("trigger stored value\n1\n{}\n{key}\n{}\n{body}", key.len(), body.len());
    let file = ssl.directory().join("signed");
    fs::write(&file, signed).expect("what is signed");
    let mut command = Command::new("sh");
    command.args(["-c", "openssl dgst -sha256 -sign \"$1\" \"$2\" | base64 --wrap 0", "sign"]);
    let output = command.arg(ssl.key()).arg(&file).output().expect("a shell");
    let signature = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!signature.is_empty(), "{output:?}");
    format!("{value},\"sig\":\"ecdsa_secp256r1_sha256:{signature}\",\"cert\":{certificate}")
}

/// Proves C13: a client is the common name of its certificate. Other names are for servers.
fn a_certificate_with_another_nodes_name_beside_its_own_makes_it_no_other_node(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let mut lb = fleet.node(LB);
    lb.set("accept", &format!("[{{ from = '{WEB}' }}]")).start_agent();
    let (web, evil) = (fleet.node(WEB), fleet.node(EVIL));
    let ssl = Authority::puppet().issue(&Request::of(EVIL).with_alt_names(&[WEB]), evil.ssl().directory());
    let event = evil.fire(&["refresh", "--host", LB]).committed();
    let refused = evil.wait_for(&event, LB, "refused");
    assert!(refused["reason"].as_str().is_some_and(|why| why.contains(&format!("from {EVIL}"))), "{refused}");
    // With the other name in its configuration it fires in no name at all.
    let mut impostor = fleet.node_in("impostor", WEB);
    impostor.has_certificate(&ssl);
    let error = impostor.fire(&["refresh", "--host", LB]).error(1);
    assert!(error.contains(&format!("this node's certificate is for {EVIL}")), "{error}");

    // Past its own program: a hub refuses to store what is the other node's, and a target what an etcd has stored.
    let text = fleet.backend.get(&part(&event)).expect("a part");
    let forged = new_id(&event);
    let by = |certname: &str| format!("\"origin\":\"{certname}\"");
    let in_its_name = text.replace(&event, &forged).replace(&by(EVIL), &by(WEB));
    assert!(in_its_name.contains(&by(WEB)), "{in_its_name}");
    let in_its_name = signed_again(&ssl, &part(&forged), &in_its_name);
    let put = |key: &str, value: &str| fleet.backend.put_as(&ssl, key, value);
    if kind.is_hub() {
        for (key, value) in [
            (format!("{PREFIX}/run-history/{WEB}"), "x"),
            (format!("{PREFIX}/nodes/{WEB}"), "x"),
            (part(&forged), in_its_name.as_str()),
        ] {
            let refusal = put(&key, value).expect_err("a refusal");
            assert!(
                refusal.starts_with("403 ") && refusal.contains(&format!("{EVIL} may not ")),
                "{refusal}"
            );
        }
    } else {
        put(&part(&forged), &in_its_name).expect("a write");
        put(&delivery(LB, &forged), TO_PART_0).expect("a write");
        let refused = evil.wait_for(&forged, LB, "refused");
        let why = refused["reason"].as_str().unwrap_or_default();
        assert!(
            why.contains(&format!("{EVIL} has signed it, which is not the node that it is of")),
            "{refused}"
        );
    }
    let event = web.fire(&["refresh", "--host", LB]).committed();
    web.wait_for(&event, LB, "done");
    assert_eq!(lb.runs().len(), 1);
}

/// Proves C8: a target that was taken over writes a reason of its own for the origin to read.
fn text_of_another_node_controls_no_terminal_and_makes_no_lines(kind: BackendKind) {
    const FORGED: &str = "why\u{1b}[2J\u{9b}8m\u{7f}\u{202e}\r\nweb09 done";
    let fleet = Fleet::on(kind);
    let (mut web, evil) = (fleet.node(WEB), fleet.node(EVIL));
    // It believes any outcome, as one that the target has signed.
    web.set("require_signature", "false").start_agent();
    let event = web.fire(&["a\u{202e}name", "--host", "evil.example.com"]).committed();
    let key = format!("{PREFIX}/outcomes/{event}/evil.example.com");
    let value = json!({ "v": 1, "body": { "state": "refused", "reason": FORGED } }).to_string();
    fleet.backend.put_as(&evil.ssl(), &key, &value).expect("a write");
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
