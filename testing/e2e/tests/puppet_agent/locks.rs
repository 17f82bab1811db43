//! Puppet's own locks: runs of its daemon, and `--disable`, for both of Puppet's commands.

use super::*;
use trigger_e2e::Process;

/// Starts a Puppet daemon like a node's service, whose first run is in the middle of [`slow`].
fn daemon_in_a_run(node: &Node) -> Process {
    node.served(&slow(node));
    node.hold();
    let daemon = node.start_puppet_agent(&["--no-daemonize", "--runinterval", "1h", "--verbose"]);
    wait_until_started(node);
    daemon
}

/// Waits until the node's run reports that it waits for another one.
fn wait_until_it_waits(node: &Node, event: &str, says: &str) -> Value {
    let running = wait_for(node, event, "running");
    eventually_within(TIMEOUT, "a run that waits for another", || {
        let said = output(node, &running);
        if said.contains(says) { Ok(()) } else { Err(said) }
    });
    running
}

#[test]
fn a_run_of_puppets_daemon_is_waited_for_and_puppet_may_be_disabled_meanwhile() {
    let (_fleet, node) = alone("daemon.example.test", "");
    let mut daemon = daemon_in_a_run(&node);
    let event = fire(&node, &[]);
    let waits = wait_until_it_waits(&node, &event, "Another puppet instance is already running");
    assert_eq!(node.puppet_agent(&["--disable", "not now"]).code, 0);
    node.release();
    let held = wait_for(&node, &event, "held");
    assert_eq!(held["reason"], "Puppet is disabled on this node: not now");
    assert_eq!(outcomes(&node), ["not_run"], "Puppet looks again when it has its lock");
    assert!(output(&node, &waits).contains("administratively disabled"));
    assert!(daemon.exit().is_none(), "the daemon goes on");
    assert_eq!(node.puppet_agent(&["--enable"]).code, 0);
    let done = wait_for(&node, &event, "done");
    assert_eq!(done["outcome"], "changed", "{done}");
    assert_eq!(outcomes(&node), ["not_run", "changed"]);
}

/// Proves C9.
#[test]
fn an_apply_waits_for_a_run_of_puppet_agent_and_obeys_disable() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("beside.example.test");
    // This is the same Puppet as the agent's, whose environment must exist for an apply.
    node.runs_puppet_agent("", "");
    fs::create_dir_all(node.path("puppet/code/environments").join(node.environment()))
        .expect("an environment");
    node.manifest("notify { 'applied': }");
    let (confdir, manifest) = (node.path("puppet"), node.path("site.pp"));
    node.set("run_cmd", &format!("'puppet apply --confdir {} {}'", confdir.display(), manifest.display()));
    node.start_agent();
    let _daemon = daemon_in_a_run(&node);
    let event = fire(&node, &[]);
    let waits = wait_until_it_waits(&node, &event, "a run of puppet agent (process ");
    never_for(Duration::from_secs(2), "an apply beside an agent's run", || {
        let said = output(&node, &waits);
        said.contains("applied").then_some(said)
    });
    node.release();
    let done = wait_for(&node, &event, "done");
    assert_eq!((&done["outcome"], &done["run_id"]), (&json!("changed"), &waits["run_id"]), "{done}");

    assert_eq!(node.puppet_agent(&["--disable", "the disks"]).code, 0);
    let event = fire(&node, &[]);
    let held = wait_for(&node, &event, "held");
    assert_eq!(held["reason"], "Puppet is disabled on this node: the disks");
    assert_eq!(node.puppet_agent(&["--enable"]).code, 0);
    wait_for(&node, &event, "done");
    assert_eq!(outcomes(&node), ["changed", "changed"], "held is not tried");
}
