//! The time limit of a run. The time in which the run waits for a Puppet run that another process started does not
//! count. Otherwise a slow run elsewhere would fail this run, and its deliveries would end as failed.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, Interval, interval};
use trigger_core::run::command::{CommandKind, RunCommand, lock_timeout};
use trigger_core::run::explanation::LockHolder;

use crate::process_tree;
use crate::puppet_locks::{holder_of, run_in_progress};
use crate::puppet_settings::PuppetSettings;

/// How often the lock is read.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct TimeLimit {
    deadline: Instant,
    /// By how much the deadline may still be extended. It is bounded, because the lock may mislead: a wrapper such as
    /// systemd-run can start Puppet outside this run's processes.
    allowance: Duration,
    looked_at: Instant,
    looks: Interval,
    /// Puppet's lock and the pid of this run, if the command has a lock.
    lock: Option<(PathBuf, u32)>,
    /// The other process that had the lock when it was read last.
    other: Option<LockHolder>,
}

impl TimeLimit {
    /// Returns the limit of a run that starts now as the process `run`.
    pub(super) fn new(
        timeout: Duration,
        command: &RunCommand,
        run: Option<u32>,
        puppet: Option<&PuppetSettings>,
    ) -> Self {
        let lock = puppet.filter(|_| command.kind() == CommandKind::PuppetAgent);
        Self {
            deadline: Instant::now() + timeout,
            allowance: lock_timeout(timeout),
            looked_at: Instant::now(),
            looks: interval(POLL_INTERVAL),
            lock: lock.map(|settings| settings.run_lock.clone()).zip(run),
            other: None,
        }
    }

    /// Returns when the time is up. Safe to cancel.
    pub(super) async fn is_over(&mut self) {
        loop {
            tokio::select! {
                biased;
                _ = self.looks.tick(), if self.lock.is_some() => self.look(),
                () = tokio::time::sleep_until(self.deadline) => return,
            }
        }
    }

    /// Returns the other process that has the lock now, or had it a second ago, just before the run ended.
    pub(super) fn lock_holder(&mut self) -> Option<LockHolder> {
        let before = self.other.take();
        self.look();
        self.other.clone().or(before)
    }

    fn look(&mut self) {
        let passed = self.looked_at.elapsed();
        self.looked_at = Instant::now();
        let Some((lock, run)) = &self.lock else { return };
        let holder = run_in_progress(lock).ok().flatten();
        let other = holder.filter(|holder| !process_tree::descends_from(*holder, *run));
        self.other = other.map(|process| holder_of(lock, process));
        if self.other.is_some() {
            let later = passed.min(self.allowance);
            self.deadline += later;
            self.allowance -= later;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::puppet_locks::samples::Lookalike;
    use std::fs;

    /// Returns how many seconds a run with a limit of one minute gets. The run is the process `run`, and the lock holds
    /// this text from the run's start on.
    async fn seconds(run: u32, lock: &str) -> u64 {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        fs::write(&path, lock).unwrap();
        let start = Instant::now();
        let mut limit = TimeLimit {
            deadline: start + Duration::from_secs(60),
            allowance: lock_timeout(Duration::from_secs(60)),
            looked_at: start,
            looks: interval(POLL_INTERVAL),
            lock: Some((path, run)),
            other: None,
        };
        limit.is_over().await;
        start.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_that_another_holds_delays_the_end_within_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let puppet = Lookalike::start(dir.path());
        let (process, no_process) = (puppet.process(), i32::MAX);
        // A run that has ended long ago: no process descends from it.
        let other = u32::MAX;
        assert_eq!(seconds(other, &process.to_string()).await, 60 + 30, "another's run is in progress");
        assert_eq!(seconds(process, &process.to_string()).await, 60, "our own is");
        let wrapper = std::process::id();
        assert_eq!(seconds(wrapper, &process.to_string()).await, 60, "our own behind a wrapper is");
        assert_eq!(seconds(1, &no_process.to_string()).await, 60, "a run that was killed has left its lock");
        assert_eq!(seconds(1, "no process id").await, 60);
    }
}
