//! Files and directories that only their owner may use, whatever the umask of this process is. The umask itself is left
//! alone, because every run inherits it.

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

/// Opens a file as `options` say. A file that is created is its owner's alone, and so is from now on an existing one of
/// this process's user.
///
/// # Errors
/// The system's error if the file cannot be opened or restricted.
pub fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options.mode(FILE_MODE).open(path)?;
    let metadata = file.metadata()?;
    if metadata.mode() & ACCESS != FILE_MODE && metadata.is_file() {
        match file.set_permissions(Permissions::from_mode(FILE_MODE)) {
            // The file of another user, who has let this one use it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            done => done?,
        }
    }
    Ok(file)
}

/// Creates a directory with its missing parents, each for its owner alone. An existing one stays as it is.
///
/// # Errors
/// The system's error if one of them cannot be created or restricted.
pub fn create_dir(path: &Path) -> io::Result<()> {
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
///
/// # Errors
/// The system's error if the directory cannot be looked at or restricted.
pub fn restrict_dir(path: &Path) -> io::Result<bool> {
    let mode = fs::metadata(path)?.mode();
    if mode & STICKY != 0 || mode & ACCESS & !DIRECTORY_MODE == 0 {
        return Ok(false);
    }
    fs::set_permissions(path, Permissions::from_mode(mode & DIRECTORY_MODE))?;
    Ok(true)
}

/// Restricts an existing file or socket to its owner.
///
/// # Errors
/// The system's error if it cannot be restricted.
pub fn restrict(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(FILE_MODE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & ACCESS
    }

    #[test]
    fn what_exists_becomes_private_but_a_shared_directory() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "content").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
        drop(open(File::options().append(true).create(true), &file).unwrap());
        assert_eq!((mode(&file), fs::read_to_string(&file).unwrap()), (0o600, "content".to_owned()));

        let own = dir.path().join("a/b");
        create_dir(&own).unwrap();
        create_dir(&own).unwrap();
        assert_eq!((mode(&own), mode(&dir.path().join("a"))), (0o700, 0o700));
        fs::set_permissions(&own, Permissions::from_mode(0o2777)).unwrap();
        assert!(restrict_dir(&own).unwrap());
        assert!(!restrict_dir(&own).unwrap());
        assert_eq!(mode(&own), 0o700);
        assert_eq!(create_dir(&file).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        fs::set_permissions(&own, Permissions::from_mode(0o1777)).unwrap();
        assert!(!restrict_dir(&own).unwrap());
        assert_eq!(mode(&own), 0o777, "a shared directory stays as it is");
    }
}
