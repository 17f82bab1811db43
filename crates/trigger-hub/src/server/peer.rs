//! The client at the other end of a connection.

use std::convert::Infallible;
use std::fmt;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::Extensions;
use axum::http::request::Parts;

use super::connections::Client;

/// The client at the other end of a connection, as logs show it. Its certname will be known from its certificate
/// once the hub speaks TLS.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    client: Option<Client>,
}

impl Peer {
    /// The peer of a request, from what the connection attached to it.
    pub(super) fn of(extensions: &Extensions) -> Self {
        let info = extensions.get::<ConnectInfo<Client>>();
        Self { client: info.map(|ConnectInfo(client)| *client) }
    }

    /// Returns whether its connection has a place of the reserve.
    pub(super) fn is_in_reserve(self) -> bool {
        self.client.is_some_and(|client| client.is_reserve)
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
        match self.client {
            Some(client) => client.address.fmt(formatter),
            None => formatter.write_str("unknown"),
        }
    }
}
