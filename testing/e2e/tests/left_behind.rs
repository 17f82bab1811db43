//! What runs leave behind: daemons that go on writing to the output, and orphans in a container.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::fs;
use std::process::Command;
use std::time::Duration;

use trigger_e2e::{BackendKind, Fleet, Node, Process, eventually, is_alive, kill, never_for, parent_of};

const NODE: &str = "a.example.com";
/// The bound of an output, with some room for what is written between two looks.
const BOUND: u64 = 5 * 1024 * 1024;
/// The time between two looks at an output after its run, and some more.
const A_FEW_LOOKS: Duration = Duration::from_secs(12);

/// A run that leaves a daemon which writes 40 MB to the run's output once the file `go` exists, and goes on.
const LEAVES_A_DAEMON: &str = "#!/bin/sh
cd \"$(dirname \"$0\")\"
setsid sh -c 'echo $$ >daemon; while [ ! -e go ]; do sleep 0.05; done
  head -c 40000000 /dev/zero; echo written >written; exec sleep 600' &
echo $PPID >supervisor
";

fn number_in(node: &Node, file: &str) -> u32 {
    eventually(&format!("a number in {file}"), || {
        let text = fs::read_to_string(node.path(file)).map_err(|error| error.to_string())?;
        text.trim().parse().map_err(|_| text)
    })
}

fn output_length(node: &Node, run: &str) -> u64 {
    fs::metadata(node.path(&format!("state/runs/{run}.log"))).expect("a run's output").len()
}

/// Lets the daemon write, and waits until the output is bounded again and stays so.
fn check_bounded(node: &Node, run: &str) {
    node.write("go", "");
    eventually("a daemon that has written", || {
        if node.path("written").exists() { Ok(()) } else { Err("it writes".to_owned()) }
    });
    eventually("a bounded output", || {
        let length = output_length(node, run);
        if length <= BOUND { Ok(()) } else { Err(format!("{length} bytes")) }
    });
    let text = fs::read(node.path(&format!("state/runs/{run}.log"))).expect("a run's output");
    assert!(text.starts_with(b"[about "), "the newest output is kept");
}

fn run_that_leaves_a_daemon() -> (Fleet, Node, String) {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node(NODE);
    node.script("run.sh", LEAVES_A_DAEMON);
    node.start_agent();
    let event = node.fire(&["t", "--host", NODE]).committed();
    let done = node.wait_for(&event, NODE, "done");
    let run = done["run_id"].as_str().expect("a run").to_owned();
    (fleet, node, run)
}

#[test]
fn a_daemon_that_a_run_left_behind_fills_no_disk_also_without_an_agent() {
    let (_fleet, mut node, run) = run_that_leaves_a_daemon();
    node.kill_agent();
    check_bounded(&node, &run);
    let supervisor = number_in(&node, "supervisor");
    assert!(is_alive(supervisor), "it goes on as long as the daemon");
    kill(number_in(&node, "daemon"));
    eventually("the end of the supervisor", || {
        if is_alive(supervisor) { Err("it lives".to_owned()) } else { Ok(()) }
    });
}

#[test]
fn an_agent_bounds_the_output_of_a_run_whose_supervisor_was_killed() {
    let (_fleet, node, run) = run_that_leaves_a_daemon();
    kill(number_in(&node, "supervisor"));
    check_bounded(&node, &run);
    never_for(A_FEW_LOOKS, "an output that is too long", || {
        let length = output_length(&node, &run);
        (length > BOUND).then(|| format!("{length} bytes"))
    });
    // The next run is not affected.
    node.script("run.sh", "#!/bin/sh\n");
    let event = node.fire(&["t", "--host", NODE]).committed();
    node.wait_for(&event, NODE, "done");
    kill(number_in(&node, "daemon"));
}

/// Returns the children of a process, each with its state.
fn children_of(parent: u32) -> Vec<(u32, char)> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let children = ids.filter(|process| parent_of(*process) == Some(parent));
    let state = |process: u32| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        Some((process, rest.trim_start().chars().next()?))
    };
    children.filter_map(state).collect()
}

/// Makes a command the first process of a container, with a process table of its own.
fn in_container(command: &Command) -> Command {
    let mut contained = Command::new("unshare");
    contained.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    contained.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => contained.env(name, value),
            None => contained.env_remove(name),
        };
    }
    contained
}

#[test]
fn an_agent_that_is_the_first_process_of_a_container_reaps_orphans() {
    const LEAVES_ORPHANS: &str = "#!/bin/sh
cd \"$(dirname \"$0\")\"
for orphan in 1 2 3; do setsid sh -c 'sleep 0.3; echo ended >>ended' >/dev/null 2>&1 & done
";
    let fleet = Fleet::on(BackendKind::Hub);
    let node = fleet.node(NODE);
    node.script("run.sh", LEAVES_ORPHANS);
    let mut agent =
        Process::start(&mut in_container(&node.command(&["agent"])), &node.path("agent.log"), "util-linux");
    for runs in 1..=4 {
        let event = node.fire(&["t", "--host", NODE]).committed();
        node.wait_for(&event, NODE, "done");
        eventually("orphans that have ended", || {
            let ended = fs::read_to_string(node.path("ended")).unwrap_or_default();
            if ended.lines().count() == runs * 3 { Ok(()) } else { Err(ended) }
        });
    }
    let (first, _) = children_of(agent.pid())[0];
    eventually("no process that waits to be reaped", || {
        let zombies: Vec<_> = children_of(first).into_iter().filter(|(_, state)| *state == 'Z').collect();
        if zombies.is_empty() { Ok(()) } else { Err(format!("{zombies:?}")) }
    });
    assert_eq!(children_of(first).len(), 1, "the agent: {:?}", children_of(first));

    // Signals and the exit code go through.
    let (daemon, _) = children_of(first)[0];
    trigger_e2e::signal_to_end(first);
    assert_eq!(agent.wait(), 0);
    assert!(!is_alive(daemon));
}
