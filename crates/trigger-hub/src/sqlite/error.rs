//! The errors of opening the store.

use std::io;
use std::path::PathBuf;

/// A data directory, or the database in it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SqliteError {
    /// Another hub holds the lock of the data directory.
    #[error("the data directory {} is in use by another hub{holder}: a data directory serves one hub", path.display())]
    DataDirInUse {
        /// The directory.
        path: PathBuf,
        /// ` (process N)`, where known.
        holder: String,
    },
    /// The data directory cannot be created or written.
    #[error("cannot use the data directory {}: {source}; it must exist or be creatable, and be writable", path.display())]
    DataDir {
        /// The directory, or the file in it.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// SQLite cannot open the database.
    #[error("cannot open the hub's database {}: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// The database is not a hub's.
    #[error("{} is a database, but not a hub's: give another --data-dir", .0.display())]
    Foreign(PathBuf),
    /// The files of the database were removed or replaced while the hub used them.
    #[error(
        "{} was removed or replaced while the hub used it: the hub stops, because what it writes now would be lost; \
         restore a backup there before it is started again", .0.display()
    )]
    Gone(PathBuf),
    /// The lock of the data directory was removed or replaced while the hub used it, and the database was not.
    #[error(
        "{} was removed or replaced while the hub used it: the hub stops, because another one could take the data \
         directory; the database is untouched: start the hub again", .0.display()
    )]
    LockGone(PathBuf),
    /// A thread of the store has ended although the store is open.
    #[error("the hub's {0} thread has ended by an error: the hub stops, and can be started again")]
    ThreadEnded(&'static str),
    /// The data were lost while a hub ran, and there is no database in their place.
    #[error(
        "the hub's database {} was removed while a hub used it, and {} says so: restore a backup there, or remove {} \
         to begin with an empty one", database.display(), mark.display(), mark.display()
    )]
    Lost {
        /// The database.
        database: PathBuf,
        /// The file that says so.
        mark: PathBuf,
    },
    /// A hub has kept its database in the data directory, and it is not there any more.
    #[error(
        "the hub's database {} is gone: restore a backup there, or remove {} to begin with an empty one",
        database.display(), lock.display()
    )]
    Missing {
        /// The database.
        database: PathBuf,
        /// The lock file, which says that there was one.
        lock: PathBuf,
    },
    /// A newer hub has written the database.
    #[error(
        "{} was written by a newer version of trigger (schema {found}; this one knows {known}): \
         install that version again, or restore a backup from before it", path.display()
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest that this version knows.
        known: i64,
    },
    /// The linked SQLite has the WAL-reset bug.
    #[error(
        "this trigger was built with SQLite {0}, which can corrupt its log: build it with 3.51.3 or newer"
    )]
    OldSqlite(&'static str),
    /// A thread of the store cannot be started.
    #[error("cannot start the hub's {name} thread: {source}")]
    Thread {
        /// `reader` or `writer`.
        name: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}
