//! Which users of a node may ask its agent for what. Users and groups are those that every Debian has: `daemon` (1) and
//! `nobody` (65534).

#![allow(clippy::expect_used, reason = "helpers that tests call")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use trigger_e2e::{BackendKind, Fleet, Node, eventually, program};

/// A command as another user, with the default configuration only.
fn as_user(node: &Node, user: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user_group(user), "--init-groups", "--"]).arg(program());
    command.args(arguments).args(["--output", "json", "--state-dir"]).arg(node.path("state"));
    command.arg("--config").arg(node.config()).current_dir("/").output().expect("setpriv")
}

fn user_group(user: &str) -> &'static str {
    if user == "daemon" { "daemon" } else { "nogroup" }
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

/// A node whose configuration and program other users can read, and whose agent serves these groups.
fn node(fleet: &Fleet, groups: &str) -> Node {
    let mut node = fleet.node("lb01");
    for directory in node.path("").ancestors().chain(program().ancestors().skip(1)) {
        let mode = fs::metadata(directory).map(|metadata| metadata.permissions().mode()).unwrap_or(0o755);
        if directory.parent().is_some() && mode & 0o005 != 0o005 {
            fs::set_permissions(directory, fs::Permissions::from_mode(mode | 0o055)).expect("a mode");
        }
    }
    node.set("socket", &format!("{{ groups = {groups} }}")).start_agent();
    assert_eq!(fs::metadata(node.path("state")).expect("a state directory").mode() & 0o777, 0o700);
    node
}

/// Proves C13.
#[test]
fn a_member_of_a_group_fires_as_the_node_and_others_are_refused() {
    let fleet = Fleet::on(BackendKind::Hub);
    let node = node(&fleet, "['daemon', 'no such group']");
    let fired = as_user(&node, "daemon", &["fire", "t", "--host", "lb01"]);
    let document = json(&fired);
    assert!(fired.status.success(), "{document}");
    assert_eq!((&document["state"], &document["warnings"]), (&"committed".into(), &serde_json::json!([])));
    let event = document["event_id"].as_str().unwrap().to_owned();
    node.wait_for(&event, "lb01", "done");
    assert_eq!(
        node.status(&event).unwrap()["origin"],
        "lb01",
        "the agent's certname, which no user can change"
    );

    let queue = as_user(&node, "daemon", &["queue"]);
    assert_eq!(json(&queue)["agent_running"], true, "{queue:?}");

    for (arguments, sentence) in [
        (
            &["fire", "t", "--host", "lb01", "--prefix", "/other"][..],
            "only root may fire under another key prefix",
        ),
        (
            &["fire", "t", "--host", "lb01", "--backend", "hub+http://127.0.0.1:9"],
            "only root may fire at a backend that",
        ),
    ] {
        let answer = as_user(&node, "daemon", arguments);
        assert_eq!(answer.status.code(), Some(1), "{answer:?}");
        assert!(json(&answer)["error"].to_string().contains(sentence), "{answer:?}");
    }
    for arguments in [&["fire", "t", "--host", "lb01"][..], &["queue"]] {
        let answer = as_user(&node, "nobody", arguments);
        assert_eq!(answer.status.code(), Some(1), "{answer:?}");
        let error = json(&answer)["error"].to_string();
        assert!(error.contains("serves root and the members of daemon, no such group only"), "{error}");
    }
    assert_eq!(node.runs().len(), 1);
    assert_audited(&node, &event);
}

/// The audit says who fired and who was refused, soon after the answer.
fn assert_audited(node: &Node, event: &str) {
    eventually("all that was audited", || {
        let log = node.agent_log();
        let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let has = |wanted: &[(&str, Value)]| {
            lines.iter().any(|line| wanted.iter().all(|(key, value)| line[*key] == *value))
        };
        let is_whole = has(&[("action", "fire".into()), ("event", event.into()), ("uid", 1.into())])
            && has(&[("action", "fire".into()), ("decision", "refused".into()), ("uid", 1.into())])
            && has(&[("action", "connect".into()), ("decision", "refused".into()), ("uid", 65534.into())]);
        if is_whole { Ok(()) } else { Err(log) }
    });
}

#[test]
fn without_groups_nobody_but_root_reaches_the_agent() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = node(&fleet, "['daemon']");
    let queue = |node: &Node| as_user(node, "daemon", &["queue"]).status.code();
    assert_eq!(queue(&node), Some(0));
    node.set("socket", "{ groups = [] }");
    node.agent().hang_up();
    eventually("an agent that shares nothing", || match queue(&node) {
        Some(0) => Err(String::new()),
        _ => Ok(()),
    });
    // The first refusal may be of the moment in which the agent makes place for its successor.
    node.wait_until_connected();
    assert_ne!(queue(&node), Some(0));
}

#[test]
fn the_shared_directory_is_roots_alone() {
    let fleet = Fleet::on(BackendKind::Hub);
    let _node = node(&fleet, "['daemon']");
    let metadata = fs::metadata(Path::new("/run/trigger")).unwrap();
    assert_eq!((metadata.uid(), metadata.mode() & 0o777), (0, 0o755));
}
