//! Events that ask for another environment than the node's own.

use super::*;

/// A manifest that writes a text into a file of the node.
fn writes(node: &Node, text: &str) -> String {
    format!("file {{ '{}': content => '{text}' }}", node.path("made-by-puppet").display())
}

/// The text that Puppet has written there last, if any.
fn written(node: &Node) -> Option<String> {
    fs::read_to_string(node.path("made-by-puppet")).ok()
}

/// Proves C5 and C13.
#[test]
fn an_event_runs_in_the_environment_that_it_asks_for_and_holds_up_no_other() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("environments.example.test");
    PuppetServer::shared().manifest("environments_feature", &writes(&node, "feature"));
    let own = writes(&node, "own");
    node.runs_puppet_agent(&own, "");
    node.set("accept", "[{ environment = 'environments_*' }]").start_agent();

    // The server does not have it: Puppet does not run, and what asks for nothing does not wait for that.
    let missing = fire(&node, &["--environment", "environments_missing"]);
    let retrying = wait_for(&node, &missing, "retrying");
    assert_reason(&retrying, "Environment 'environments_missing' not found on server");
    let own = wait_for(&node, &fire(&node, &[]), "done");
    assert_eq!(own["outcome"], "changed");
    assert_eq!(written(&node).as_deref(), Some("own"));

    let noop = wait_for(&node, &fire(&node, &["--environment", "environments_feature", "--noop"]), "done");
    assert_eq!((&noop["noop"], &noop["noop_pending"]), (&json!(true), &json!(true)), "{noop}");
    assert_eq!(written(&node).as_deref(), Some("own"));

    let event = fire(&node, &["--environment", "environments_feature"]);
    let feature = wait_for(&node, &event, "done");
    assert_eq!(feature["outcome"], "changed");
    assert_eq!(written(&node).as_deref(), Some("feature"));
    assert_eq!(node.status(&event).expect("a status")["environment"], "environments_feature");
    let run = feature["run_id"].as_str().expect("a run");
    let why = node.trigger(&["why", node.certname(), "--run", run]).stdout;
    assert!(why.contains(", in the environment environments_feature"), "{why}");

    // The environment is that of one run.
    let own = wait_for(&node, &fire(&node, &[]), "done");
    assert_eq!(own["outcome"], "changed");
    assert_eq!(written(&node).as_deref(), Some("own"));

    PuppetServer::shared().manifest("environments_missing", &writes(&node, "late"));
    wait_for(&node, &missing, "done");
    assert_eq!(written(&node).as_deref(), Some("late"));
}

/// Proves C5 and C9.
#[test]
fn a_classifier_that_insists_on_another_environment_keeps_the_run_from_happening() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("classified.example.test");
    PuppetServer::shared().manifest("environments_denied", &writes(&node, "denied"));
    let own = writes(&node, "own");
    node.runs_puppet_agent(&own, "--no-strict_environment_mode");
    node.set("accept", "[{ environment = '*' }]").start_agent();
    let denied = fire(&node, &["--environment", "environments_denied"]);
    let retrying = wait_for(&node, &denied, "retrying");
    assert_reason(&retrying, "its environment 'classified_example_test' does not match");
    assert_eq!(written(&node), None, "no catalog was applied");
    wait_for(&node, &fire(&node, &[]), "done");
    assert_eq!(written(&node).as_deref(), Some("own"));
}
