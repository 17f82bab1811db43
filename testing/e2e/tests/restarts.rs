//! Runs outlive their agents: termination, reload, dead supervisors.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::time::Duration;

use trigger_e2e::{BackendKind, Fleet, Node, eventually, is_alive, kill, never_for, on_each_backend, then};

on_each_backend!(
    a_terminated_agent_leaves_its_run_to_the_next,
    a_run_that_ended_without_an_agent_is_reported_once,
    a_dead_supervisor_costs_one_repetition,
    two_dead_supervisors_end_the_delivery,
    a_node_that_went_down_in_the_middle_of_a_run_repeats_it_once,
);

/// Returns the outcome of a run, from its own file.
fn result(node: &Node, run_id: &str) -> String {
    let text = std::fs::read_to_string(node.path(&format!("state/runs/{run_id}.result.json")));
    let json: serde_json::Value = serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default();
    json["body"]["outcome"].as_str().unwrap_or_default().to_owned()
}

/// Proves C10.
fn a_terminated_agent_leaves_its_run_to_the_next(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let mut node = fleet.running("a");
    node.hold();
    let event = node.fire(&["t", "--host", "a"]).committed();
    let run = node.wait_for_runs(1).remove(0);
    node.wait_for(&event, "a", "running");
    node.agent().terminate();
    assert_eq!(node.agent().wait(), 0);
    assert!(is_alive(run.pid) && is_alive(run.supervisor), "the run goes on");
    node.wait_for_log("the agent stops and its run goes on");
    let name = std::fs::read_to_string(format!("/proc/{}/comm", run.supervisor));
    assert_eq!(name.expect("a supervisor"), "trigger\n", "as systemd names what remains");
    let meanwhile = node.fire(&["meanwhile", "--host", "a"]).committed();

    node.start_agent();
    let running = node.wait_for(&event, "a", "running");
    assert_eq!(running["run_id"], run.run_id.as_str());
    assert_eq!(node.runs().len(), 1, "the next agent waits for the run it found");
    node.release();
    let done = node.wait_for(&event, "a", "done");
    assert_eq!(done["run_id"], run.run_id.as_str());
    let next = node.wait_for(&meanwhile, "a", "done");
    assert_ne!(next["run_id"], run.run_id.as_str());
    assert_eq!(node.runs().len(), 2, "{:?}", node.runs());
}

/// Proves C4.
fn a_run_that_ended_without_an_agent_is_reported_once(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let mut node = fleet.running("a");
    node.hold();
    let event = node.fire(&["t", "--host", "a"]).committed();
    let run = node.wait_for_runs(1).remove(0);
    node.kill_agent();
    node.release();
    eventually("the end of the supervisor", || {
        if is_alive(run.supervisor) { Err("it lives".to_owned()) } else { Ok(()) }
    });
    assert_eq!(result(&node, &run.run_id), "changed");
    assert_ne!(node.delivery(&event, "a")["state"], "done", "the backend does not have it yet");
    node.start_agent();
    assert_eq!(node.wait_for(&event, "a", "done")["run_id"], run.run_id.as_str());
    // Another restart finds nothing left to do.
    node.kill_agent();
    node.start_agent();
    let last = node.fire(&["last", "--host", "a"]).committed();
    node.wait_for(&last, "a", "done");
    assert_eq!(node.runs().len(), 2, "{:?}", node.runs());
}

/// Proves C10.
fn a_dead_supervisor_costs_one_repetition(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let node = fleet.running("a");
    node.hold();
    let event = node.fire(&["t", "--host", "a"]).committed();
    let run = node.wait_for_runs(1).remove(0);
    kill(run.pid);
    kill(run.supervisor);
    let runs = node.wait_for_runs(2);
    node.release();
    let done = node.wait_for(&event, "a", "done");
    assert_eq!(done["run_id"], runs[1].run_id.as_str());
    assert_eq!(result(&node, &run.run_id), "interrupted");
    assert_eq!(node.runs().len(), 2, "{:?}", node.runs());
}

