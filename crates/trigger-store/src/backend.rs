//! An opened backend: a full store, or one that only takes events.

use std::sync::Arc;

use crate::store::Store;

/// A backend that was opened by its URL and credentials.
#[derive(Clone)]
pub enum Backend {
    /// Keeps its entries, which can be read and watched.
    Store(Arc<dyn Store>),
    /// Takes events and reports nothing about them. The only one today drops them, for dry runs.
    WriteOnly,
}

impl Backend {
    /// Returns the store, or `None` for a write-only backend.
    pub fn store(&self) -> Option<&Arc<dyn Store>> {
        match self {
            Self::Store(store) => Some(store),
            Self::WriteOnly => None,
        }
    }
}

/// A backend cannot be opened.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its message")]
pub enum OpenError {
    #[error(
        "'{url}' needs this node's certificates, and there are none: name them in the configuration (`[tls]`), or \
         install Puppet, which is asked for its own"
    )]
    NoCertificates { url: String },
    #[error("{address} in '{url}' cannot be dialled: {source}")]
    BadAddress { url: String, address: String, source: Box<dyn std::error::Error + Send + Sync> },
}
