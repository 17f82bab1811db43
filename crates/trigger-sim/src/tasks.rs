//! Processes and the tasks that they consist of.

use std::future::Future;
use std::pin::Pin;

/// A simulated process: an agent, a supervisor, Puppet, or a `trigger fire`. Faults kill whole processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessId(pub(crate) u32);

pub(crate) type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A task that was spawned while another one ran.
pub(crate) struct NewTask {
    pub(crate) process: ProcessId,
    pub(crate) future: BoxFuture,
}
