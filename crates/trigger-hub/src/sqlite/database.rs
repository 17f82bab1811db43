//! The hub's SQLite file: its path, its schema, and how it is opened.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags};

use super::error::SqliteError;

/// The newest schema this version knows, as SQLite's `user_version`.
const SCHEMA: i64 = 1;
/// `Trig`, as SQLite's `application_id`: which distinguishes a hub's database from any other.
const APPLICATION_ID: i64 = 0x5472_6967;
/// The first SQLite without the WAL-reset bug (3.51.3), which could corrupt a database in WAL mode.
const OLDEST_SQLITE: i32 = 3_051_003;
/// The file whose lock makes a data directory one hub's.
const LOCK: &str = "hub.lock";
/// How long to wait for another process that reads the database, such as a backup or `sqlite3`.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// `position` holds the last revision given out: that of a deleted entry is in no entry.
const CREATE: &str = "
    CREATE TABLE entries (
        key TEXT NOT NULL PRIMARY KEY,
        value TEXT NOT NULL,
        revision INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE position (
        id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
        revision INTEGER NOT NULL
    ) STRICT;
    INSERT INTO position (id, revision) VALUES (1, 0);
";

/// The database in a data directory.
pub(crate) fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("hub.sqlite")
}

/// What the lock file holds, after the process's id, once there has been a database in the directory.
const HAS_DATABASE: &str = "database";

/// A data directory that this process has locked until this is dropped.
#[derive(Debug)]
pub(super) struct DataDirLock {
    /// The system releases the lock when this is closed, however the process ends.
    file: File,
    path: PathBuf,
    /// Whether a hub has kept its database here before.
    had_database: bool,
}

impl DataDirLock {
    /// Refuses a directory whose database is gone: a hub that began again with an empty one would seem to have lost
    /// nothing.
    pub(super) fn check_database(&self) -> Result<(), SqliteError> {
        let database = file(self.path.parent().unwrap_or(Path::new("/")));
        if self.had_database && !database.exists() {
            return Err(SqliteError::Missing { database, lock: self.path.clone() });
        }
        Ok(())
    }

    /// Notes that there is a database now, and which process has it. Its error is ignored, because a full disk must not
    /// keep the hub from serving reads.
    pub(super) fn note_database(&mut self) {
        let text = format!("{}\n{HAS_DATABASE}\n", std::process::id());
        if notes(&self.file) == text {
            return;
        }
        if let Err(error) = replace(&self.file, &text) {
            tracing::debug!(%error, "cannot note the process in the lock file");
        }
    }
}

/// Replaces a file's text. It is never empty meanwhile, and keeps its text if the disk is full.
fn replace(file: &File, text: &str) -> io::Result<()> {
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)?;
    file.sync_data()
}

/// What an open database has lost.
#[derive(Debug, Clone)]
pub(super) enum Loss {
    /// A file with data.
    Data(PathBuf),
    /// Only the lock.
    Lock(PathBuf),
}

/// The files of an open database, which have to stay in place: SQLite goes on with files that were removed, and all
/// that it writes to them is lost when it closes them.
#[derive(Debug)]
pub(super) struct Place {
    /// The database and its log.
    data: Vec<KnownFile>,
    lock: Option<KnownFile>,
}

/// A file, and what sets it apart from any other.
type KnownFile = (PathBuf, (u64, u64));

impl Place {
    /// The files of the database in `data_dir` that are there now.
    pub(super) fn of(data_dir: &Path) -> Self {
        let database = file(data_dir);
        let known = |path: PathBuf| identity(&path).ok().map(|identity| (path, identity));
        let log = beside(&database, "-wal");
        let lock = known(data_dir.join(LOCK));
        Self { data: [database, log].into_iter().filter_map(known).collect(), lock }
    }

    /// Returns the first file that is gone, or of which another one has taken the place. The lock comes last, because
    /// the data are more than the lock.
    pub(super) fn loss(&self) -> Option<Loss> {
        // Looked at before the data: what removes a whole directory may take the lock first.
        let lock = self.lock.as_ref().filter(|file| is_gone(file));
        let data = self.data.iter().find(|file| is_gone(file)).map(|(path, _)| Loss::Data(path.clone()));
        data.or_else(|| lock.map(|(path, _)| Loss::Lock(path.clone())))
    }
}

