//! What Puppet writes: its report, its settings, its lock files.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::OnceLock;

use trigger_core::event::MAX_TARGETS;
use trigger_core::puppetdb;
use trigger_core::run::command::RunCommand;
use trigger_core::run::report::ReportSummary;
use trigger_core::run::report_errors::ReportErrors;
use trigger_node::puppet_settings::Attempt;
use trigger_node::{puppet_locks, puppet_settings};

use trigger_store::https::HttpsUrl;

use crate::scratch::Scratch;

/// `last_run_report.yaml`.
pub(crate) fn report(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = ReportSummary::parse(&text);
    let _ = ReportErrors::parse(&text);
}

/// `agent_disabled.lock` and `agent_catalog_run.lock`.
pub(crate) fn locks(data: &[u8]) {
    static SCRATCH: OnceLock<Scratch> = OnceLock::new();
    let lock = SCRATCH.get_or_init(Scratch::new).write(&format!("{}.lock", thread()), data);
    assert!(
        puppet_locks::disabled(&lock).is_some(),
        "a lock that is there disables Puppet, whatever it holds"
    );
    puppet_locks::run_in_progress(&lock).expect("a lock that can be read");
}

/// The output of `puppet config print`, as the cache keeps it.
pub(crate) fn settings(data: &[u8]) {
    static ASKED: OnceLock<(Scratch, RunCommand, Vec<u8>)> = OnceLock::new();
    let (scratch, command, asked) = ASKED.get_or_init(ask);
    let directory = scratch.path(&thread());
    fs::create_dir_all(&directory).expect("a directory");
    fs::write(directory.join("puppet-settings"), [asked, data].concat()).expect("a cache");
    if let Some(settings) = puppet_settings::cached(command, &directory) {
        assert!(!settings.run_lock.as_os_str().is_empty(), "an empty path is no path");
    }
}

/// Lets a Puppet that always gives the same answer be asked once, and returns the line by which the cache knows it.
fn ask() -> (Scratch, RunCommand, Vec<u8>) {
    let scratch = Scratch::new();
    let answer: String = ["agent_catalog_run_lockfile", "agent_disabled_lockfile", "lastrunreport", "config"]
        .map(|name| format!("{name} = /x/{name}\\n"))
        .concat();
    let script = format!(
        "#!/bin/sh\nprintf '{answer}certname = a.example.com\\nlogdest =\\ntags =\\nskip_tags =\\n'\n"
    );
    let puppet = scratch.write("puppet", script.as_bytes());
    fs::set_permissions(&puppet, fs::Permissions::from_mode(0o755)).expect("a program");
    let words = [&*puppet.to_string_lossy(), "agent", "--test"].map(str::to_owned).to_vec();
    let command = RunCommand::from_words(words).expect("a run command");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (directory, environment) = (scratch.path(""), BTreeMap::new());
    let asked = puppet_settings::ask(&command, &environment, &directory, Attempt::FIRST);
    runtime.block_on(asked).expect("the answer of Puppet");
    let cache = fs::read(scratch.path("puppet-settings")).expect("a cache");
    let line = cache.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    (scratch, command, cache[..line].to_vec())
}

/// An answer of PuppetDB, and the file of Puppet that names it.
pub(crate) fn puppetdb(data: &[u8]) {
    let asked = ["web01", "web02"].map(|name| name.parse().expect("a certname"));
    if let Ok(stored) = puppetdb::read_catalogs(&asked, data) {
        assert!(stored.keys().all(|certname| asked.contains(certname)), "{stored:?}");
    }
    if let Ok(certnames) = puppetdb::read_certnames(data) {
        assert!(certnames.len() <= MAX_TARGETS);
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = puppetdb::server_url(text).map(str::parse::<HttpsUrl>);
    }
}

fn thread() -> String {
    format!("{:?}", std::thread::current().id())
}
