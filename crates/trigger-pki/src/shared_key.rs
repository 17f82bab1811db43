//! The key that all nodes of a fleet without a CA share.

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use crate::error::{FileKind, PkiError};
use crate::files::{read, unusable};
use crate::signature;

/// The length of a key, in bytes.
const KEY_BYTES: usize = 32;
/// The name of the algorithm in signatures.
const ALGORITHM: &str = "hmac_sha256";
/// The permission of all users to read and to write.
const OTHERS: u32 = 0o006;

/// A key for HMAC-SHA256 that all nodes of a fleet share. Whoever has it can sign for each of them.
#[derive(Clone)]
pub struct SharedKey(hmac::Key);

impl SharedKey {
    /// Reads a key from its file: 32 bytes in base64.
    ///
    /// # Errors
    /// That the file cannot be read, that all users can, or that it holds no key.
    pub fn open(path: &Path) -> Result<Self, PkiError> {
        let text = read(FileKind::SharedKey, path)?;
        let metadata = fs::metadata(path).map_err(|error| PkiError::Unreadable {
            kind: FileKind::SharedKey,
            path: path.to_owned(),
            error,
        })?;
        if metadata.mode() & OTHERS != 0 {
            let reason = "every user of this machine can read or write it: `chmod o-rw` it, and replace it on all nodes \
                          if others may have read it";
            return Err(unusable(FileKind::SharedKey, path, reason.to_owned()));
        }
        let key = STANDARD.decode(text.trim_ascii()).ok().filter(|key| key.len() == KEY_BYTES).ok_or_else(
            || {
                let reason =
                    format!("it has to hold {KEY_BYTES} bytes in base64, as `trigger keygen` writes them");
                unusable(FileKind::SharedKey, path, reason)
            },
        )?;
        Ok(Self::from_bytes(&key))
    }

    /// Makes a new key and writes it to a file that did not exist before, for its owner alone.
    ///
    /// # Errors
    /// That the file exists or cannot be written, or that the system has no random numbers.
    pub fn generate(path: &Path) -> Result<Self, PkiError> {
        let unwritable = |error| PkiError::Unwritable { path: path.to_owned(), error };
        let mut key = [0; KEY_BYTES];
        SystemRandom::new()
            .fill(&mut key)
            .map_err(|_| unwritable(std::io::Error::other("the system has no random numbers")))?;
        let mut file =
            trigger_files::open(File::options().write(true).create_new(true), path).map_err(unwritable)?;
        writeln!(file, "{}", STANDARD.encode(key)).and_then(|()| file.sync_all()).map_err(unwritable)?;
        Ok(Self::from_bytes(&key))
    }

    /// A key of these bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// Signs bytes. The signature is a text of its algorithm and base64.
    pub fn sign(&self, bytes: &[u8]) -> String {
        signature::to_text(ALGORITHM, hmac::sign(&self.0, bytes).as_ref())
    }

    /// Whether a signature was made over `bytes` with this key.
    pub fn verify(&self, bytes: &[u8], signature: &str) -> bool {
        match signature::parts(signature) {
            Some((ALGORITHM, tag)) => hmac::verify(&self.0, bytes, &tag).is_ok(),
            _ => false,
        }
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKey")
    }
}
