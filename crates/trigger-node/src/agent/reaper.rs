//! Children of the program that ran in this process before a reload: supervisors whose runs are adopted by
//! their locks, and which nobody else would reap. A zombie counts as alive, to Puppet's own lock too.

use std::fs;

use rustix::process::{Pid, WaitOptions, getpid, waitpid};
use tokio::signal::unix::{SignalKind, signal};

/// The children there are before this program has started any of its own, which are not to be waited for
/// here. Empty where the kernel does not list them.
pub(super) fn children() -> Vec<Pid> {
    let own = getpid().as_raw_nonzero();
    let listed = fs::read_to_string(format!("/proc/self/task/{own}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

/// Reaps these children as they end; returns when none is left.
pub(super) async fn reap(mut children: Vec<Pid>) {
    let mut ended = match signal(SignalKind::child()) {
        Ok(ended) => ended,
        Err(error) => {
            tracing::warn!(%error, "cannot reap the supervisors from before the reload");
            return;
        }
    };
    loop {
        children.retain(|child| matches!(waitpid(Some(*child), WaitOptions::NOHANG), Ok(None)));
        if children.is_empty() || ended.recv().await.is_none() {
            return;
        }
    }
}
