//! Files for the decoders that take a path. They lie in memory where the machine has such a directory.

use std::fs;
use std::path::{Path, PathBuf};

/// A directory of this process.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let builder = tempfile::Builder::new().prefix("trigger-fuzz-").tempdir_in(memory);
        Self(builder.or_else(|_| tempfile::tempdir()).expect("a scratch directory"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, data: &[u8]) -> PathBuf {
        fs::write(self.path(name), data).expect("a scratch file");
        self.path(name)
    }
}
