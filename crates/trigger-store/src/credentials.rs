//! How a node proves to a server who it is, and which servers it believes.
//!
//! The credentials are the node's own: they are configured where a backend is opened, and are never stored with an
//! event. A URL therefore says where a backend is, and does not say as whom to talk to it.

use std::path::PathBuf;

/// With what a backend is opened, besides its URL.
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
    /// The certificates of the CA: all of the chain, or servers are not believed.
    pub ca: PathBuf,
    /// The revocation lists of the CA.
    pub crl: PathBuf,
}
