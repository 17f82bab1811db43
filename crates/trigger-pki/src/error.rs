//! What is wrong with the files of a node, each as one sentence with its remedy.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use trigger_core::identity::InvalidName;

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// The node's certificate.
    Certificate,
    /// Its private key.
    Key,
    /// The certificates of the CA.
    Ca,
    /// The revocation lists of the CA.
    Crl,
    /// The key that all nodes of a fleet without a CA share.
    SharedKey,
}

impl FileKind {
    fn name(self) -> &'static str {
        match self {
            Self::Certificate => "the certificate",
            Self::Key => "the private key",
            Self::Ca => "the CA's certificates",
            Self::Crl => "the revocation lists",
            Self::SharedKey => "the shared key",
        }
    }

    fn remedy_if_missing(self) -> &'static str {
        match self {
            Self::Certificate => {
                "this node has no signed certificate yet: run `puppet ssl bootstrap` here, and sign its request on the \
                 CA with `puppetserver ca sign`"
            }
            Self::Key | Self::Ca => "run `puppet ssl bootstrap` on this node",
            Self::Crl => {
                "run `puppet ssl bootstrap` on this node, which fetches the lists, or leave `crl` out of `[tls]` for a \
                 CA that has none"
            }
            Self::SharedKey => "create it with `trigger keygen`, and copy it to all nodes of the fleet",
        }
    }
}

/// The files of a node cannot be used. The message names the file and what mends it.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read.
    #[error("cannot read {} {}: {error}; {}", kind.name(), path.display(), remedy(*kind, error))]
    Unreadable {
        /// What the file is for.
        kind: FileKind,
        /// Its path.
        path: PathBuf,
        /// The system's error. It is part of the message.
        error: io::Error,
    },
    /// A file can be read and does not hold what it should.
    #[error("{} {} cannot be used: {reason}", kind.name(), path.display())]
    Unusable {
        /// What the file is for.
        kind: FileKind,
        /// Its path.
        path: PathBuf,
        /// What is wrong with it, and what mends it.
        reason: String,
    },
    /// The subject of the node's certificate is not a certname.
    #[error("the certificate {} is not a Puppet node's: {reason}", path.display())]
    NotACertname {
        /// The certificate.
        path: PathBuf,
        /// What the name is, or that there is none.
        reason: NoCertname,
    },
    /// The private key belongs to another certificate.
    #[error(
        "the private key {} does not fit the certificate {}: one of the two was replaced without the other; \
         `puppet ssl verify` shows whether Puppet's own files are in order",
        key.display(), certificate.display()
    )]
    KeyMismatch {
        /// The key.
        key: PathBuf,
        /// The certificate.
        certificate: PathBuf,
    },
    /// A server cannot do without revocation lists.
    #[error(
        "no revocation lists are configured, so nobody could be kept out whose certificate the CA has revoked: name \
         the CA's lists in `[tls] crl`"
    )]
    NoRevocationLists,
    /// rustls does not accept what was read.
    #[error("TLS cannot be set up with the certificate {}: {reason}", certificate.display())]
    Setup {
        /// The node's certificate.
        certificate: PathBuf,
        /// What rustls says.
        reason: String,
    },
    /// A signature could not be made.
    #[error("cannot sign with the private key {}: {reason}", key.display())]
    Sign {
        /// The key.
        key: PathBuf,
        /// What ring says.
        reason: String,
    },
    /// A shared key could not be written.
    #[error("cannot write the shared key {}: {error}", path.display())]
    Unwritable {
        /// Where it was to be written.
        path: PathBuf,
        /// The system's error. It is part of the message.
        error: io::Error,
    },
}

/// Why a subject is not a certname.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCertname {
    /// Its common name is something else.
    #[error("its common name {0}")]
    Invalid(InvalidName),
    /// It has no common name, or several.
    #[error("its subject has {0} common names instead of one")]
    Count(usize),
}

fn remedy(kind: FileKind, error: &io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::NotFound => kind.remedy_if_missing(),
        ErrorKind::PermissionDenied => {
            "run this as root, or as a user that may read the file and its directory"
        }
        _ => "check the file and its file system",
    }
}
