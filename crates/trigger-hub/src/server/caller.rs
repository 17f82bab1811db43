//! The client of a request, as far as its rights depend on it.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::Extensions;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use trigger_core::authorization::Actor;

use super::peer::Peer;
use super::principal::Principal;
use super::state::ServerState;

/// The client of a request on a hub that knows its clients.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// Its certname and role.
    pub(super) actor: Actor,
    /// Its address, for logs.
    pub(super) address: String,
}

impl Caller {
    /// The client of a request, if its connection has proved a certname.
    pub(super) fn of(extensions: &Extensions) -> Option<Self> {
        let actor = extensions.get::<Actor>()?.clone();
        Some(Self { actor, address: Peer::of(extensions).to_string() })
    }
}

/// Finds out what the node at the other end of a connection may do besides acting for itself, and adds it to the request.
pub(super) async fn identify(
    State(state): State<Arc<ServerState>>,
    mut request: Request,
    next: Next,
) -> Response {
    let principal = Principal::of(request.extensions());
    if let (Some(Principal(node)), Some(authorization)) = (principal, &state.authorization) {
        let role = authorization.operators().role(&node.certname, |name| node.extensions.get(name));
        let actor = Actor { certname: node.certname.clone(), role };
        request.extensions_mut().insert(actor);
    }
    next.run(request).await
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
