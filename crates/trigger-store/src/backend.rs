//! An opened backend: a full store, or one that only takes events.

use std::sync::Arc;

use crate::store::Store;

/// What a URL and credentials open.
#[derive(Clone)]
pub enum Backend {
    /// Keeps what it is given, and can be read and watched.
    Store(Arc<dyn Store>),
    /// Takes events and reports nothing about them. The only one today does nothing with them: it is for dry runs.
    WriteOnly,
}

impl Backend {
    /// The store, where there is one to read from.
    pub fn store(&self) -> Option<&Arc<dyn Store>> {
        match self {
            Self::Store(store) => Some(store),
            Self::WriteOnly => None,
        }
    }
}

/// Why a backend cannot be opened.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its message")]
pub enum OpenError {
    #[error("'{url}' needs TLS, which this version does not speak yet")]
    TlsUnavailable { url: String },
    #[error("{address} in '{url}' cannot be dialled: {source}")]
    BadAddress { url: String, address: String, source: Box<dyn std::error::Error + Send + Sync> },
}
