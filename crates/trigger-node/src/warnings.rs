//! What a command has to say besides its answer.

use std::sync::{Arc, Mutex, PoisonError};

/// Gathered on the way, told once: with the answer, or with the failure. What the code below a command logs
/// belongs here too (`logging::gather`), for a command has no log.
#[derive(Debug, Clone, Default)]
pub struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    pub fn push(&self, warning: impl Into<String>) {
        self.extend([warning.into()]);
    }

    pub fn extend(&self, warnings: impl IntoIterator<Item = String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(warnings);
    }

    /// All so far, which whoever asks tells.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
