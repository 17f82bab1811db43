//! `trigger hub backup FILE`: copies a hub's database as of one moment, while the hub goes on.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::database;
use super::error::SqliteError;

/// The number of pages copied in one step: all of them. The copy is then a reader's snapshot of one moment, which does
/// not delay the writer in WAL mode. Smaller steps would start again at each commit in between.
const ALL_PAGES: i32 = -1;

/// A backup was not made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] SqliteError),
    /// The data directory holds no database.
    #[error("there is no hub's database in {}: give the --data-dir of the hub", .0.display())]
    NoDatabase(PathBuf),
    /// There may be a database, but this user may not read it.
    #[error("cannot read the hub's database {}: {source}; make the backup as the user that the hub runs as, or as root", path.display())]
    Unreadable {
        /// The database.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A backup never overwrites a file.
    #[error("{} exists already: a backup never overwrites a file; give another name or remove it", .0.display())]
    FileExists(PathBuf),
    /// The backup's file cannot be written.
    #[error("cannot write the backup {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// SQLite cannot copy the database.
    #[error("cannot back up to {}: {source}", path.display())]
    Copy {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// The copy does not pass SQLite's check.
    #[error("the backup {} was discarded, since SQLite's check of it says: {finding}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The check's answer.
        finding: String,
    },
}

/// Copies the database in `data_dir` to `file`, which must not exist; whether a hub runs there or not. The
/// copy appears whole or not at all, and is on disk when this returns.
///
/// # Errors
/// When there is no database, `file` exists or cannot be written, or the copy is not sound.
pub fn backup(data_dir: &Path, file: &Path) -> Result<(), BackupError> {
    let source = database::file(data_dir);
    check_readable(data_dir, &source)?;
    // This check only fails early; the link at the end decides.
    if file.symlink_metadata().is_ok() {
        return Err(BackupError::FileExists(file.to_owned()));
    }
    let partial = Partial::create(file)?;
    copy(&source, &partial.path, file)?;
    partial.publish(file)
}

/// Distinguishes a database that is not there from one that this user may not read. The file is not opened: closing it
/// would give up the locks of a hub in this process.
fn check_readable(data_dir: &Path, database: &Path) -> Result<(), BackupError> {
    match accessat(CWD, database, Access::READ_OK, AtFlags::EACCESS).map_err(io::Error::from) {
        Ok(()) => Ok(()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(BackupError::NoDatabase(data_dir.to_owned()))
        }
        Err(source) => Err(BackupError::Unreadable { path: database.to_owned(), source }),
    }
}

/// The copy under a name of its own, removed when it is dropped.
struct Partial {
    path: PathBuf,
}

impl Partial {
    fn create(file: &Path) -> Result<Self, BackupError> {
        let failed = |source| BackupError::Write { path: file.to_owned(), source };
        let name = file.file_name().ok_or_else(|| failed(io::ErrorKind::IsADirectory.into()))?;
        let name = format!(".{}.{}.partial", name.to_string_lossy(), std::process::id());
        let path = parent(file).join(name);
        // Only the hub's own user may read the copy, as with the original.
        trigger_files::open(File::options().write(true).create_new(true), &path).map_err(failed)?;
        Ok(Self { path })
    }

    /// Gives the copy its final name. A link, unlike a rename, never replaces a file that was created there meanwhile.
    fn publish(self, file: &Path) -> Result<(), BackupError> {
        let failed = |source| BackupError::Write { path: file.to_owned(), source };
        File::open(&self.path).and_then(|copy| copy.sync_all()).map_err(failed)?;
        match fs::hard_link(&self.path, file) {
            Ok(()) => drop(self),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(BackupError::FileExists(file.to_owned()));
            }
            // Some file systems have no links. There the file's absence is checked once more.
            Err(_) if file.symlink_metadata().is_err() => {
                fs::rename(&self.path, file).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        File::open(parent(file)).and_then(|directory| directory.sync_all()).map_err(failed)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the unfinished backup");
        }
    }
}

fn copy(source: &Path, partial: &Path, file: &Path) -> Result<(), BackupError> {
    let failed = |source| BackupError::Copy { path: file.to_owned(), source };
    let from = database::open_reader(source)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut to = Connection::open_with_flags(partial, flags).map_err(failed)?;
    match Backup::new(&from, &mut to).and_then(|backup| backup.step(ALL_PAGES)).map_err(failed)? {
        StepResult::Done => {}
        other => {
            let finding = format!("it was not copied to its end ({other:?})");
            return Err(BackupError::Damaged { path: file.to_owned(), finding });
        }
    }
    // One file on its own, without a log beside it; a hub that is given it turns the log on again.
    to.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(())).map_err(failed)?;
    let finding: String = to.query_row("PRAGMA quick_check(1)", (), |row| row.get(0)).map_err(failed)?;
    if finding != "ok" {
        return Err(BackupError::Damaged { path: file.to_owned(), finding });
    }
    to.close().map_err(|(_, source)| failed(source))
}

/// The directory that holds `path`, for syncing it.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
