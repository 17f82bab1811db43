//! The client at the other end of a connection.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::Extensions;
use axum::http::request::Parts;

/// The client at the other end of a connection, as logs show it. Its certname will be known from its certificate
/// once the hub speaks TLS.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    address: Option<SocketAddr>,
}

impl Peer {
    /// The peer of a request, from what the connection attached to it.
    pub(super) fn of(extensions: &Extensions) -> Self {
        let info = extensions.get::<ConnectInfo<SocketAddr>>();
        Self { address: info.map(|ConnectInfo(address)| *address) }
    }
}

impl<S: Sync> FromRequestParts<S> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.fmt(formatter),
            None => formatter.write_str("unknown"),
        }
    }
}
