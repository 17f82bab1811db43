//! The identity that a node proves to a server, and the certificates by which it verifies servers.
//!
//! The credentials are the node's own: they are configured where a backend is opened, and are never stored with an
//! event. A URL therefore says where a backend is, and does not say which identity to use there.

use std::path::PathBuf;

/// The credentials with which a backend is opened, besides its URL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// Absent where every connection is plain.
    pub tls: Option<TlsFiles>,
}

/// The PEM files of a node in its Puppet CA.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsFiles {
    /// The node's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The certificates of the CA: the whole chain, without which servers are not trusted.
    pub ca: PathBuf,
    /// The revocation lists of the CA.
    pub crl: PathBuf,
}
