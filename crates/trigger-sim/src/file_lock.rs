//! Locks on files.

use crate::tasks::ProcessId;

/// A lock on a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lock {
    pub(crate) holder: ProcessId,
    pub(crate) handle: u64,
    pub(crate) is_shared: bool,
}
