//! The warnings that a command reports besides its result.

use std::sync::{Arc, Mutex, PoisonError};

/// The warnings of a command, printed once: with its result or with its failure. A command has no log, so what the
/// code below it logs as a warning is collected here too (`logging::collect_warnings`).
#[derive(Debug, Clone, Default)]
pub(crate) struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    pub(crate) fn push(&self, warning: impl Into<String>) {
        self.extend([warning.into()]);
    }

    pub(crate) fn extend(&self, warnings: impl IntoIterator<Item = String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(warnings);
    }

    /// Removes and returns the warnings so far; the caller prints them.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
