//! A node's certificates that may not be there yet.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::PkiError;
use crate::files::TlsFiles;
use crate::pki::Pki;

/// The files of a node, which are read when they are first needed. Where that fails, the next need reads them again: a
/// node may be waiting for its certificate to be signed. Clones share what was read. Two are equal if their files are
/// the same.
#[derive(Debug, Clone)]
pub struct LazyPki(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: TlsFiles,
    opened: Mutex<Option<Pki>>,
}

impl LazyPki {
    /// Reads nothing yet.
    pub fn new(files: TlsFiles) -> Self {
        Self(Arc::new(Inner { files, opened: Mutex::default() }))
    }

    /// The files.
    pub fn files(&self) -> &TlsFiles {
        &self.0.files
    }

    /// What is in the files.
    ///
    /// # Errors
    /// What is wrong with which file, and what mends it.
    pub fn get(&self) -> Result<Pki, PkiError> {
        let mut opened = self.0.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pki) = &*opened {
            return Ok(pki.clone());
        }
        let pki = Pki::open(self.0.files.clone())?;
        *opened = Some(pki.clone());
        Ok(pki)
    }
}

impl From<Pki> for LazyPki {
    fn from(pki: Pki) -> Self {
        Self(Arc::new(Inner { files: pki.files().clone(), opened: Mutex::new(Some(pki)) }))
    }
}

impl PartialEq for LazyPki {
    fn eq(&self, other: &Self) -> bool {
        self.0.files == other.0.files
    }
}

impl Eq for LazyPki {}

impl Hash for LazyPki {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.files.hash(state);
    }
}