fn is_gone((path, known): &KnownFile) -> bool {
    match identity(path) {
        Ok(there) => there != *known,
        // Any other error says nothing about the file.
        Err(error) => matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    }
}

/// What sets a file apart from any other, without opening it: to close a second descriptor of the database would give up
/// SQLite's locks on it.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Creates the data directory if it is missing, and locks it.
pub(super) fn lock_data_dir(path: &Path) -> Result<DataDirLock, SqliteError> {
    let failed = |path: &Path, source| SqliteError::DataDir { path: path.to_owned(), source };
    // A user who can write here can fire events, so only the hub's own user may.
    trigger_files::create_dir(path).map_err(|source| failed(path, source))?;
    if trigger_files::restrict_dir(path).map_err(|source| failed(path, source))? {
        tracing::warn!(path = %path.display(), "other users had access to the data directory; only its owner has now");
    }
    let lock = path.join(LOCK);
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    let file = trigger_files::open(&mut options, &lock).map_err(|source| failed(&lock, source))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = holder(&file);
            return Err(SqliteError::DataDirInUse { path: path.to_owned(), holder });
        }
        Err(TryLockError::Error(source)) => return Err(failed(&lock, source)),
    }
    let had_database = notes(&file).lines().any(|line| line == HAS_DATABASE);
    Ok(DataDirLock { file, path: lock, had_database })
}

/// What the latest holder of the lock noted in its file.
fn notes(file: &File) -> String {
    let mut text = [0; 64];
    let length = file.read_at(&mut text, 0).unwrap_or_default();
    String::from_utf8_lossy(&text[..length]).into_owned()
}

fn holder(file: &File) -> String {
    match notes(file).lines().next().unwrap_or_default().trim().parse::<u32>() {
        Ok(pid) => format!(" (process {pid})"),
        Err(_) => String::new(),
    }
}

/// Opens the database for the one writer, and creates or checks its schema. The caller holds the directory's lock.
pub(super) fn open_writer(path: &Path) -> Result<Connection, SqliteError> {
    if rusqlite::version_number() < OLDEST_SQLITE {
        return Err(SqliteError::OldSqlite(rusqlite::version()));
    }
    create_private(path)?;
    quarantine_stale_log(path).map_err(|source| SqliteError::DataDir { path: path.to_owned(), source })?;
    let failed = |source| SqliteError::Database { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    // SQLite opens a file it may not write as if only reading were asked for.
    if connection.is_readonly(MAIN_DB).map_err(failed)? {
        let source = io::ErrorKind::PermissionDenied.into();
        return Err(SqliteError::DataDir { path: path.to_owned(), source });
    }
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    // Checked before anything is written, so that the file of a newer hub is not changed.
    let schema = check_schema(&connection, path)?;
    configure_writer(&connection).map_err(failed)?;
    if schema == 0 {
        create_schema(&mut connection).map_err(failed)?;
    }
    Ok(connection)
}

/// Opens the database for reading, beside the writer or in another process.
pub(super) fn open_reader(path: &Path) -> Result<Connection, SqliteError> {
    let failed = |source| SqliteError::Database { path: path.to_owned(), source };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    check_schema(&connection, path)?;
    Ok(connection)
}

/// Creates the database if it is missing, and restricts it to its owner. SQLite gives its log files the same mode, so no other code sets it.
fn create_private(path: &Path) -> Result<(), SqliteError> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    let created = trigger_files::open(&mut options, path);
    created.map(drop).map_err(|source| SqliteError::DataDir { path: path.to_owned(), source })
}

/// Renames a log that belongs to another database. A hub that was killed leaves its log beside the database. If a
/// backup is then put in the database's place, SQLite would replay the old log into the backup and ruin it. A backup is
/// not in WAL mode, nor is the database of a hub that was stopped in good order, and a hub's database with a log always
/// is, which distinguishes the two.
fn quarantine_stale_log(path: &Path) -> io::Result<()> {
    let log = beside(path, "-wal");
    if !fs::metadata(&log).is_ok_and(|log| log.len() > 0) || is_in_wal_mode(path)? {
        return Ok(());
    }
    let aside = beside(path, "-wal.replaced");
    tracing::warn!(
        log = %log.display(), moved_to = %aside.display(),
        "quarantining a log that is not this database's, which seems restored from a backup"
    );
    fs::rename(&log, &aside)
}

