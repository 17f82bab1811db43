//! The node's identity and whom it trusts, read from files, and read again when they change.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::{ClientConfig, ServerConfig};
use trigger_core::time::Timestamp;

use crate::error::{FileKind, PkiError};
use crate::explain::{OtherEnd, closed, explain, tls_error};
use crate::files::{self, TlsFiles};
use crate::identity::Identity;
use crate::tls::{self, Handshake};
use crate::trust::Trust;
use crate::untrusted::Untrusted;

/// A node's identity and whom it trusts. Clones are cheap, and share what was read last.
#[derive(Debug, Clone)]
pub struct Pki(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: TlsFiles,
    /// Files with more revocation lists, each of which may be absent.
    more_lists: Vec<PathBuf>,
    loaded: RwLock<Loaded>,
    /// What the files looked like when they were looked at last. Held while they are read again.
    seen: Mutex<Seen>,
}

#[derive(Debug, Clone)]
struct Loaded {
    identity: Arc<Identity>,
    trust: Arc<Trust>,
    generation: u64,
}

#[derive(Debug)]
struct Seen {
    metadata: Vec<Option<Metadata>>,
    contents: Contents,
}

/// What changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Metadata {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Debug, PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
    crl: Option<Vec<u8>>,
    more_lists: Vec<(PathBuf, Vec<u8>)>,
}

impl Pki {
    /// Reads the files of a node.
    ///
    /// # Errors
    /// What is wrong with which file, and what mends it.
    pub fn open(files: TlsFiles) -> Result<Self, PkiError> {
        Self::open_with_more_lists(files, Vec::new())
    }

    /// Reads the files of a node, and more revocation lists from files that may be absent. The newest list of each CA
    /// counts, from whichever file.
    ///
    /// # Errors
    /// What is wrong with which file, and what mends it.
    pub fn open_with_more_lists(files: TlsFiles, more_lists: Vec<PathBuf>) -> Result<Self, PkiError> {
        // The metadata first, so that a file that is replaced in between is read again.
        let metadata = metadata(&files, &more_lists);
        let contents = Contents::read(&files, &more_lists)?;
        let (identity, trust) = contents.parse(&files)?;
        Ok(Self(Arc::new(Inner {
            files,
            more_lists,
            loaded: RwLock::new(Loaded { identity, trust, generation: 0 }),
            seen: Mutex::new(Seen { metadata, contents }),
        })))
    }

    /// Reads the files again if they have changed. Returns whether identity or trust changed.
    ///
    /// # Errors
    /// What is wrong with which file. What was read before stays in use: while Puppet renews a certificate its files do
    /// not fit for a moment. The next call reads them again.
    pub fn reload(&self) -> Result<bool, PkiError> {
        let Inner { files, more_lists, loaded, seen } = &*self.0;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let metadata = metadata(files, more_lists);
        if metadata == seen.metadata {
            return Ok(false);
        }
        let contents = Contents::read(files, more_lists)?;
        let is_new = contents != seen.contents;
        if is_new {
            let (identity, trust) = contents.parse(files)?;
            let mut loaded = loaded.write().unwrap_or_else(PoisonError::into_inner);
            *loaded = Loaded { identity, trust, generation: loaded.generation + 1 };
        }
        *seen = Seen { metadata, contents };
        Ok(is_new)
    }

    /// How often [`Self::reload`] has changed something. What depends on trust is verified again when it grows.
    pub fn generation(&self) -> u64 {
        self.loaded().generation
    }

    /// Who this node is.
    pub fn identity(&self) -> Arc<Identity> {
        self.loaded().identity
    }

    /// Whom this node trusts.
    pub fn trust(&self) -> Arc<Trust> {
        self.loaded().trust
    }

    /// The files.
    pub fn files(&self) -> &TlsFiles {
        &self.0.files
    }

    /// Whether this node would trust itself: what is wrong with its own certificate at the time `now`, if anything. A
    /// server whose CA is another one may trust it all the same.
    pub fn own_problem(&self, now: Timestamp) -> Option<Untrusted> {
        let Loaded { identity, trust, .. } = self.loaded();
        trust.verify(identity.certificate_der(), identity.chain().get(1..).unwrap_or_default(), now).err()
    }

