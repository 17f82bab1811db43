//! Ends a trial on SIGINT or SIGTERM: twenty agents, a backend and paused processes must not outlive it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use trigger_e2e::end_all_of;

/// The interval between two searches for processes that a lane has started meanwhile.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Listens for SIGINT and SIGTERM as long as this program runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Alarm {
    directory: Arc<Mutex<Option<PathBuf>>>,
}

impl Alarm {
    /// Starts to listen.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let alarm = Self::default();
        let directory = Arc::clone(&alarm.directory);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot listen for signals")?;
        let (mut interrupt, mut terminate) = {
            let _inside = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        std::thread::spawn(move || {
            let code = runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => 130,
                    _ = terminate.recv() => 143,
                }
            });
            if let Some(directory) = directory.lock().unwrap_or_else(PoisonError::into_inner).as_deref() {
                clear(directory);
            }
            std::process::exit(code);
        });
        Ok(alarm)
    }

    /// Guards a directory: from now on a signal ends every process of it and removes it.
    pub(crate) fn guard(&self, directory: &Path) {
        *self.directory.lock().unwrap_or_else(PoisonError::into_inner) = Some(directory.to_owned());
    }

    /// Ends the guard: the directory belongs to the caller again.
    pub(crate) fn release(&self) {
        *self.directory.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[expect(clippy::print_stdout, reason = "a command for people")]
fn clear(directory: &Path) {
    // From here on the panics of the lanes and of the load are a consequence of the signal.
    std::panic::set_hook(Box::new(|_| ()));
    println!("interrupted: everything of {} ends", directory.display());
    end_all(directory);
    if let Err(error) = std::fs::remove_dir_all(directory) {
        println!("{} is left: {error}", directory.display());
    }
    // Once the directory is gone, nothing more can be started; this call ends what was started before.
    end_all(directory);
}

fn end_all(directory: &Path) {
    while end_all_of(directory) > 0 {
        sleep(POLL_INTERVAL);
    }
}
