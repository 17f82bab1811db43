//! Writes files so that after a crash each is complete or absent.

use std::io;
use std::path::{Path, PathBuf};

use crate::file_error::{FileError, at};
use crate::host::{Host, HostFile, Open};

/// Makes a rename or a new file in `dir` survive a crash.
pub(super) fn sync_dir<H: Host>(host: &H, dir: &Path) -> Result<(), FileError> {
    host.sync_dir(dir).map_err(at("sync the directory", dir))
}

/// Opens a file that may have to be created. A directory that something else has removed, such as a cleaner of temporary
/// files, is created again: what is written must not be lost for want of it.
pub(super) fn open<H: Host>(host: &H, path: &Path, how: Open) -> io::Result<H::File> {
    in_directory(host, path, || host.open(path, how))
}

/// Replaces a file's content, in a directory that is created again if it is gone. Not synced.
pub(super) fn write<H: Host>(host: &H, path: &Path, content: &[u8]) -> io::Result<()> {
    in_directory(host, path, || host.write(path, content))
}

/// Lists the paths in a directory of this program, which is created again if it is gone.
pub(super) fn list<H: Host>(host: &H, dir: &Path) -> Result<Vec<PathBuf>, FileError> {
    match host.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            host.create_private_dir(dir).map_err(at("create the directory", dir))?;
            Ok(Vec::new())
        }
        listed => listed.map_err(at("list", dir)),
    }
}

/// Does something with a file, and once more in a new directory if the file's own is gone.
fn in_directory<H: Host, T>(host: &H, path: &Path, work: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match (work(), path.parent()) {
        (Err(error), Some(directory)) if error.kind() == io::ErrorKind::NotFound => {
            host.create_private_dir(directory)?;
            work()
        }
        (done, _) => done,
    }
}

/// Creates a private file with this content, synced but not yet under its final name. With `lock` the open file is
/// locked, so that no other process can use the file after its renaming before the caller has released it.
pub(super) fn write_synced<H: Host>(
    host: &H,
    path: &Path,
    content: &[u8],
    lock: bool,
) -> Result<H::File, FileError> {
    let mut file = open(host, path, Open::New).map_err(at("create", path))?;
    if lock {
        file.lock().map_err(at("lock", path))?;
    }
    file.write_all(content).map_err(at("write", path))?;
    file.sync_all().map_err(at("sync", path))?;
    Ok(file)
}

/// Renames a file to its final name and makes that survive a crash.
pub(super) fn rename_durably<H: Host>(host: &H, from: &Path, to: &Path) -> Result<(), FileError> {
    in_directory(host, to, || host.rename(from, to)).map_err(at("move a file to", to))?;
    sync_dir(host, to.parent().unwrap_or(Path::new("/")))
}

/// Returns the path with a suffix after its extension.
pub(super) fn appended(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Replaces a small file atomically and durably.
///
/// # Errors
/// A [`FileError`] if it cannot be written, synced or renamed. The old file then stays, except that a failed sync of
/// the directory leaves open which of the two survives a crash.
pub fn write_durably<H: Host>(host: &H, path: &Path, content: &[u8]) -> Result<(), FileError> {
    // The pid keeps two processes that write the same file from using the same temporary file.
    let temporary = appended(path, &format!(".{}.tmp", host.pid()));
    let written =
        write_synced(host, &temporary, content, false).and_then(|_| rename_durably(host, &temporary, path));
    if written.is_err() {
        let _ = host.remove_file(&temporary);
    }
    written
}

/// Reads a file as text, with invalid UTF-8 replaced. Returns `None` if the file does not exist.
///
/// # Errors
/// A [`FileError`] if the file exists and cannot be read.
pub fn read_if_present<H: Host>(host: &H, path: &Path) -> Result<Option<String>, FileError> {
    match host.read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at("read", path)(error)),
    }
}
