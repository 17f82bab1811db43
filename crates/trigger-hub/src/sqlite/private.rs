//! Files and directories that only their owner may use, whatever the umask of this process is.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// The bits of a mode that say who may do what.
const ACCESS: u32 = 0o777;
/// The bit of a directory in which each user may remove only his own files, such as `/tmp`.
const STICKY: u32 = 0o1000;

/// Opens a file as `options` say, and makes it its owner's alone.
pub(super) fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.mode(FILE_MODE).open(path)?;
    if file.metadata()?.mode() & ACCESS != FILE_MODE {
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    }
    Ok(file)
}

/// Creates a directory with its missing parents, each for its owner alone.
pub(super) fn create_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists()) {
        create_dir(parent)?;
    }
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(DIRECTORY_MODE)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Takes from all users but its owner what they may do with a directory. Returns whether that changed anything. A
/// directory that all users share, as they do `/tmp`, stays as it is: there the modes of the files have to suffice.
pub(super) fn restrict_dir(path: &Path) -> io::Result<bool> {
    let mode = fs::metadata(path)?.mode();
    if mode & STICKY != 0 || mode & ACCESS & !DIRECTORY_MODE == 0 {
        return Ok(false);
    }
    fs::set_permissions(path, Permissions::from_mode(mode & DIRECTORY_MODE))?;
    Ok(true)
}
