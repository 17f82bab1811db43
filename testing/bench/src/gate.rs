//! What keeps the start of a process and the end of the bench apart.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held while a process is started, and from its beginning by the end of the bench: nothing is started after that.
static GATE: Mutex<()> = Mutex::new(());

/// To be held while a process is started or while all are ended. Never returns once a signal came.
pub(crate) fn gate() -> MutexGuard<'static, ()> {
    GATE.lock().unwrap_or_else(PoisonError::into_inner)
}
