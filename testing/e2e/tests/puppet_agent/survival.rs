//! Runs of real Puppet whose agents, supervisors and machines may end at any moment.

use super::*;
use trigger_e2e::parent_of;

/// Returns a resource that ends this node's agent, once, and starts another one, as an upgrade of its package does on a
/// machine without a service manager.
fn restarts_the_agent(node: &mut Node) -> String {
    let (here, agent) = (node.path(""), node.agent().pid());
    let command = format!(
        "cd {}; touch restarted; kill {agent}; (while kill -0 {agent}; do sleep 0.05; done; exec setsid trigger --config trigger.toml agent) >>agent.log 2>&1 </dev/null &",
        here.display()
    );
    let mark = node.path("restarted");
    format!(
        "exec {{ 'restart': command => '{command}', provider => shell, creates => '{}' }}",
        mark.display()
    )
}

/// Checks that the next agent adopts the run and its cause, and reports its outcome once.
fn check_the_run_is_reported_once(mut node: Node) {
    node.hold();
    let event = fire(&node, &[]);
    wait_until_started(&node);
    assert_eq!(node.agent().wait(), 0, "the agent that started the run has ended in good order");
    node.wait_until_connected();
    let running = wait_for(&node, &event, "running");
    assert_eq!(node.queue()["running"]["run_id"], running["run_id"]);
    let meanwhile = fire(&node, &[]);
    node.release();
    let done = wait_for(&node, &event, "done");
    assert_eq!((&done["outcome"], &done["run_id"]), (&json!("changed"), &running["run_id"]), "{done}");
    let next = wait_for(&node, &meanwhile, "done");
    assert_ne!(next["run_id"], done["run_id"], "a run in progress covers nothing that came later");
    assert_eq!(outcomes(&node), ["changed", "changed"]);
    let log = node.agent_log();
    assert_eq!(
        log.matches(&format!("state=done run={} outcome=changed", done["run_id"].as_str().expect("a run")))
            .count(),
        1,
        "{log}"
    );
    assert_eq!(log.matches("adopted a run of an earlier agent").count(), 1, "{log}");
}

/// Proves C10.
#[test]
fn a_run_that_restarts_its_agent_is_adopted_and_reported_once() {
    let (_fleet, mut node) = alone("restarts.example.test", "");
    let manifest = format!("{} -> {}", restarts_the_agent(&mut node), slow(&node));
    node.served(&manifest);
    check_the_run_is_reported_once(node);
}

#[test]
fn an_apply_that_restarts_its_agent_is_adopted_and_reported_once() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("apply-restarts.example.test");
    node.runs_puppet("").start_agent();
    let manifest = format!("{} -> {}", restarts_the_agent(&mut node), slow(&node));
    node.manifest(&manifest);
    check_the_run_is_reported_once(node);
}

/// The process that is killed in the middle of a run. For Puppet alone see
/// [`super::a_run_that_is_stopped_or_killed_is_repeated_once`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Agent,
    Supervisor,
    /// All of them at once, as when a machine goes down.
    Everybody,
}

/// Proves C10.
#[test]
fn a_run_with_a_killed_process_is_repeated_at_most_once() {
    let (_fleet, mut node) = alone("killed.example.test", "");
    node.served(&slow(&node));
    for victim in [Victim::Agent, Victim::Supervisor, Victim::Everybody] {
        let before = outcomes(&node).len();
        node.hold();
        let event = fire(&node, &[]);
        wait_until_started(&node);
        let run = lock_holder(&node);
        let supervisor = parent_of(run).expect("the run's supervisor");
        if victim != Victim::Agent {
            kill(supervisor);
        }
        if victim == Victim::Everybody {
            kill(run);
        }
        if victim != Victim::Supervisor {
            node.kill_agent();
            node.start_agent();
        }
        if victim != Victim::Everybody {
            let running = wait_for(&node, &event, "running");
            never_for(Duration::from_secs(2), "another run beside the first", || {
                let now = node.queue()["running"]["run_id"].clone();
                (now != running["run_id"] || lock_holder(&node) != run).then(|| now.to_string())
            });
            assert!(is_alive(run), "{victim:?}: Puppet goes on to its end");
        }
        node.release();
        let done = wait_for(&node, &event, "done");
        assert_eq!(done["outcome"], "changed", "{done}");
        let expected: &[&str] =
            if victim == Victim::Agent { &["changed"] } else { &["interrupted", "changed"] };
        assert_eq!(outcomes(&node)[before..], *expected, "{victim:?}: {:?}", results(&node));
        fs::remove_file(node.path("started")).expect("a mark of the run");
    }
}
