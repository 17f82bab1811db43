//! Files that are there, whole, after a crash, or not at all.

use std::io;
use std::path::{Path, PathBuf};

use crate::file_error::{FileError, at};
use crate::host::{Host, HostFile, Open};

/// Makes a rename or a new file in `dir` survive a crash.
pub(super) fn sync_dir<H: Host>(host: &H, dir: &Path) -> Result<(), FileError> {
    host.sync_dir(dir).map_err(at("sync the directory", dir))
}

/// A new private file with this content, synced but not yet in its place; the handle stays open so that
/// the caller can lock it before others see it.
pub(super) fn write_synced<H: Host>(
    host: &H,
    path: &Path,
    content: &[u8],
    lock: bool,
) -> Result<H::File, FileError> {
    let mut file = host.open(path, Open::New).map_err(at("create", path))?;
    if lock {
        file.lock().map_err(at("lock", path))?;
    }
    file.write_all(content).map_err(at("write", path))?;
    file.sync_all().map_err(at("sync", path))?;
    Ok(file)
}

/// Moves a file into its place and makes that survive a crash.
pub(super) fn rename_durably<H: Host>(host: &H, from: &Path, to: &Path) -> Result<(), FileError> {
    host.rename(from, to).map_err(at("move a file to", to))?;
    sync_dir(host, to.parent().unwrap_or(Path::new("/")))
}

/// The path with more text at its end, extension and all.
pub(super) fn appended(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Replaces a small file: whole or not at all, whatever happens meanwhile.
pub fn write_durably<H: Host>(host: &H, path: &Path, content: &[u8]) -> Result<(), FileError> {
    // The pid keeps two processes that write the same file from sharing a temporary one.
    let temporary = appended(path, &format!(".{}.tmp", host.pid()));
    let written =
        write_synced(host, &temporary, content, false).and_then(|_| rename_durably(host, &temporary, path));
    if written.is_err() {
        let _ = host.remove_file(&temporary);
    }
    written
}

/// A file's text; nothing where there is no file.
pub fn read_if_present<H: Host>(host: &H, path: &Path) -> Result<Option<String>, FileError> {
    match host.read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at("read", path)(error)),
    }
}
