//! Finds the processes of a node's runs, and kills them in such a way that the effect of the kill is certain.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use trigger_e2e::{go_on, is_alive, is_stopped, kill, stop};

use crate::journal::{self, Hit, RunLine, append, now};

/// The time that a process may take to stop: it may be waiting for the disk.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Allows one kill at a time. The kernel sends SIGHUP to a stopped run when its supervisor is killed, and that death
/// would not be recorded.
static KILLING: Mutex<()> = Mutex::new(());

/// The role of a process in the run that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// It is the run.
    Run,
    /// It owns the run.
    Supervisor,
    /// Another process that the run started, such as a `trigger fire`.
    Other,
}

/// A process that belongs to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its process id.
    pub(crate) pid: u32,
    /// The run that it is part of, if any.
    pub(crate) run: Option<(String, Part)>,
}

/// Returns a process of the run in progress on a node: the run itself or its supervisor.
pub(crate) fn of_live_run(home: &Path, wanted: Part) -> Option<Found> {
    let lines: Vec<RunLine> = journal::read(&home.join("runs.log")).ok()?;
    let RunLine::Start(start) = lines.into_iter().next_back()? else { return None };
    let pid = if wanted == Part::Run { start.pid } else { start.supervisor };
    // Process ids are reused: only a process that still names the run belongs to it.
    let run = part_of(pid).filter(|(run, part)| *run == start.run && *part == wanted);
    run.map(|run| Found { pid, run: Some(run) })
}

/// Returns every process that names the node's directory on its command line or in its environment. A process that a
/// run started comes after the run, which could otherwise detect its end.
pub(crate) fn all_of(home: &Path) -> Vec<Found> {
    let directory = format!("{}/", home.display());
    let directory_itself = home.display().to_string();
    let belongs = |pid: u32| {
        words(pid, "cmdline").iter().any(|word| word.contains(&directory) || *word == directory_itself)
            || words(pid, "environ").iter().any(|word| word.contains(&directory))
    };
    let processes = fs::read_dir("/proc").into_iter().flatten();
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let alive = pids.filter(|pid| is_alive(*pid) && belongs(*pid));
    let mut found: Vec<Found> = alive.map(|pid| Found { pid, run: part_of(pid) }).collect();
    found.sort_by_key(|found| found.run.as_ref().map(|(_, part)| *part));
    found
}

/// Sends SIGKILL, and logs it as a hit if it is certain to have ended a run: the process is stopped first, so it
/// cannot end by itself meanwhile, and the run's result has not been written yet. Returns whether it was a hit.
pub(crate) fn hit(home: &Path, found: &Found) -> bool {
    let _alone = KILLING.lock().unwrap_or_else(PoisonError::into_inner);
    // It may have become another program meanwhile, or its id may belong to another process.
    let is_its = |part: &Option<(String, Part)>| found.run.is_none() || part.is_some();
    if !is_its(&part_of(found.pid)) || !stand_still(found.pid) {
        return false;
    }
    let part = part_of(found.pid);
    if !is_its(&part) {
        go_on(found.pid);
        return false;
    }
    let hit = part.and_then(|(run, part)| {
        let has_result = home.join(format!("state/runs/{run}.result.json")).exists();
        let process = match part {
            Part::Run => true,
            Part::Supervisor if !has_result => false,
            _ => return None,
        };
        Some(Hit { run, at: now(), process })
    });
    if let Some(hit) = &hit {
        append(&home.join("hits.log"), hit).expect("a hit to be noted");
    }
    kill(found.pid);
    hit.is_some()
}

fn stand_still(pid: u32) -> bool {
    let began = Instant::now();
    stop(pid);
    while !is_stopped(pid) {
        if !is_alive(pid) || began.elapsed() > STOP_TIMEOUT {
            go_on(pid);
            return false;
        }
        sleep(POLL_INTERVAL);
    }
    true
}

/// Returns the run that a process supervises or is part of.
fn part_of(pid: u32) -> Option<(String, Part)> {
    let command = words(pid, "cmdline");
    let supervised = command.iter().skip_while(|word| *word != "supervise").nth(1);
    let supervised = supervised.and_then(|record| {
        let name = record.rsplit('/').next()?;
        Some((name.strip_suffix(".json")?.to_owned(), Part::Supervisor))
    });
    let by_agent = || {
        let words = words(pid, "environ");
        let run =
            words.into_iter().find_map(|word| word.strip_prefix("TRIGGER_RUN_ID=").map(str::to_owned))?;
        let is_run = command.get(1).is_some_and(|word| word == "run");
        Some((run, if is_run { Part::Run } else { Part::Other }))
    };
    supervised.or_else(by_agent)
}

fn words(pid: u32, file: &str) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).split('\0').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn sleeper(run: &str) -> Child {
        Command::new("sleep").arg("60").env("TRIGGER_RUN_ID", run).spawn().unwrap()
    }

    #[test]
    fn what_a_run_started_is_no_hit_on_the_run() {
        let home = tempfile::tempdir().unwrap();
        let mut child = sleeper("r1");
        // The environment is the new one only after the process has executed the new program.
        let found = loop {
            if let Some(run) = part_of(child.id()).filter(|(run, _)| run == "r1") {
                break Found { pid: child.id(), run: Some(run) };
            }
        };
        assert_eq!(found.run, Some(("r1".to_owned(), Part::Other)));
        assert!(!hit(home.path(), &found));
        assert_eq!(child.wait().unwrap().code(), None, "it was killed all the same");
        assert!(!home.path().join("hits.log").exists());
    }

    #[test]
    fn a_process_that_has_ended_is_not_hit() {
        let home = tempfile::tempdir().unwrap();
        let mut child = sleeper("r1");
        child.kill().unwrap();
        child.wait().unwrap();
        let found = Found { pid: child.id(), run: Some(("r1".to_owned(), Part::Run)) };
        assert!(!hit(home.path(), &found));
    }
}