/// Returns whether the file format's "read version" is 2, which is WAL (<https://www.sqlite.org/fileformat.html>,
/// 1.3.3).
fn is_in_wal_mode(path: &Path) -> io::Result<bool> {
    let mut header = Vec::new();
    File::open(path)?.take(20).read_to_end(&mut header)?;
    Ok(header.get(19) == Some(&2))
}

fn check_schema(connection: &Connection, path: &Path) -> Result<i64, SqliteError> {
    let failed = |source| SqliteError::Database { path: path.to_owned(), source };
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(failed);
    let (application, schema) = (pragma("application_id")?, pragma("user_version")?);
    let empty = fs::metadata(path).is_ok_and(|file| file.len() == 0);
    match (application, schema) {
        (APPLICATION_ID, found) if found > SCHEMA => {
            Err(SqliteError::NewerSchema { path: path.to_owned(), found, known: SCHEMA })
        }
        (APPLICATION_ID, 1..) => Ok(schema),
        // A new file, or one whose making was interrupted before its first commit.
        (0, 0) if empty || table_count(connection).map_err(failed)? == 0 => Ok(0),
        _ => Err(SqliteError::Foreign(path.to_owned())),
    }
}

fn table_count(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))
}

fn configure_writer(connection: &Connection) -> rusqlite::Result<()> {
    // WAL: readers never wait for the writer. FULL: a commit that returned survives a power cut.
    match connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())) {
        // A full disk must not keep the hub from serving reads. Writes work without WAL once there is room.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
            tracing::error!(%error, "the hub starts without a write-ahead log; start it again when there is room");
        }
        done => done?,
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Most pages that a burst changes it changes again: 16 MiB of the log rather than 4 are copied into the database at a time.
    connection.pragma_update_and_check(None, "wal_autocheckpoint", 4096, |_| Ok(()))?;
    // A burst must not leave its log's size behind.
    connection.pragma_update_and_check(None, "journal_size_limit", 64 * 1024 * 1024, |_| Ok(()))?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

/// Copies the log into the database and ends WAL mode, so that the database's file is complete on its own. While another
/// process has the database open, WAL mode stays, and while one reads from it, the log too.
pub(super) fn close_writer(connection: Connection, path: &Path) {
    let copied = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get::<_, i64>(0));
    let log = beside(path, "-wal");
    match copied {
        Ok(0) => {}
        Ok(_) => tracing::warn!(
            database = %path.display(), log = %log.display(),
            "another process reads the database: its latest data stay in the log beside it, and a copy needs both files"
        ),
        Err(error) => tracing::error!(
            database = %path.display(), log = %log.display(), %error,
            "cannot copy the log into the database: its latest data stay in the log beside it, and a copy needs both files"
        ),
    }
    let ended = connection
        .busy_timeout(Duration::ZERO)
        .and_then(|()| connection.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(())));
    if let Err(error) = ended {
        tracing::debug!(%error, "cannot end WAL mode");
    }
    if let Err((_, error)) = connection.close() {
        tracing::debug!(%error, "cannot close the database");
    }
}

fn create_schema(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    transaction.execute_batch(CREATE)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", SCHEMA)?;
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

    use super::*;

    #[test]
    fn a_text_that_cannot_be_written_leaves_the_old_one() {
        let file = File::from(memfd_create("lock", MemfdFlags::ALLOW_SEALING).unwrap());
        replace(&file, "1234567\ndatabase\n").unwrap();
        replace(&file, "1\ndatabase\n").unwrap();
        assert_eq!(notes(&file), "1\ndatabase\n", "a shorter one has no rest of the longer one");
        fcntl_add_seals(&file, SealFlags::WRITE).unwrap();
        replace(&file, "2\ndatabase\n").unwrap_err();
        assert_eq!(notes(&file), "1\ndatabase\n");
    }

    #[test]
    fn the_lock_file_is_written_only_when_its_text_changes() {
        let dir = tempfile::tempdir().unwrap();
        let mut lock = lock_data_dir(dir.path()).unwrap();
        lock.note_database();
        let text = notes(&lock.file);
        assert_eq!(text, format!("{}\ndatabase\n", std::process::id()));
        let changed = || fs::metadata(dir.path().join(LOCK)).unwrap().modified().unwrap();
        let before = changed();
        std::thread::sleep(Duration::from_millis(20));
        lock.note_database();
        assert_eq!(changed(), before);
    }
}
