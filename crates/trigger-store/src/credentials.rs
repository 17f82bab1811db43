//! The identity that a node proves to a server, and the certificates by which it verifies servers.
//!
//! The credentials are the node's own: they are configured where a backend is opened, and are never stored with an
//! event. A URL therefore says where a backend is, and does not say which identity to use there.

use trigger_pki::LazyPki;
pub use trigger_pki::TlsFiles;

/// The credentials with which a backend is opened, besides its URL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The node's certificates. Absent where none are known, so that every connection has to be plain. They are read
    /// when a connection first needs them, and what is wrong with them then is why the server cannot be reached.
    pub tls: Option<LazyPki>,
}
