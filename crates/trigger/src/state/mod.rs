//! The node's state folder: what must survive a crash, and nothing else.
//!
//! ```text
//! agent.lock               held by the running agent
//! agent.sock               the running agent's socket
//! certname                 whose folder this is
//! instance                 the agent that ran from this folder last
//! groups                   the groups it had joined, and since when
//! ended                    events that ended here and never run again
//! outbox/                  fired events that the backend has not committed yet
//! runs/                    records, output and results of runs
//! backend-unreachable      present while fires need not try the backend
//! puppet-settings          what Puppet answered when it was asked for its settings
//! ```

mod breaker;
mod durable;
mod ended;
mod outbox;
mod runs;

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use trigger_core::identity::Certname;

pub(crate) use breaker::Breaker;
pub(crate) use durable::{FileError, at, read_if_present, write_durably};
pub(crate) use ended::EndedLog;
pub(crate) use outbox::{Outbox, SetAside, Spooled, Taken};
pub(crate) use runs::{BlankRecord, NewRun, OpenRun, RunPaths, Runs};

/// The folder, made if need be.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Opens the folder; only its owner may look inside.
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        create_private_dir(path)?;
        let path = path.canonicalize().map_err(at("open the state folder", path))?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The running agent's socket; `agent::socket` reaches one whose path is too long for an address.
    pub(crate) fn socket(&self) -> PathBuf {
        self.file("agent.sock")
    }

    /// The one lock that makes a running agent the only one in this folder; held while the file is.
    pub(crate) fn lock_for_agent(&self) -> Result<Option<File>, FileError> {
        let path = self.file("agent.lock");
        let file = File::options().create(true).append(true).open(&path).map_err(at("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(at("lock", &path)(error)),
        }
    }

    /// Whose folder this is, once anybody has said so.
    pub(crate) fn certname(&self) -> Result<Option<Certname>, FileError> {
        let text = read_if_present(&self.file("certname"))?;
        Ok(text.and_then(|text| text.trim().parse().ok()))
    }

    /// Says whose folder this is.
    pub(crate) fn set_certname(&self, certname: &Certname) -> Result<(), FileError> {
        write_durably(&self.file("certname"), format!("{certname}\n").as_bytes())
    }
}

fn create_private_dir(path: &Path) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at("create the folder", path))
}
