//! Nodes whose configuration has the URL of the hub, and nothing else: Puppet says the rest (C13).

#![allow(clippy::expect_used, reason = "a test fails where its scenery cannot be built")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use trigger_e2e::{Node, Process, PuppetServer, free_port, program};

/// A Puppet run takes some seconds, or many on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(240);
/// Where Puppet itself looks for its settings.
const PUPPET_CONF: &str = "/etc/puppet/puppet.conf";

/// Starts a hub on the machine of the Puppet server, by whose certificate nodes know it.
fn start_hub(directory: &Path, port: u16) -> Process {
    fs::create_dir_all(directory).expect("the hub's directory");
    let config = directory.join("trigger.toml");
    let settings = format!("tls = {}\n[hub]\ntls = true\n", PuppetServer::shared().ssl().table());
    fs::write(&config, settings).expect("the hub's configuration");
    let mut command = Command::new(program());
    command.args(["hub", "--listen", &format!("127.0.0.1:{port}"), "--config"]).arg(config);
    command.arg("--data-dir").arg(directory.join("data"));
    Process::start(&mut command, &directory.join("log"), "trigger")
}

/// A node whose Puppet works as on any machine, with the settings in its own `puppet.conf`.
fn node(certname: &str, directory: &Path, backend: &str) -> Node {
    fs::create_dir_all(directory).expect("a node's directory");
    let mut node = Node::new(certname, directory, backend);
    node.has_only_a_backend();
    node.served("notify { 'something to do': }");
    node.puppet_conf(PuppetServer::shared().port(), "");
    node.bootstrap_certificate();
    let settings = fs::read_to_string(node.path("puppet/puppet.conf")).expect("Puppet's settings");
    node.replace_file(PUPPET_CONF, &settings);
    node
}

/// Proves C13.
#[test]
fn nodes_that_have_the_url_of_their_hub_and_nothing_else_fire_and_run_over_tls_with_signatures() {
    let scratch = tempfile::tempdir().expect("a directory");
    let directory = |name: &str| scratch.path().join(name);
    let port = free_port();
    let url = format!("hub+https://localhost:{port}");
    let _hub = start_hub(&directory("hub"), port);
    let mut web = node("defaults-web.example.test", &directory("web"), &url);
    let mut lb = node("defaults-lb.example.test", &directory("lb"), &url);
    for node in [&mut web, &mut lb] {
        let settings = fs::read_to_string(node.config()).expect("a configuration");
        assert_eq!(settings, format!("backend = '{url}'\n"));
        node.start_agent();
        assert_eq!(node.queue()["certname"], node.certname());
    }
    let fired = web.fire(&["refresh", "--host", lb.certname()]);
    assert_eq!(fired.warnings(), "", "{fired:?}");
    let event = fired.committed();
    let done = web.wait_within(TIMEOUT, &event, lb.certname(), "done");
    assert_eq!(done["outcome"], "changed", "by the real Puppet: {done}");
    // What is not signed, or could not be verified, would be reported.
    assert!(done["unverified"].is_null(), "{done}");
    assert_eq!(web.status(&event).expect("a status")["warnings"], json!([]));
    assert_eq!(lb.status(&event).expect("a status")["origin"], web.certname());
}
