//! The first process of a container. The kernel makes it the parent of every process whose own parent has ended, such as
//! what a Puppet run leaves behind, and only it can reap them. A daemon that waits for children of its own cannot reap
//! all others beside them, so where a daemon is the first process, it runs as a child of this one.

use std::process::ExitCode;

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};

use super::reexec::this_program;
use super::runtime::block_on;
use crate::failure::Failure;

/// The signals that are passed on to the daemon.
const PASSED_ON: [(SignalKind, Signal); 6] = [
    (SignalKind::terminate(), Signal::TERM),
    (SignalKind::interrupt(), Signal::INT),
    (SignalKind::hangup(), Signal::HUP),
    (SignalKind::quit(), Signal::QUIT),
    (SignalKind::user_defined1(), Signal::USR1),
    (SignalKind::user_defined2(), Signal::USR2),
];

/// Returns `None` if this is not the first process. Otherwise this starts the same daemon as a child, passes signals on
/// to it, reaps every process that ends, and returns the daemon's exit code.
pub(super) fn run_daemon_as_child() -> Result<Option<ExitCode>, Failure> {
    if getpid() != Pid::INIT {
        return Ok(None);
    }
    block_on(watch_over()).map(Some)
}

async fn watch_over() -> Result<ExitCode, Failure> {
    let failed =
        |error: std::io::Error| Failure::failed(format!("cannot start as the first process: {error}"));
    let mut ended = signal(SignalKind::child()).map_err(failed)?;
    let mut passed_on = Vec::new();
    for (kind, meaning) in PASSED_ON {
        passed_on.push((signal(kind).map_err(failed)?, meaning));
    }
    let child = this_program().args(std::env::args_os().skip(1)).spawn().map_err(failed)?;
    let daemon = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(daemon) = daemon else { return Err(Failure::failed("the daemon has no process id".to_owned())) };
    for (mut received, meaning) in passed_on {
        tokio::spawn(async move {
            while received.recv().await.is_some() {
                let _ = kill_process(daemon, meaning);
            }
        });
    }
    loop {
        while let Ok(Some((process, status))) = wait(WaitOptions::NOHANG) {
            if process == daemon && (status.exited() || status.signaled()) {
                let code =
                    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
                return Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)));
            }
        }
        ended.recv().await;
    }
}
