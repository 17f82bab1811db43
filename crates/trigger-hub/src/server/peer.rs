//! The client at the other end of a connection.

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::Extensions;
use axum::http::request::Parts;

use super::connections::{Client, Standing};
use super::principal::Principal;
use super::shares::Share;

/// The client at the other end of a connection, as logs show it: its address, and its certname where its certificate
/// has proven that.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    client: Option<Client>,
}

impl Peer {
    /// The peer of a request, from what the connection attached to it.
    pub(super) fn of(extensions: &Extensions) -> Self {
        let info = extensions.get::<ConnectInfo<Client>>();
        Self { client: info.map(|ConnectInfo(client)| client.clone()) }
    }

    /// Its address, without its certname.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.client.as_ref().map(|client| client.address)
    }

    /// What its connection may be used for.
    pub(super) fn standing(&self) -> Standing {
        self.client.as_ref().map_or(Standing::Ordinary, |client| client.standing)
    }

    /// The node that it has proven to be; `None` on a plain connection.
    pub(super) fn principal(&self) -> Option<&Principal> {
        Some(&self.client.as_ref()?.node.as_ref()?.principal)
    }

    /// What its certname may use; `None` on a plain connection.
    pub(super) fn share(&self) -> Option<&Arc<Share>> {
        Some(&self.client.as_ref()?.node.as_ref()?.share)
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
        match (&self.client, self.principal()) {
            (Some(client), Some(Principal(node))) => {
                write!(formatter, "{} {}", node.certname, client.address)
            }
            (Some(client), None) => client.address.fmt(formatter),
            (None, _) => formatter.write_str("unknown"),
        }
    }
}
