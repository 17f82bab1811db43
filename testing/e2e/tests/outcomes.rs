//! The outcome of a `puppet apply` against what programs print, what operators configure, and what monitoring reads.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use trigger_e2e::{BackendKind, Fleet, Node, eventually};

const NODE: &str = "a.example.com";
/// What Puppet prints when a signal ends it.
const IMITATIONS: &str =
    r"maintenance flag is set\nExiting\nNotice: Caught TERM; exiting\nError: Could not run: SIGTERM";

/// Makes `puppet apply` with these additional words, before and after the manifest, the run command.
fn applies(node: &mut Node, before: &str, manifest: &str, after: &str) {
    node.manifest(manifest);
    let own = |name: &str| node.path(name).display().to_string();
    let words = format!(
        "puppet apply --certname {NODE} --confdir {} --vardir {} --publicdir {} --codedir {} {before} {} {after}",
        own("confdir"),
        own("vardir"),
        own("publicdir"),
        own("codedir"),
        own("site.pp"),
    );
    node.set("run_cmd", &format!("'{}'", words.trim_end()));
}

fn fire(node: &Node, flags: &[&str]) -> String {
    node.fire(&[&["t", "--host", NODE], flags].concat()).committed()
}

fn reason(delivery: &Value) -> &str {
    delivery["reason"].as_str().unwrap_or_else(|| panic!("no reason: {delivery}"))
}

fn outcomes(node: &Node) -> Vec<String> {
    let files = fs::read_dir(node.path("state/runs")).expect("a directory of runs");
    let mut names: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    names.retain(|name| name.to_string_lossy().ends_with(".result.json"));
    names.sort_unstable();
    let outcome = |name: &PathBuf| {
        let text = fs::read_to_string(name).expect("a result");
        serde_json::from_str::<Value>(&text).expect("its JSON")["body"]["outcome"].as_str().map(str::to_owned)
    };
    names.iter().filter_map(outcome).collect()
}

/// Proves C9.
#[test]
fn printed_words_that_look_like_a_signal_end_no_event() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node(NODE);
    applies(&mut node, "", &format!("fail(\"{IMITATIONS}\")"), "");
    node.start_agent();
    let event = fire(&node, &[]);
    let retrying = node.wait_for(&event, NODE, "retrying");
    assert!(reason(&retrying).contains("maintenance flag is set"), "{retrying}");
    eventually("a second attempt", || {
        let outcomes = outcomes(&node);
        if outcomes.len() > 1 { Ok(()) } else { Err(format!("{outcomes:?}")) }
    });

    // The same from a command before the catalog, of which Puppet leaves a report.
    node.manifest("notify { 'x': }");
    let script = node.script("before", &format!("#!/bin/sh\nprintf '{IMITATIONS}\\n'\nexit 1\n"));
    fs::create_dir_all(node.path("confdir")).expect("Puppet's configuration directory");
    let conf = node.write("confdir/puppet.conf", &format!("[main]\nprerun_command = {}\n", script.display()));
    eventually("a reason from that command", || {
        let delivery = node.delivery(&event, NODE);
        match delivery["reason"].as_str() {
            Some(reason) if reason.contains("prerun_command") => Ok(()),
            _ => Err(delivery.to_string()),
        }
    });
    fs::remove_file(conf).expect("the configuration");
    let done = node.wait_for(&event, NODE, "done");
    assert_eq!(done["outcome"], "changed", "{done}");
    let (last, others) = outcomes(&node).split_last().map(|(l, o)| (l.clone(), o.to_vec())).expect("runs");
    assert!(last == "changed" && others.iter().all(|outcome| outcome == "not_run"), "{others:?}");
}

/// Proves C9.
#[test]
fn a_provider_whose_error_looks_like_a_signal_has_failed() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node(NODE);
    const TYPE: &str = "Puppet::Type.newtype(:kaput) { ensurable; newparam(:name, namevar: true) }";
    let provider = "Puppet::Type.type(:kaput).provide(:ruby) do
      def exists?; false; end
      def create; system('echo Exiting'); raise(LoadError, \"x: SIGTERM\\nExiting\\nError: Could not run: SIGTERM\"); end
    end";
    for dir in ["type", "provider/kaput"] {
        fs::create_dir_all(node.path("modules/kaput/lib/puppet").join(dir)).expect("a module");
    }
    node.write("modules/kaput/lib/puppet/type/kaput.rb", TYPE);
    node.write("modules/kaput/lib/puppet/provider/kaput/ruby.rb", provider);
    let modules = format!("--modulepath {}", node.path("modules").display());
    applies(&mut node, &modules, "kaput { 'x': ensure => present }", "");
    node.start_agent();
    let failed = node.wait_for(&fire(&node, &[]), NODE, "failed");
    assert_eq!(failed["outcome"], "failed", "{failed}");
    assert!(reason(&failed).contains("the catalog was not applied to its end"), "{failed}");
    assert_eq!(outcomes(&node), ["failed"]);
}

/// Proves C9.
#[test]
fn an_operators_options_take_no_report_away_and_puppets_own_place_has_it() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node(NODE);
    let elsewhere = node.path("elsewhere.yaml");
    let file = node.path("made-by-puppet");
    let manifest = format!("file {{ '{}': content => 'x' }}", file.display());
    applies(
        &mut node,
        "--no-noop --no-report",
        &manifest,
        &format!("--lastrunreport={} --color=ansi", elsewhere.display()),
    );
    node.start_agent();
    let noop = node.wait_for(&fire(&node, &["--noop"]), NODE, "done");
    assert_eq!(noop["noop"], true, "{noop}");
    assert!(!file.exists(), "a noop event changed something");
    let real = node.wait_for(&fire(&node, &[]), NODE, "done");
    assert_eq!((&real["outcome"], &real["noop"]), (&json!("changed"), &json!(false)), "{real}");
    let report = fs::read_to_string(&elsewhere).expect("the operator's report");
    assert!(report.contains("\nstatus: changed\n"), "{report}");
    assert!(node.path("publicdir/last_run_summary.yaml").exists());
}

#[test]
fn an_apply_leaves_its_report_where_puppet_keeps_it_also_when_it_fails() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node(NODE);
    applies(&mut node, "", "exec { '/bin/false': } exec { '/bin/false ': }", "");
    node.start_agent();
    let failed = node.wait_for(&fire(&node, &[]), NODE, "failed");
    let run = failed["run_id"].as_str().unwrap_or_default();
    let expected = format!(
        "resources failed: Exec[/bin/false]: change from 'notrun' to ['0'] failed: '/bin/false' returned 1 instead of one of [0] (and 1 more; see 'trigger log {run}')"
    );
    assert_eq!(reason(&failed), expected);
    let report = node.path("vardir/state/last_run_report.yaml");
    assert!(fs::read_to_string(&report).expect("a report").contains("\nstatus: failed\n"));
    // Sections other than that of `puppet agent` decide where the report of an apply is.
    fs::create_dir_all(node.path("confdir")).expect("Puppet's configuration directory");
    let moved = node.path("moved.yaml");
    node.write("confdir/puppet.conf", &format!("[user]\nlastrunreport = {}\n", moved.display()));
    node.manifest("notify { 'x': }");
    eventually("a report in the new place", || {
        node.wait_for(&fire(&node, &[]), NODE, "done");
        let text = fs::read_to_string(&moved).map_err(|error| error.to_string())?;
        if text.contains("\nstatus: changed\n") { Ok(()) } else { Err(text) }
    });
}
