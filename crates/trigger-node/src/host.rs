//! The interface between a node and the machine it is on. The agent, firing and the state directory are written over
//! [`Host`]: the program runs them on [`Os`](crate::os::Os), the simulation on machines of its own, with a crash at
//! any file operation.
//!
//! File operations are synchronous, as they are on Linux. A simulated process that dies at one of them performs no
//! later one, and is gone at its next await.

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trigger_core::publication::Publication;
use trigger_core::time::{Now, Timestamp};
use trigger_store::backend::Backend;
use trigger_store::credentials::Credentials;
use trigger_store::url::BackendUrl;
use uuid::Uuid;

use crate::agent_socket::NoReply;
use crate::file_error::FileError;
use crate::fire_error::{BackendError, FireError};
use crate::fire_report::FireReport;

/// A machine as seen by one of its processes.
pub trait Host: Clone + Debug + Send + Sync + 'static {
    /// An open file; closing it gives up its lock.
    type File: HostFile;
    /// A task that was started; dropping it ends the task.
    type Task: Send + 'static;

    /// The size of a preallocated run record in bytes, enough for some twenty events.
    const PREALLOCATED_BYTES: usize = 16 * 1024;

    /// The wall clock.
    fn wall(&self) -> Timestamp;

    /// The time since some moment of this process's life, by a clock that only goes forward. It includes the time in
    /// which the machine is suspended, because other machines go on meanwhile.
    fn elapsed(&self) -> Duration;

    /// Both clocks.
    fn now(&self) -> Now {
        Now { wall: self.wall(), elapsed: self.elapsed() }
    }

    /// Returns after `wait`.
    fn sleep(&self, wait: Duration) -> impl Future<Output = ()> + Send + use<Self>;

    /// A random number from 0.0 up to 1.0, to spread what many nodes do. Not for secrets.
    fn jitter(&self) -> f64;

    /// A new UUIDv7 by the wall clock.
    fn new_ordered_uuid(&self) -> Uuid;

    /// A new unique name for this process, which sets it apart from every other process that claims its certname.
    fn new_instance(&self) -> String;

    /// Starts a task.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Self::Task;

    /// Runs blocking file work on a thread where it does not delay other tasks.
    fn spawn_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + Send;

    // --- files; errors are those of the operating system

    /// Creates a directory and its missing parents, which only their owner may enter. An existing one stays as it is.
    fn create_private_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes from all users but its owner what they may do with an existing directory. Returns whether that changed
    /// anything. One that all users share stays as it is.
    fn restrict_dir(&self, path: &Path) -> io::Result<bool>;

    /// Returns the absolute path without symbolic links.
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf>;

    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Self::File>;

    /// Reads a whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Replaces a file's content, or makes the file. Not synced.
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()>;

    /// Moves a file, over another one if need be. Not synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Not synced.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Makes what was renamed, made and removed in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Lists the paths in a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;

    /// Returns whether the path is a file that exists, and not a directory.
    fn is_file(&self, path: &Path) -> bool;

    /// Returns how long ago a file was changed, if that is known.
    fn age(&self, path: &Path) -> Option<Duration>;

    /// Returns a name for a lock file that is unique to this file on this boot of the kernel. A process that holds a
    /// lock knows that every earlier holder of the same name is dead. A copy of the file has another name, whether the
    /// directory or the whole machine was copied, and so has the file itself after a restart of the machine.
    fn lock_name(&self, lock: &Self::File) -> Option<String>;

    /// Returns when no other process holds the lock of a file. Fails if the file does not exist.
    fn wait_until_unlocked(
        &self,
        path: &Path,
    ) -> impl Future<Output = Result<(), FileError>> + Send + use<Self>;

    // --- processes

    /// Returns the id of this process.
    fn pid(&self) -> u32;

    /// Returns the machine's host name, for messages.
    fn name(&self) -> String;

    /// Starts the supervisor of a run and hands the locked record over to it: at no moment is the record of a
    /// starting run unlocked. The end of the supervisor releases the lock.
    fn start_supervisor(&self, record: &Path, lock: Self::File) -> io::Result<()>;

    /// Ends what is left of a run whose supervisor is dead: its first process, which the supervisor noted. A supervisor
    /// that was killed before it could leaves none or an empty one; then it is the oldest process that writes to the
    /// run's output.
    fn end_orphan(&self, note: Option<&str>, output: &Path) -> impl Future<Output = ()> + Send;

    /// Opens the backend behind a URL. No server is asked yet.
    fn open_backend(&self, url: &BackendUrl, credentials: &Credentials) -> Result<Backend, BackendError>;

    /// Hands an event to the agent of a state directory and returns the agent's report. `ignores_pause` is as for
    /// [`Publisher::fire`](crate::firing::Publisher::fire).
    ///
    /// # Errors
    /// [`NoReply`] if no agent is alive, it does not understand the request, or it does not answer within `timeout`.
    fn fire_by_agent(
        &self,
        state_dir: &Path,
        publication: &Publication,
        ignores_pause: bool,
        timeout: Duration,
    ) -> impl Future<Output = Result<Result<FireReport, FireError>, NoReply>> + Send;
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// For reading. The file must exist.
    Read,
    /// For writing and reading, created or emptied, with access for its owner only.
    New,
    /// For appending, created if it is missing, with access for its owner only.
    Append,
    /// Like `Append`, and for reading too.
    ReadAppend,
    /// For locking, created if it is missing, with access for its owner only: who may open a file may lock it.
    Lock,
}

/// An open file.
pub trait HostFile: Debug + Send + 'static {
    /// Waits for the exclusive lock.
    fn lock(&self) -> io::Result<()>;

    /// Takes the exclusive lock, unless another open file holds one.
    fn try_lock(&self) -> io::Result<bool>;

    /// Takes a shared lock, unless another open file holds the exclusive one.
    fn try_lock_shared(&self) -> io::Result<bool>;

    /// Reads the rest of the file.
    fn read_to_end(&mut self) -> io::Result<Vec<u8>>;

    /// Writes all of the content. If that fails, a part of it may have been written.
    fn write_all(&mut self, content: &[u8]) -> io::Result<()>;

    /// Writes all of the content at an offset in bytes.
    fn write_all_at(&self, content: &[u8], offset: u64) -> io::Result<()>;

    /// Empties the file and returns to its start.
    fn truncate(&mut self) -> io::Result<()>;

    /// Makes the content durable.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes the content and the file's metadata durable.
    fn sync_all(&self) -> io::Result<()>;

    /// Returns whether the path still leads to this file.
    fn is_at(&self, path: &Path) -> bool;
}

/// Returns the result of `work`, or `None` if it takes longer than `limit`.
pub async fn timeout<H: Host, T>(host: &H, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let (mut work, mut limit) = (std::pin::pin!(work), std::pin::pin!(host.sleep(limit)));
    tokio::select! {
        biased;
        done = &mut work => Some(done),
        () = &mut limit => None,
    }
}
