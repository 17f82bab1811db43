//! The node's state directory: what must survive a crash, and nothing else.
//!
//! ```text
//! agent.lock               held by the running agent
//! agent.sock               the running agent's socket
//! certname                 whose directory this is
//! groups                   the groups it had joined, and since when
//! ended                    events that ended here and never run again
//! fires                    how often triggers fired here for their root events
//! outbox/                  fired events that the backend has not committed yet
//! runs/                    records, output and results of runs
//! backend-unreachable      present while fires need not try the backend
//! puppet-settings          what Puppet answered when it was asked for its settings
//! ```

mod breaker;
mod dedup_log;
mod durable;
mod fires;
mod outbox;
mod runs;

use std::fs::{DirBuilder, File, Metadata, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use trigger_core::identity::Certname;
use uuid::Uuid;

pub use breaker::Breaker;
pub use dedup_log::DedupLog;
pub use durable::{FileError, at, read_if_present, write_durably};
pub use fires::Fires;
pub use outbox::{EXPIRED, Outbox, Quarantined, Spooled, Taken};
pub use runs::{NewRun, OpenRun, PreallocatedRecord, RunPaths, Runs};

/// The directory, made if need be.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Opens the directory; only its owner may look inside.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        create_private_dir(path)?;
        let path = path.canonicalize().map_err(at("open the state directory", path))?;
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The running agent's socket; `agent::socket` reaches one whose path is too long for an address.
    pub fn socket(&self) -> PathBuf {
        self.file("agent.sock")
    }

    /// The one lock that makes a running agent the only one in this directory; held while the file is.
    pub fn lock_for_agent(&self) -> Result<Option<File>, FileError> {
        let path = self.file("agent.lock");
        let file = File::options().create(true).append(true).open(&path).map_err(at("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(at("lock", &path)(error)),
        }
    }

    /// Whose directory this is, once anybody has said so.
    pub fn certname(&self) -> Result<Option<Certname>, FileError> {
        let text = read_if_present(&self.file("certname"))?;
        Ok(text.and_then(|text| text.trim().parse().ok()))
    }

    /// Says whose directory this is.
    pub fn set_certname(&self, certname: &Certname) -> Result<(), FileError> {
        write_durably(&self.file("certname"), format!("{certname}\n").as_bytes())
    }
}

/// Names a lock among all others: the same for one file on one boot of one kernel, and for nothing else that
/// lives. Whoever holds the lock of a name knows that every earlier holder is dead. No copy of the file has
/// its name, be it one of the directory or of the whole machine, nor has the file itself after a restart.
pub fn name_of_lock(lock: &File) -> Option<String> {
    let boot = read_if_present(Path::new("/proc/sys/kernel/random/boot_id")).ok()??;
    Some(name_on(boot.trim().parse().ok()?, &lock.metadata().ok()?).to_string())
}

fn name_on(boot: Uuid, lock: &Metadata) -> Uuid {
    Uuid::new_v5(&boot, format!("{} {}", lock.dev(), lock.ino()).as_bytes())
}

fn create_private_dir(path: &Path) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at("create the directory", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_has_one_name_on_one_boot_and_a_copy_has_another() {
        let scratch = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            StateDir::open(&scratch.path().join(name)).unwrap().lock_for_agent().unwrap().unwrap()
        };
        let lock = file("a");
        let copy = file("copy");
        assert_ne!(name_of_lock(&lock), name_of_lock(&copy));
        drop(lock);
        let again = file("a");
        let name = name_of_lock(&again);
        drop(again);
        assert!(name.is_some());
        assert_eq!(name_of_lock(&file("a")), name);
        let (boot, next_boot) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let metadata = copy.metadata().unwrap();
        assert_eq!(name_on(boot, &metadata), name_on(boot, &metadata));
        assert_ne!(name_on(boot, &metadata), name_on(next_boot, &metadata));
    }
}
