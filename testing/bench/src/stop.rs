//! Ends the bench, by itself or by a signal, so that no process and no file of it stays behind.
//!
//! Its processes have groups, and some of them sessions, of their own, so that a Ctrl-C does not reach them. But this
//! process adopts every orphan, so that each process that was ever started descends from it and is found by its id.

use std::path::{Path, PathBuf};
use std::process::exit;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, getpid, kill_process, set_child_subreaper};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal as Arriving, SignalKind, signal};

use crate::gate::gate;
use crate::process::living_children;

/// The time that a killed process may take to end, unless it waits for a disk that does not answer.
const TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// The exit code that a shell reports for a command that SIGINT ended.
const INTERRUPTED: i32 = 130;
const TERMINATED: i32 = 143;

/// SIGINT and SIGTERM, which no longer end this process by themselves.
pub(crate) struct Signals {
    runtime: Runtime,
    interrupt: Arriving,
    terminate: Arriving,
}

impl Signals {
    pub(crate) fn listen() -> Result<Self> {
        set_child_subreaper(Some(getpid())).context("cannot adopt the processes of the bench")?;
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let entered = runtime.enter();
        let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
        drop(entered);
        let (interrupt, terminate) = (interrupt?, terminate?);
        Ok(Self { runtime, interrupt, terminate })
    }

    /// From now on a signal ends all processes, removes this directory and ends the bench.
    pub(crate) fn end_with(self, scratch: PathBuf) {
        thread::spawn(move || {
            let Self { runtime, mut interrupt, mut terminate } = self;
            let status = runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => INTERRUPTED,
                    _ = terminate.recv() => TERMINATED,
                }
            });
            let _kept = gate();
            end_all();
            remove(&scratch);
            exit(status);
        });
    }
}

/// Kills all processes that this one started, with their descendants, until none is left.
pub(crate) fn end_all() {
    let started = Instant::now();
    loop {
        let living = descendants();
        if living.is_empty() || started.elapsed() > TIMEOUT {
            return;
        }
        for pid in living.into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        thread::sleep(POLL_INTERVAL);
    }
}

pub(crate) fn remove(directory: &Path) {
    // The directory may already be gone, and then there is nothing to remove.
    let _ = std::fs::remove_dir_all(directory);
}

/// Returns the descendants, parents first: a dead loop starts no process in place of the one that it lost.
fn descendants() -> Vec<u32> {
    let mut found = living_children(std::process::id());
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(living_children(*pid));
        next += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::process::{Background, wait_for};

    #[test]
    fn an_orphan_in_another_process_group_is_ended_too() {
        set_child_subreaper(Some(getpid())).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "(setsid sleep 600 &); exec sleep 600"]);
        let _shell = Background::start(command).unwrap();
        let is_sleeping = |pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
        };
        let sleepers = || descendants().iter().filter(|pid| is_sleeping(pid)).count();
        wait_for("the start of two", TIMEOUT, || sleepers() == 2).unwrap();
        end_all();
        assert!(descendants().is_empty());
    }
}
