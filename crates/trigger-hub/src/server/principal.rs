//! The node at the other end of a TLS connection.

use std::sync::Arc;

use axum::http::Extensions;

/// The node that its certificate proves to be at the other end of a connection. The extensions of each request on a TLS
/// connection hold one; those of a plain connection hold none.
#[derive(Debug, Clone)]
pub struct Principal(pub Arc<trigger_pki::Peer>);

impl Principal {
    /// The principal of a request; `None` on a plain connection.
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }
}
