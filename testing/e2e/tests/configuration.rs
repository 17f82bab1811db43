//! Configurations that come late, name Puppet in another way, or put the program in another place.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::fs;
use std::process::{Command, Stdio};

use serde_json::json;
use trigger_e2e::{BackendKind, Fleet, Process, eventually, on_each_backend, program};

on_each_backend!(what_is_fired_before_the_node_is_configured_reaches_the_backend_that_it_gets);

/// Proves C1. The first Puppet run of a node fires before it has written the configuration.
fn what_is_fired_before_the_node_is_configured_reaches_the_backend_that_it_gets(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let lb = fleet.running("lb01");
    let mut web = fleet.node("web01");
    // In a network of its own, because a hub of another user may listen on the default port.
    let fire = |name: &str, more: &[&str]| {
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--"])
            .arg(program())
            .args(["fire", name, "--host", "lb01", "--output", "json"]);
        command.args(more).arg("--state-dir").arg(web.path("state")).args(["--certname", "web01"]);
        command.args(["--config", "/dev/null"]).env_remove("TRIGGER_BACKEND").stdin(Stdio::null());
        let output = command.output().expect("unshare");
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a document");
        assert_eq!(answer["state"], "spooled", "{answer}");
        assert!(answer["warnings"].to_string().contains("on this node, and the default did not"), "{answer}");
        answer["event_id"].as_str().expect("an event").to_owned()
    };
    let first = fire("first", &[]);
    // What a provider names is kept for the backend of this kind.
    let name = if kind.is_hub() { "hub" } else { "etcd" };
    let second = (name == "hub").then(|| fire("second", &["--backend", name]));
    web.start_agent();
    for event in [Some(first), second].into_iter().flatten() {
        lb.wait_for(&event, "lb01", "done");
    }
    assert_eq!(web.queue()["spooled"], json!([]));
}

/// Proves C1. The configuration named another backend when the event was fired.
#[test]
fn an_event_for_another_backend_is_logged_and_delivered_once_it_has_another_address() {
    let fleet = Fleet::on(BackendKind::Hub);
    let lb = fleet.running("lb01");
    let mut web = fleet.node("web01");
    let event = web.fire(&["t", "--host", "lb01", "--backend", "etcd://127.0.0.1:9"]);
    let event = event.json["event_id"].as_str().expect("an event").to_owned();
    web.start_agent();
    web.wait_for_log("a spooled event is for a backend that is not this node's");
    assert_eq!(web.queue()["spooled"][0]["is_elsewhere"], true);
    // Where the agent has the event in its hands at this moment, the command says so.
    let answer = eventually("the event has another address", || {
        let answer = web.trigger(&["outbox", "readdress", &event, "--output", "json"]);
        if answer.code == 0 { Ok(answer) } else { Err(format!("{answer:?}")) }
    });
    assert_eq!(answer.json["events"], json!([event]), "{answer:?}");
    // The agent looks at its outbox within half a minute, and at once when another event was spooled or it starts.
    web.kill_agent();
    web.start_agent();
    lb.wait_for(&event, "lb01", "done");
    let answer = web.trigger(&["outbox", "list"]);
    assert_eq!((answer.code, answer.stdout.trim()), (0, "The outbox is empty."), "{answer:?}");
}

/// Proves C9.
#[test]
fn a_puppet_behind_wrappers_is_judged_by_its_report_and_honours_noop() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("a");
    let file = node.path("changed");
    node.runs_puppet(&format!("file {{ '{}': content => 'x' }}", file.display()));
    let config = fs::read_to_string(node.config()).expect("a configuration");
    let run_cmd = config.lines().find_map(|line| line.strip_prefix("run_cmd = '")).expect("a run command");
    let wrapped = format!("'LC_ALL=C.UTF-8 nice -n 5 timeout -k 5 300 setsid {run_cmd}");
    node.set("run_cmd", &wrapped).start_agent();
    assert!(!node.agent_log().contains("the run command"), "{}", node.agent_log());
    let end = |arguments: &[&str]| {
        let event = node.fire(&[&["t", "--host", "a"], arguments].concat()).committed();
        node.wait_for(&event, "a", "done")
    };
    let noop = end(&["--noop"]);
    assert!(noop["noop"] == true && !file.exists(), "{noop}");
    assert_eq!(end(&[])["outcome"], "changed");
    assert_eq!(end(&[])["outcome"], "unchanged");
}

#[test]
fn a_run_command_that_cannot_be_recognised_is_reported_and_a_relative_path_is_refused() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("a");
    node.set("run_cmd", "'puppet agent; true'").start_agent();
    let log = node.agent_log();
    assert!(log.contains("'agent;', which means something to a shell only"), "{log}");
    assert!(log.contains("is neither 'puppet agent' nor 'puppet apply'"), "{log}");
    node.kill_agent();
    node.set("run_cmd", "'puppet apply site.pp'").launch_agent();
    assert_eq!(node.agent().wait(), 3);
    let log = node.agent_log();
    assert!(log.contains("'site.pp' is a relative path, and runs start in the directory /"), "{log}");
}

#[test]
fn a_script_without_its_interpreter_says_which_one() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("a");
    let script = node.script("converge", "#!/opt/nowhere/ruby -w\n");
    node.set("run_cmd", &format!("'{}'", script.display())).start_agent();
    let event = node.fire(&["t", "--host", "a"]).committed();
    let retrying = node.wait_for(&event, "a", "retrying");
    let reason = retrying["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("names the interpreter '/opt/nowhere/ruby', which does not exist"), "{reason}");
}

/// The program lies in a directory that no PATH has.
#[test]
fn a_run_finds_the_program_of_its_agent() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("a");
    let directory = node.path("elsewhere");
    fs::create_dir(&directory).expect("a directory");
    fs::copy(program(), directory.join("trigger")).expect("a copy of the program");
    let found = node.path("found");
    let script = node.script("converge", &format!("#!/bin/sh\ncommand -v trigger >{}\n", found.display()));
    node.set("run_cmd", &format!("'{}'", script.display()));
    let mut command = Command::new(directory.join("trigger"));
    command.arg("--config").arg(node.config()).arg("agent").env("PATH", "/usr/sbin:/sbin");
    let _agent = Process::start(&mut command, &node.path("agent.log"), "trigger");
    node.wait_until_connected();
    let event = node.fire(&["t", "--host", "a"]).committed();
    node.wait_for(&event, "a", "done");
    let expected = directory.join("trigger").display().to_string();
    eventually("the path of the program", || {
        let text = fs::read_to_string(&found).unwrap_or_default();
        if text.trim() == expected { Ok(()) } else { Err(text) }
    });
}
