//! The runtime of the commands and of the agent.

use crate::failure::Failure;

/// The most threads for blocking calls (waits for a run's end, syncs of the outbox, name resolution, the metrics file). An
/// agent that receives a burst of events must not keep the memory of hundreds of threads; but the wait for a run, a file
/// system that does not answer and lookups of a dead nameserver, several of which may hang for half a minute each, must
/// leave some for the outbox.
const MAX_BLOCKING_THREADS: usize = 16;

/// Runs a command on one thread.
pub(super) fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let result = runtime.block_on(command);
    // A blocking thread may still wait for a run's end. The run goes on without this process.
    runtime.shutdown_background();
    result
}
