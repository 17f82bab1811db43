//! The directory that holds all files of the bench, and unused ports. The directory is removed at the end, and every
//! process of the bench is ended.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};

use crate::gate::gate;
use crate::stop::{self, Signals};

/// A directory that is removed at the end of the bench, also after a signal, once all processes are gone.
pub(crate) struct Scratch {
    directory: PathBuf,
}

impl Scratch {
    pub(crate) fn new(inside: Option<&Path>) -> Result<Self> {
        // The listener starts before there is anything to remove.
        let signals = Signals::listen()?;
        let mut builder = tempfile::Builder::new();
        builder.prefix("trigger-bench-");
        let directory = match inside {
            Some(parent) => builder.tempdir_in(parent),
            None => builder.tempdir(),
        };
        let directory = directory.context("cannot make a scratch directory")?.keep();
        signals.end_with(directory.clone());
        Ok(Self { directory })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Makes a directory in it.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Writes a file in it.
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Returns a file for a process's output.
    pub(crate) fn log(&self, name: &str) -> Result<Stdio> {
        let path = self.path(&format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&path);
        Ok(Stdio::from(file.with_context(|| format!("cannot write {}", path.display()))?))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gate = gate();
        stop::end_all();
        stop::remove(&self.directory);
    }
}
