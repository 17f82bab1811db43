//! The one source of cryptography: ring.

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, ring};

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(ring::default_provider()));

/// The provider that every connection, signature and verification uses.
pub(crate) fn provider() -> &'static Arc<CryptoProvider> {
    &PROVIDER
}
