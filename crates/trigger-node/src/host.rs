//! What a node needs of the machine it is on. The agent, firing and the state directory are written over [`Host`]:
//! the program runs them on [`Os`](crate::os::Os), the simulation on machines of its own, with a crash at any file
//! operation.
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

use crate::file_error::FileError;
use crate::fire_error::{BackendError, FireError};
use crate::fire_report::FireReport;

/// A machine, as one process on it sees it.
pub trait Host: Clone + Debug + Send + Sync + 'static {
    /// An open file; closing it gives up its lock.
    type File: HostFile;
    /// A task that was started; dropping it ends the task.
    type Task: Send + 'static;

    /// How many bytes a run's record gets that is made ahead: enough for some twenty events.
    const PREALLOCATED_BYTES: usize = 16 * 1024;

    /// The wall clock.
    fn wall(&self) -> Timestamp;

    /// A clock that only goes forward, from some moment of this process's life; it goes on while the machine is
    /// suspended, since other machines go on meanwhile.
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

    /// A new name for this process among all that ever claim its certname.
    fn new_instance(&self) -> String;

    /// Starts a task.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Self::Task;

    /// Does file work beside other tasks.
    fn spawn_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = T> + Send;

    // --- files; errors are those of the operating system

    /// Makes a directory, and those above it, that only its owner may enter; one that exists stays.
    fn create_private_dir(&self, path: &Path) -> io::Result<()>;

    /// The path without links.
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf>;

    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Self::File>;

    /// A whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Replaces a file's content, or makes the file. Not synced.
    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()>;

    /// Moves a file, over another one if need be. Not synced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Not synced.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Makes what was renamed, made and removed in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// What is in a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>>;

    /// Whether there is a file, and not a directory.
    fn is_file(&self, path: &Path) -> bool;

    /// How long ago a file was changed, if that is known.
    fn age(&self, path: &Path) -> Option<Duration>;

    /// Names a lock among all others: the same for one file on one boot of one kernel, and for nothing else that
    /// lives. A process that holds the lock of a name knows that every earlier holder is dead. No copy of the file
    /// has its name, whether of the directory or of the whole machine, nor has the file itself after a restart.
    fn lock_name(&self, lock: &Self::File) -> Option<String>;

    /// Returns when no other process holds the lock of a file. Fails where there is no such file.
    fn wait_until_unlocked(
        &self,
        path: &Path,
    ) -> impl Future<Output = Result<(), FileError>> + Send + use<Self>;

    // --- processes

    /// The number of this process.
    fn pid(&self) -> u32;

    /// What the machine calls itself, for people.
    fn name(&self) -> String;

    /// Starts the supervisor of a run and hands the locked record over to it: at no moment is the record of a
    /// starting run unlocked. Its end shows in the lock.
    fn start_supervisor(&self, record: &Path, lock: Self::File) -> io::Result<()>;

    /// Ends what is left of a run whose supervisor is dead: its first process, which the supervisor noted. A supervisor
    /// that was killed before it could leaves none or an empty one; then it is the oldest process that writes to the
    /// run's output.
    fn end_orphan(&self, note: Option<&str>, output: &Path) -> impl Future<Output = ()> + Send;

    /// Opens the backend behind a URL.
    fn open_backend(&self, url: &BackendUrl, credentials: &Credentials) -> Result<Backend, BackendError>;

    /// Hands an event to the agent of a state directory, and returns what that made of it; nothing where none is
    /// alive, or it does not understand, or it does not answer in time.
    fn fire_by_agent(
        &self,
        state_dir: &Path,
        publication: &Publication,
        timeout: Duration,
    ) -> impl Future<Output = Option<Result<FireReport, FireError>>> + Send;
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// To be read; it must exist.
    Read,
    /// Empty, to be written and read; only its owner may look into it.
    New,
    /// To be appended to, made if need be; only its owner may look into it.
    Append,
    /// Likewise, and to be read.
    ReadAppend,
    /// To be locked, made if need be.
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

    /// The rest of the file.
    fn read_to_end(&mut self) -> io::Result<Vec<u8>>;

    /// Writes all of it, or as much as there was room for.
    fn write_all(&mut self, content: &[u8]) -> io::Result<()>;

    /// Writes at a place in the file.
    fn write_all_at(&self, content: &[u8], offset: u64) -> io::Result<()>;

    /// Empties the file, and goes on at its start.
    fn truncate(&mut self) -> io::Result<()>;

    /// Makes the content durable.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes the content and what is known of the file durable.
    fn sync_all(&self) -> io::Result<()>;

    /// Whether this file still lies at a path.
    fn is_at(&self, path: &Path) -> bool;
}

/// Returns what `work` comes to, or nothing after `limit`.
pub async fn timeout<H: Host, T>(host: &H, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let (mut work, mut limit) = (std::pin::pin!(work), std::pin::pin!(host.sleep(limit)));
    tokio::select! {
        biased;
        done = &mut work => Some(done),
        () = &mut limit => None,
    }
}
