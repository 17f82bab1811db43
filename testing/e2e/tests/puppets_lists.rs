//! Revocation lists as a real Puppet server hands them out: a hub that is told to fetch them (`crl_url`) needs no other
//! way to learn of a revocation (C13).

#![allow(clippy::expect_used, reason = "a test fails where its scenery cannot be built")]

use std::fs;
use std::path::Path;
use std::process::Command;

use trigger_e2e::{Node, Process, PuppetServer, eventually, free_port, program};

const PATH: &str = "/puppet-ca/v1/certificate_revocation_list/ca";

/// A node of the Puppet server's CA: Puppet itself has fetched its certificate, and the lists as they were then.
fn node(certname: &str, directory: &Path, backend: &str) -> Node {
    fs::create_dir_all(directory).expect("a node's directory");
    let mut node = Node::new(certname, directory, backend);
    node.puppet_conf(PuppetServer::shared().port(), "");
    let ssl = node.bootstrap_certificate();
    node.has_certificate(&ssl).set("require_signature", "true");
    node
}

/// Revokes a certificate at the Puppet server, as `puppetserver ca revoke` does.
fn revoke(certname: &str) {
    let server = PuppetServer::shared();
    let ssl = server.ssl();
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--request", "PUT"]);
    command.args(["--header", "Content-Type: application/json", "--data", r#"{"desired_state":"revoked"}"#]);
    command.arg("--cert").arg(ssl.certificate()).arg("--key").arg(ssl.key()).arg("--cacert").arg(ssl.ca());
    let url = format!("https://localhost:{}/puppet-ca/v1/certificate_status/{certname}", server.port());
    let output = command.arg(url).output().expect("curl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn start_hub(directory: &Path, port: u16) -> Process {
    let server = PuppetServer::shared();
    let hub = server.ssl();
    // The list that Puppet left on this machine. Nothing renews it.
    let list = directory.join("crl.pem");
    if !list.exists() {
        fs::copy(hub.crl(), &list).expect("the server's list");
    }
    let config = directory.join("trigger.toml");
    let text = format!(
        "[tls]\ncertificate = '{}'\nkey = '{}'\nca = '{}'\ncrl = '{}'\n\
         [hub]\ncrl_url = 'https://localhost:{}{PATH}'\ncrl_refresh = '10s'\n",
        hub.certificate().display(),
        hub.key().display(),
        hub.ca().display(),
        list.display(),
        server.port()
    );
    fs::write(&config, text).expect("the hub's configuration");
    let mut command = Command::new(program());
    command.args(["hub", "--tls", "--listen", &format!("127.0.0.1:{port}"), "--config"]).arg(config);
    command.arg("--data-dir").arg(directory.join("data"));
    Process::start(&mut command, &directory.join("log"), "trigger")
}

/// Proves C13.
#[test]
fn a_node_that_is_revoked_at_the_puppet_server_is_cut_off_by_a_hub_that_fetches_its_lists() {
    let scratch = tempfile::tempdir().expect("a directory");
    let directory = |name: &str| scratch.path().join(name);
    let port = free_port();
    let url = format!("hub+https://localhost:{port}");
    let mut web = node("lists-web.example.test", &directory("web"), &url);
    let mut gone = node("lists-gone.example.test", &directory("gone"), &url);
    fs::create_dir_all(directory("hub")).expect("the hub's directory");
    let mut hub = start_hub(&directory("hub"), port);
    web.start_agent();
    gone.start_agent();
    let event = web.fire(&["refresh", "--host", gone.certname()]).committed();
    web.wait_for(&event, gone.certname(), "done");

    revoke(gone.certname());
    gone.wait_for_log("it is revoked");
    let log = || fs::read_to_string(directory("hub").join("log")).unwrap_or_default();
    eventually("a hub that names the revoked node in its log", || {
        let log = log();
        if log.contains(gone.certname()) && log.contains("revoked") { Ok(()) } else { Err(log) }
    });
    let answer = gone.trigger(&["status"]);
    assert!(answer.code != 0 && answer.stderr.contains("it is revoked"), "{answer:?}");

    // The list in the hub's own file is still the old one. After a restart, what was fetched counts from the first moment:
    // the Puppet server may be off.
    assert!(!fs::read_to_string(directory("hub").join("data/crl.pem")).expect("fetched lists").is_empty());
    hub.kill();
    let mut hub = start_hub(&directory("hub"), port);
    web.wait_until_connected();
    let answer = gone.trigger(&["status"]);
    assert!(answer.code != 0 && answer.stderr.contains("it is revoked"), "{answer:?}");
    let event = web.fire(&["refresh", "--host", web.certname()]).committed();
    web.wait_for(&event, web.certname(), "done");
    hub.kill();
}