fn two_dead_supervisors_end_the_delivery(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let mut node = fleet.running("a");
    node.hold();
    let event = node.fire(&["t", "--host", "a"]).committed();
    let first = node.wait_for_runs(1).remove(0);
    // A different agent sees the second supervisor die.
    node.kill_agent();
    kill(first.supervisor);
    kill(first.pid);
    node.start_agent();
    let second = node.wait_for_runs(2).remove(1);
    kill(second.supervisor);
    kill(second.pid);
    let end = node.wait_for(&event, "a", "failed");
    assert_eq!(end["outcome"], "interrupted");
    assert_eq!(node.runs().len(), 2, "one repetition, not two: {:?}", node.runs());
}

/// Kills all processes of a node at once, as a power cut does: the locks go with them, the files stay.
fn a_node_that_went_down_in_the_middle_of_a_run_repeats_it_once(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let origin = fleet.running("origin");
    let mut node = fleet.running("a");
    node.hold();
    let event = origin.fire(&["t", "--host", "a"]).committed();
    let run = node.wait_for_runs(1).remove(0);
    let while_running = origin.fire(&["while it ran", "--host", "a"]).committed();
    for pid in [run.supervisor, node.agent().pid(), run.pid] {
        kill(pid);
    }
    node.kill_agent();
    let while_down = origin.fire(&["while it was down", "--host", "a"]).committed();

    node.release();
    node.start_agent();
    let done = origin.wait_for(&event, "a", "done");
    assert_ne!(done["run_id"], run.run_id.as_str());
    for event in [while_running, while_down] {
        origin.wait_for(&event, "a", "done");
    }
    assert_eq!(result(&node, &run.run_id), "interrupted");
    let runs = node.runs();
    assert!((2..=3).contains(&runs.len()), "one repetition, and one run for what came late: {runs:?}");
    assert!(runs[1..].iter().all(|run| run.has_ended), "{runs:?}");

    // A run that has ended is over: another crash repeats nothing.
    node.kill_agent();
    node.start_agent();
    let last = origin.fire(&["last", "--host", "a"]).committed();
    origin.wait_for(&last, "a", "done");
    assert_eq!(node.runs().len(), runs.len() + 1, "{:?}", node.runs());
}

/// Proves C10.
#[test]
fn a_hung_run_without_a_supervisor_is_ended_before_the_next_one_starts() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("a");
    node.set("run_timeout", "'4s'").start_agent();
    node.hold();
    let event = node.fire(&["t", "--host", "a"]).committed();
    let run = node.wait_for_runs(1).remove(0);
    // Another agent sees the run to its end, with another timeout for its own runs.
    node.kill_agent();
    kill(run.supervisor);
    node.set("run_timeout", "'1h'").start_agent();
    never_for(Duration::from_secs(2), "a run beside the first", || {
        (!is_alive(run.pid) || node.runs().len() > 1).then(|| format!("{:?}", node.runs()))
    });
    let runs = node.wait_for_runs(2);
    assert!(!is_alive(run.pid), "the first run is still alive: {runs:?}");
    assert!(!runs[0].has_ended);
    node.release();
    let done = node.wait_for(&event, "a", "done");
    assert_eq!(done["run_id"], runs[1].run_id.as_str());
    assert_eq!(result(&node, &run.run_id), "interrupted");
}

#[test]
fn an_agent_that_a_run_starts_has_its_own_configuration() {
    let fleet = Fleet::on(BackendKind::Hub);
    let node = fleet.running("a");
    let inner = fleet.node("b");
    let start = format!(
        "setsid trigger --config {} agent >>{} 2>&1 </dev/null &",
        inner.config().display(),
        inner.path("agent.log").display()
    );
    then(&node, &start);
    let event = node.fire(&["t", "--host", "a"]).committed();
    node.wait_for(&event, "a", "done");
    inner.wait_until_connected();
    assert!(inner.agent_log().contains("started inside a run"), "{}", inner.agent_log());
    let event = node.fire(&["t", "--host", "b"]).committed();
    node.wait_for(&event, "b", "done");
    assert_eq!(inner.wait_for_runs(1).len(), 1, "its own run command ran");
    assert_eq!(node.runs().len(), 1, "{:?}", node.runs());
}

