//! Reaps the children of the program that ran in this process before a reload. They are supervisors, whose runs are
//! adopted by their locks, and no other code would reap them. A zombie counts as alive, for Puppet's own lock too.

use std::fs;

use rustix::process::{Pid, WaitOptions, getpid, waitpid};
use tokio::signal::unix::{SignalKind, signal};

use crate::process_table;

/// Returns the children of this process. It is called before this program starts any child of its own, because those
/// are awaited elsewhere. Not every kernel lists children; then they are found in the process table.
pub(super) fn children() -> Vec<Pid> {
    let own = getpid();
    match fs::read_to_string(format!("/proc/self/task/{}/children", own.as_raw_nonzero())) {
        Ok(listed) => listed.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect(),
        Err(_) => process_table::children_of(own),
    }
}

/// Reaps these children as they end. Never returns, so that its end is an error of the agent.
pub(super) async fn reap(children: Vec<Pid>) {
    reap_all(children).await;
    std::future::pending().await
}

async fn reap_all(mut children: Vec<Pid>) {
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
