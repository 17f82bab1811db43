//! The node's state directory, which holds only data that must survive a crash.
//!
//! ```text
//! agent.lock               held by the running agent
//! agent.sock               the running agent's socket
//! certname                 the certname that the directory belongs to
//! groups                   the groups that the node has joined, and since which revision
//! ended                    events that ended here and never run again
//! hold                     the latest order to hold or release the node that it has accepted
//! fires                    how often triggers fired here for their root events
//! outbox/                  fired events that the backend has not committed yet
//! outbox-tries             why the last try to publish each of them came to nothing
//! runs/                    records, output and results of runs
//! backend-unreachable      present while fires need not try the backend
//! puppet-settings          Puppet's answer when it was last asked for its settings
//! ```

mod breaker;
mod dedup_log;
mod durable;
mod fires;
mod outbox;
mod runs;

use std::io;
use std::path::{Path, PathBuf};

use trigger_core::identity::Certname;

pub use breaker::Breaker;
pub use dedup_log::DedupLog;
pub use durable::{read_if_present, write_durably};
pub use fires::Fires;
pub use outbox::{Edited, Outbox, Quarantined, Spooled, Taken, is_of_expiry};
pub use runs::{NewRun, OpenRun, PreallocatedRecord, RunPaths, Runs};

pub use crate::file_error::{FileError, at};
use crate::host::{Host, HostFile, Open};
use crate::os::Os;

/// The file whose lock makes an agent the only one in a directory.
const LOCK: &str = "agent.lock";

/// A state directory that exists.
#[derive(Debug, Clone)]
pub struct StateDir<H: Host = Os> {
    host: H,
    path: PathBuf,
}

impl StateDir {
    /// Opens the directory on this machine; see [`StateDir::open_on`].
    ///
    /// # Errors
    /// A [`FileError`] if it cannot be created or opened.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Self::open_on(Os::start(), path)
    }
}

impl StateDir {
    /// Opens the directory on this machine for a caller that only looks: a missing one stays missing.
    ///
    /// # Errors
    /// A [`FileError`] if it exists and cannot be opened.
    pub fn open_existing(path: &Path) -> Result<Option<Self>, FileError> {
        let host = Os::start();
        match host.canonicalize(path) {
            Ok(path) => Ok(Some(Self { host, path })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at("open the state directory", path)(error)),
        }
    }
}

impl<H: Host> StateDir<H> {
    /// Opens the directory. A missing one is created, with access for its owner only.
    ///
    /// # Errors
    /// A [`FileError`] if it cannot be created or opened.
    pub fn open_on(host: H, path: &Path) -> Result<Self, FileError> {
        host.create_private_dir(path).map_err(at("create the directory", path))?;
        let path = host.canonicalize(path).map_err(at("open the state directory", path))?;
        Ok(Self { host, path })
    }

    /// The machine that the directory is on.
    pub fn host(&self) -> &H {
        &self.host
    }

    /// The directory's absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in the directory, whether the file exists or not.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Takes from all users but its owner what they may do with the directory, which an administrator may have created.
    /// Returns whether that changed anything. A directory of another user stays as it is, and so does one that all users
    /// share, such as `/tmp`.
    ///
    /// # Errors
    /// A [`FileError`] if the system refuses it.
    pub fn restrict(&self) -> Result<bool, FileError> {
        match self.host.restrict_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            restricted => restricted.map_err(at("restrict to its owner", &self.path)),
        }
    }

    /// Takes the lock that makes a running agent the only one in this directory. The lock is held until the file is
    /// dropped. Returns `None` if another agent holds it.
    ///
    /// # Errors
    /// A [`FileError`] if the lock file cannot be opened or locked.
    pub fn lock_for_agent(&self) -> Result<Option<H::File>, FileError> {
        let path = self.file(LOCK);
        let file = self.host.open(&path, Open::Lock).map_err(at("open", &path))?;
        let is_ours = file.try_lock().map_err(at("lock", &path))?;
        Ok(is_ours.then_some(file))
    }

    /// Returns whether `lock`, from [`Self::lock_for_agent`], still keeps other agents out of the directory: whether both
    /// are where they were.
    pub fn is_locked_by(&self, lock: &H::File) -> bool {
        lock.is_at(&self.file(LOCK))
    }

    /// Returns the certname that the directory belongs to, or `None` before an agent has set it.
    ///
    /// # Errors
    /// A [`FileError`] if the file exists and cannot be read, or holds no certname: a directory whose owner is unknown
    /// is not a free one.
    pub fn certname(&self) -> Result<Option<Certname>, FileError> {
        let path = self.file("certname");
        let Some(text) = read_if_present(&self.host, &path)? else { return Ok(None) };
        let invalid = |error| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
        text.trim().parse().map(Some).map_err(invalid).map_err(at("read", &path))
    }

    /// Sets the certname that the directory belongs to, durably.
    ///
    /// # Errors
    /// A [`FileError`] if the file cannot be written.
    pub fn set_certname(&self, certname: &Certname) -> Result<(), FileError> {
        write_durably(&self.host, &self.file("certname"), format!("{certname}\n").as_bytes())
    }

    fn create_private_dir(&self, path: &Path) -> Result<(), FileError> {
        self.host.create_private_dir(path).map_err(at("create the directory", path))
    }
}
