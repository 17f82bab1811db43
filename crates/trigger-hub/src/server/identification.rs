//! From a certificate to the rights of its node.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use trigger_core::authorization::Actor;

use super::principal::Principal;
use super::state::ServerState;

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
