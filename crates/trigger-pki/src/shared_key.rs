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
use rustix::process::geteuid;

use crate::error::{FileKind, PkiError};
use crate::files::{read, unusable};
use crate::signature;

/// The length of a key, in bytes.
const KEY_BYTES: usize = 32;
/// The name of the algorithm in signatures.
const ALGORITHM: &str = "hmac_sha256";
/// The permissions of the group and of all users that a key must not have: others may not read it, and only its owner
/// may write it.
const FORBIDDEN: u32 = 0o027;

/// A key for HMAC-SHA256 that all nodes of a fleet share. Whoever has it can sign for each of them.
#[derive(Clone)]
pub struct SharedKey(hmac::Key);

impl SharedKey {
    /// Reads a key from its file: 32 bytes in base64.
    ///
    /// # Errors
    /// That the file cannot be read, that others than root and this user could have read or written it, or that it holds
    /// no key. Its group may read it, as that of Puppet's private keys may.
    pub fn open(path: &Path) -> Result<Self, PkiError> {
        let text = read(FileKind::SharedKey, path)?;
        let metadata = fs::metadata(path).map_err(|error| PkiError::Unreadable {
            kind: FileKind::SharedKey,
            path: path.to_owned(),
            error,
        })?;
        if let Some(reason) = exposure(metadata.uid(), metadata.mode()) {
            return Err(unusable(FileKind::SharedKey, path, reason));
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

/// Who else could have read or written a key, and what mends it.
fn exposure(owner: u32, mode: u32) -> Option<String> {
    let replace = "and replace it on all nodes if others may have read it";
    if owner != 0 && owner != geteuid().as_raw() {
        return Some(format!(
            "it belongs to the user {owner}, who can read and write it: `chown root` it, {replace}"
        ));
    }
    (mode & FORBIDDEN != 0).then(|| {
        format!(
            "its mode {:04o} lets others read it, or its group write it: `chmod 0600` it, or 0640, {replace}",
            mode & 0o7777
        )
    })
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_roots_or_this_users() {
        let (own, other) = (geteuid().as_raw(), geteuid().as_raw() + 65_534);
        assert_eq!((exposure(own, 0o100_600), exposure(0, 0o100_640)), (None, None));
        let refused = exposure(other, 0o100_600).unwrap();
        assert!(refused.starts_with(&format!("it belongs to the user {other}")), "{refused}");
    }
}
