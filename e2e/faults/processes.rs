//! Finds the processes of a node's runs, to kill them.

use std::fs;
use std::path::Path;

use crate::journal::{self, RunLine};

/// A run in progress.
pub(crate) struct LiveRun {
    /// Which.
    pub(crate) run: String,
    /// The run command's process.
    pub(crate) pid: u32,
    /// Its parent.
    pub(crate) supervisor: u32,
}

/// A process that belongs to a node.
pub(crate) struct Found {
    /// Its id.
    pub(crate) pid: u32,
    /// The run that it is part of, if it is.
    pub(crate) run: Option<String>,
}

/// The run that is in progress on a node, supervisor and all.
pub(crate) fn live_run(home: &Path) -> Option<LiveRun> {
    let lines: Vec<RunLine> = journal::read(&home.join("runs.log")).ok()?;
    let RunLine::Start(start) = lines.into_iter().next_back()? else { return None };
    // Pids are used again: only those that still name the run are its own.
    let is_its = |pid| run_of(pid).as_deref() == Some(start.run.as_str());
    let is_whole = is_its(start.pid) && is_its(start.supervisor);
    is_whole.then_some(LiveRun { run: start.run, pid: start.pid, supervisor: start.supervisor })
}

/// Everything that names the node's folder on its command line or in its environment.
pub(crate) fn all_of(home: &Path) -> Vec<Found> {
    let folder = format!("{}/", home.display());
    let folder_itself = home.display().to_string();
    let belongs = |pid: u32| {
        words(pid, "cmdline").iter().any(|word| word.contains(&folder) || *word == folder_itself)
            || words(pid, "environ").iter().any(|word| word.contains(&folder))
    };
    let processes = fs::read_dir("/proc").into_iter().flatten();
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let alive = pids.filter(|pid| trigger_e2e::is_alive(*pid) && belongs(*pid));
    alive.map(|pid| Found { pid, run: run_of(pid) }).collect()
}

/// The run that a process supervises or is part of.
fn run_of(pid: u32) -> Option<String> {
    let supervised = words(pid, "cmdline").into_iter().skip_while(|word| word != "supervise").nth(1);
    let supervised = supervised.and_then(|record| {
        let name = record.rsplit('/').next()?;
        Some(name.strip_suffix(".json")?.to_owned())
    });
    let told = || {
        let words = words(pid, "environ");
        words.into_iter().find_map(|word| word.strip_prefix("TRIGGER_RUN_ID=").map(str::to_owned))
    };
    supervised.or_else(told)
}

fn words(pid: u32, file: &str) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).split('\0').map(str::to_owned).collect()
}
