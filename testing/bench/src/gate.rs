//! Keeps the start of processes and the end of the bench apart.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The lock that is held while a process is started, and that the end of the bench takes first: no process is started
/// after that.
static GATE: Mutex<()> = Mutex::new(());

/// Takes the lock, for the time in which a process is started or all are ended. Never returns after a signal.
pub(crate) fn gate() -> MutexGuard<'static, ()> {
    GATE.lock().unwrap_or_else(PoisonError::into_inner)
}
