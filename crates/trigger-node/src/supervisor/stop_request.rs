//! The request to stop, which a supervisor receives as SIGTERM once its run has been started.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for the request from its creation on and remembers it, because one signal counts for all that follows.
pub(super) struct StopRequest {
    signals: Signal,
    was_made: bool,
}

impl StopRequest {
    /// Begins to listen.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self { signals: signal(SignalKind::terminate())?, was_made: false })
    }

    /// Returns when the request is made, at once if it was made before. Safe to cancel.
    pub(super) async fn made(&mut self) {
        if !self.was_made {
            self.signals.recv().await;
            self.was_made = true;
        }
    }

    /// Whether [`Self::made`] has returned before.
    pub(super) fn was_made(&self) -> bool {
        self.was_made
    }
}