    /// The configuration of a client for one connection: TLS 1.2 or 1.3, with the node's certificate. The server's
    /// chain, revocation and name are verified.
    ///
    /// # Errors
    /// [`PkiError::Setup`] if rustls refuses the files.
    pub fn client_config(&self, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, PkiError> {
        Ok(self.client_handshake(alpn)?.config)
    }

    /// As [`Self::client_config`], with the reason if the server is refused.
    ///
    /// # Errors
    /// [`PkiError::Setup`] if rustls refuses the files.
    pub fn client_handshake(&self, alpn: &[&[u8]]) -> Result<Handshake<ClientConfig>, PkiError> {
        let Loaded { identity, trust, .. } = self.loaded();
        tls::client(&identity, &trust, alpn).map_err(|error| self.setup(&error))
    }

    /// The configuration of a server for one connection: TLS 1.2 or 1.3, with the node's certificate. The client has to
    /// present a certificate, whose chain, revocation and certname are verified.
    ///
    /// # Errors
    /// [`PkiError::NoRevocationLists`], or [`PkiError::Setup`] if rustls refuses the files.
    pub fn server_config(&self, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, PkiError> {
        Ok(self.server_handshake(alpn)?.config)
    }

    /// As [`Self::server_config`], with the reason if the client is refused.
    ///
    /// # Errors
    /// [`PkiError::NoRevocationLists`], or [`PkiError::Setup`] if rustls refuses the files.
    pub fn server_handshake(&self, alpn: &[&[u8]]) -> Result<Handshake<ServerConfig>, PkiError> {
        let Loaded { identity, trust, .. } = self.loaded();
        if !trust.has_revocation_lists() {
            return Err(PkiError::NoRevocationLists);
        }
        tls::server(&identity, &trust, alpn).map_err(|error| self.setup(&error))
    }

    /// The sentence for an error of rustls: which end is at fault, and what mends it. `refusal` is the handshake's.
    pub fn explain(&self, end: OtherEnd<'_>, error: &rustls::Error, refusal: Option<&Untrusted>) -> String {
        explain(end, error, refusal, &self.0.files, &self.identity())
    }

    /// As [`Self::explain`], for an error of a connection; absent if it does not come from rustls.
    pub fn explain_io(
        &self,
        end: OtherEnd<'_>,
        error: &io::Error,
        refusal: Option<&Untrusted>,
    ) -> Option<String> {
        Some(self.explain(end, tls_error(error)?, refusal))
    }

    /// The sentence for the error of a handshake. One that is not about TLS stays as it is.
    pub fn explain_handshake(
        &self,
        end: OtherEnd<'_>,
        error: &io::Error,
        refusal: Option<&Untrusted>,
    ) -> String {
        if error.kind() == ErrorKind::UnexpectedEof {
            return closed(end);
        }
        self.explain_io(end, error, refusal).unwrap_or_else(|| error.to_string())
    }

    fn loaded(&self) -> Loaded {
        self.0.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn setup(&self, error: &rustls::Error) -> PkiError {
        PkiError::Setup { certificate: self.0.files.certificate.clone(), reason: error.to_string() }
    }
}

impl Contents {
    fn read(files: &TlsFiles, more_lists: &[PathBuf]) -> Result<Self, PkiError> {
        Ok(Self {
            certificate: files::read(FileKind::Certificate, &files.certificate)?,
            key: files::read(FileKind::Key, &files.key)?,
            ca: files::read(FileKind::Ca, &files.ca)?,
            crl: files.crl.as_deref().map(|path| files::read(FileKind::Crl, path)).transpose()?,
            more_lists: more_lists
                .iter()
                .filter_map(|path| if_present(path).transpose())
                .collect::<Result<_, _>>()?,
        })
    }

    fn parse(&self, files: &TlsFiles) -> Result<(Arc<Identity>, Arc<Trust>), PkiError> {
        let identity = Identity::read((&files.certificate, &self.certificate), (&files.key, &self.key))?;
        let crl = files.crl.as_deref().zip(self.crl.as_deref());
        let trust = Trust::read((&files.ca, &self.ca), crl, &self.more_lists)?;
        Ok((Arc::new(identity), Arc::new(trust)))
    }
}

fn if_present(path: &Path) -> Result<Option<(PathBuf, Vec<u8>)>, PkiError> {
    match files::read(FileKind::Crl, path) {
        Ok(pem) => Ok(Some((path.to_owned(), pem))),
        Err(PkiError::Unreadable { error, .. }) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn metadata(files: &TlsFiles, more_lists: &[PathBuf]) -> Vec<Option<Metadata>> {
    let TlsFiles { certificate, key, ca, crl } = files;
    [certificate, key, ca].into_iter().chain(crl).chain(more_lists).map(|path| Metadata::of(path)).collect()
}

impl Metadata {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}
