//! A circuit breaker: after one fire has waited for a backend that does not answer, the next fires spool at once.
//!
//! The state is a file, because each fire without an agent is a process of its own.

use std::path::PathBuf;
use std::time::Duration;

use super::StateDir;
use super::durable::write;
use crate::host::Host;
use crate::os::Os;

/// How long the breaker stays open after a fire that timed out.
const OPEN_FOR: Duration = Duration::from_secs(30);

/// Remembers, for one state directory, that its backend did not answer.
#[derive(Debug, Clone)]
pub struct Breaker<H: Host = Os> {
    host: H,
    path: PathBuf,
}

impl<H: Host> Breaker<H> {
    /// The breaker of a state directory.
    pub fn new(state: &StateDir<H>) -> Self {
        Self { host: state.host().clone(), path: state.file("backend-unreachable") }
    }

    /// Returns whether `backend` did not answer less than 30 s ago. An unreadable file counts as no, so that the
    /// backend is tried.
    pub fn is_open(&self, backend: &str) -> bool {
        let same = self.is_about(backend);
        same && self.host.age(&self.path).is_some_and(|age| age < OPEN_FOR)
    }

    /// Opens the breaker, because `backend` did not answer. Best effort: without the file the next fire waits too.
    pub fn trip(&self, backend: &str) {
        if let Err(error) = write(&self.host, &self.path, backend.as_bytes()) {
            tracing::debug!(%error, "cannot note that the backend is unreachable");
        }
    }

    /// Closes the breaker, because `backend` answered.
    pub fn reset(&self, backend: &str) {
        if self.is_about(backend) {
            let _ = self.host.remove_file(&self.path);
        }
    }

    fn is_about(&self, backend: &str) -> bool {
        self.host.read(&self.path).is_ok_and(|text| text == backend.as_bytes())
    }
}
