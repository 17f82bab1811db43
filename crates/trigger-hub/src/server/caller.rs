//! The client of a request, as far as its rights depend on it.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::Extensions;
use axum::http::request::Parts;
use trigger_core::authorization::Actor;

use super::peer::Peer;
use super::principal::Principal;

/// The client of a request on a hub that knows its clients.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// Its certname and role.
    pub(super) actor: Actor,
    /// Its address, for logs.
    pub(super) address: String,
    /// The node that its certificate names; absent in tests that need none.
    node: Option<Principal>,
}

impl Caller {
    /// The client of a request, if its connection has proved a certname.
    pub(super) fn of(extensions: &Extensions) -> Option<Self> {
        let actor = extensions.get::<Actor>()?.clone();
        let address = Peer::of(extensions).address();
        Some(Self {
            actor,
            address: address.map_or_else(|| "unknown".to_owned(), |address| address.to_string()),
            node: Principal::of(extensions).cloned(),
        })
    }

    /// The SHA-256 of the certificate that it has proved its certname with.
    pub(super) fn fingerprint(&self) -> Option<String> {
        self.node.as_ref().map(|Principal(node)| node.fingerprint.to_string())
    }
}

/// The client of a request, if its connection has proved a certname.
#[derive(Debug, Clone)]
pub(super) struct MaybeCaller(pub(super) Option<Caller>);

impl<S: Sync> FromRequestParts<S> for MaybeCaller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(Caller::of(&parts.extensions)))
    }
}
