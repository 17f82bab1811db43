//! The mark of a hub that has lost its data while it ran: a file beside its data directory, because the lock file, which
//! says that there was a database, goes with the directory.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::database;
use super::error::SqliteError;

/// The file beside a data directory which says that a running hub has lost its data. It is not in the directory, so that
/// it stays when that is removed. `None` for a directory without a name, such as `/`.
fn mark_of(data_dir: &Path) -> Option<PathBuf> {
    let mut name = data_dir.file_name()?.to_owned();
    name.push(".gone");
    Some(data_dir.with_file_name(name))
}

/// Leaves the mark that the data are lost: without the lock file nothing else would say so to the next hub.
pub(crate) fn leave(data_dir: &Path, loss: &SqliteError) {
    let Some(mark) = mark_of(data_dir) else { return };
    if let Err(error) =
        create_mark(&mark, &format!("{loss}\nOr remove this file to begin with an empty database.\n"))
    {
        tracing::error!(
            mark = %mark.display(), %error,
            "cannot leave a mark of the lost data: a hub that is started again may begin with an empty database"
        );
    }
}

fn create_mark(mark: &Path, text: &str) -> io::Result<()> {
    // The directory may be one that others write to, so nothing that is there is followed or written.
    let mut file = match trigger_files::open(File::options().write(true).create_new(true), mark) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        opened => opened?,
    };
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let parent = mark.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Refuses a data directory that has no database, if a hub has lost it there.
pub(super) fn check(data_dir: &Path) -> Result<(), SqliteError> {
    match mark_of(data_dir) {
        Some(mark) if mark.exists() && !database::file(data_dir).exists() => {
            Err(SqliteError::Lost { database: database::file(data_dir), mark })
        }
        _ => Ok(()),
    }
}

/// Removes the mark of a loss, once there is a database again.
pub(super) fn remove(data_dir: &Path) {
    let Some(mark) = mark_of(data_dir) else { return };
    match fs::remove_file(&mark) {
        Ok(()) => {
            tracing::info!(mark = %mark.display(), "the hub has a database again, and has removed this mark")
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(mark = %mark.display(), %error, "cannot remove the mark of lost data"),
    }
}
