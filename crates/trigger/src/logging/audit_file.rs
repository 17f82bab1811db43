//! The file of the audit. It may be rotated at any time: before each line the file at the path is looked at, and opened if it
//! is another one.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Its owner writes, its group may read.
const FILE_MODE: u32 = 0o640;
const DIRECTORY_MODE: u32 = 0o750;

/// The file at a path, as a writer of whole lines.
#[derive(Debug)]
pub(super) struct AuditFile {
    path: PathBuf,
    open: Option<Opened>,
    /// A part of a line has been written, and the rest not yet.
    is_partial: bool,
    /// The last line could not be finished.
    is_torn: bool,
    /// The log says already that the file cannot be written.
    has_failed: bool,
}

#[derive(Debug)]
struct Opened {
    file: File,
    identity: (u64, u64),
}

impl AuditFile {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), open: None, is_partial: false, is_torn: false, has_failed: false }
    }

    fn write_here(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let at_path = fs::metadata(&self.path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        let opened = match self.open.take() {
            Some(opened) if Some(opened.identity) == at_path => opened,
            _ => open(&self.path)?,
        };
        let mut file = &self.open.insert(opened).file;
        if self.is_torn {
            file.write_all(b"\n")?;
            self.is_torn = false;
        }
        file.write(bytes)
    }
}

impl Write for AuditFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.write_here(bytes);
        match &written {
            Ok(count) => {
                self.is_partial = !bytes[..*count].ends_with(b"\n");
                if self.has_failed {
                    self.has_failed = false;
                    tracing::info!(path = %self.path.display(), "the audit is written again");
                }
            }
            Err(error) => {
                self.is_torn |= std::mem::take(&mut self.is_partial);
                if !std::mem::replace(&mut self.has_failed, true) {
                    tracing::error!(path = %self.path.display(), %error, "cannot write the audit: its lines are lost and counted until that is mended");
                }
            }
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens the file, or creates it with its directory; its modes do not depend on the umask.
fn open(path: &Path) -> io::Result<Opened> {
    let mut options = OpenOptions::new();
    // A pipe without a reader would block the opening.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    options.append(true).custom_flags(flags).mode(FILE_MODE);
    let file = match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
                DirBuilder::new().mode(DIRECTORY_MODE).create(parent)?;
                fs::set_permissions(parent, Permissions::from_mode(DIRECTORY_MODE))?;
            }
            let file = options.create(true).open(path)?;
            file.set_permissions(Permissions::from_mode(FILE_MODE))?;
            file
        }
        opened => opened?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(Opened { file, identity: (metadata.dev(), metadata.ino()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_file_that_was_rotated_or_removed_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log/audit.log");
        let mut audit = AuditFile::new(&path);
        audit.write_all(b"one\n").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o640, 0o750));
        let rotated = dir.path().join("log/audit.log.1");
        fs::rename(&path, &rotated).unwrap();
        audit.write_all(b"two\n").unwrap();
        assert_eq!((text(&rotated), text(&path)), ("one\n".to_owned(), "two\n".to_owned()));
        fs::remove_file(&path).unwrap();
        // As logrotate's `create` leaves it.
        fs::write(&path, "").unwrap();
        audit.write_all(b"three\n").unwrap();
        AuditFile::new(&path).write_all(b"of another process\n").unwrap();
        audit.write_all(b"four\n").unwrap();
        assert_eq!(text(&path), "three\nof another process\nfour\n");
    }

    #[test]
    fn what_is_no_file_is_refused_and_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        assert!(AuditFile::new(&path).write(b"x\n").is_err());
        assert!(AuditFile::new(dir.path()).write(b"x\n").is_err());
        assert!(AuditFile::new(Path::new("/dev/null/x")).write(b"x\n").is_err());
    }

    #[test]
    fn a_line_that_could_not_be_finished_does_not_spoil_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let mut audit = AuditFile::new(&path);
        audit.write_all(b"torn").unwrap();
        audit.path = dir.path().join("none/none/none");
        assert!(audit.write(b" line\n").is_err());
        audit.path.clone_from(&path);
        audit.write_all(b"whole\n").unwrap();
        assert_eq!(text(&path), "torn\nwhole\n");
    }
}