/// Proves C11.
#[test]
fn a_second_agent_in_a_state_directory_refuses() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.running("a");
    let second = node.trigger(&["agent"]);
    assert_eq!(second.code, 1, "{second:?}");
    assert!(second.stderr.contains("another agent already runs in"), "{second:?}");
    // Another certname must not use the directory either, even when it is free.
    node.kill_agent();
    let other = node.trigger(&["agent", "--certname", "b"]);
    assert_eq!(other.code, 3, "{other:?}");
    assert!(other.stderr.contains("belongs to a, not to b"), "{other:?}");
}

#[test]
fn a_hang_up_reloads_the_configuration_also_in_the_middle_of_a_run() {
    let fleet = Fleet::on(BackendKind::Hub);
    let origin = fleet.running("origin");
    let mut node = fleet.running("a");
    node.hold();
    let before = origin.fire(&["before", "--host", "a"]).committed();
    let run = node.wait_for_runs(1).remove(0);

    let other = node.script("other.sh", "#!/bin/sh\ntouch \"$(dirname \"$0\")/other-ran\"\n");
    node.set("run_cmd", &format!("'{}'", other.display())).set("groups", "['new']");
    let pid = node.agent().pid();
    node.agent().hang_up();
    eventually("a reload", || {
        let log = node.agent_log();
        if log.matches("is ready").count() == 2 { Ok(()) } else { Err(log) }
    });
    assert_eq!(node.agent().pid(), pid);
    assert!(node.agent().exit().is_none(), "it lives");
    node.release();
    origin.wait_for(&before, "a", "done");
    let supervisor = format!("/proc/{}", run.supervisor);
    eventually("a supervisor that is reaped", || {
        if std::path::Path::new(&supervisor).exists() { Err(supervisor.clone()) } else { Ok(()) }
    });
    node.wait_until_connected();
    let after = origin.fire(&["after", "--group", "new"]).committed();
    origin.wait_for(&after, "a", "done");
    assert!(node.path("other-ran").exists());
    assert_eq!(node.runs().len(), 1, "the old command ran once: {:?}", node.runs());
}

#[test]
fn a_broken_configuration_does_not_stop_a_running_agent() {
    let fleet = Fleet::on(BackendKind::Hub);
    let origin = fleet.running("origin");
    let mut node = fleet.running("a");
    let good = std::fs::read_to_string(node.config()).expect("its configuration");
    let another = good.replace("certname = 'a'", "certname = 'another'");
    let only_takes = format!("backend = 'dummy:'\n{}", good.split_once('\n').map_or("", |(_, rest)| rest));
    let misspelt = format!("{good}run_comand = 'x'\n");
    let broken = [
        (misspelt, "did you mean 'run_cmd'"),
        ("[[[".to_owned(), "line 1"),
        (another, "belongs to a"),
        (only_takes, "only takes events"),
    ];
    for (index, (text, complaint)) in broken.iter().enumerate() {
        node.write("trigger.toml", text);
        node.agent().hang_up();
        eventually("a complaint about the configuration", || {
            let log = node.agent_log();
            let exit = node.agent().exit();
            assert!(exit.is_none(), "the agent ended with {exit:?} on\n{text}\n{log}");
            let logged = log.matches("the configuration is not reloaded").count() == index + 1;
            if logged && log.contains(complaint) { Ok(()) } else { Err(log) }
        });
    }
    let event = origin.fire(&["t", "--host", "a"]).committed();
    origin.wait_for(&event, "a", "done");
}
