//! The JSON body of a request.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use trigger_core::identity::Certname;
use trigger_store::hub_protocol::MAX_BODY_BYTES;

use super::fairness::{BodyPermit, declared_bytes};
use super::origin_check;
use super::peer::Peer;
use super::refusal::Refusal;
use super::state::ServerState;
use super::turns::Turn;

/// A JSON body, and its sender's turn at the store, which lasts until the request is answered. Anything else is refused
/// in the hub's own form.
pub(super) struct Body<T>(pub(super) T, #[expect(dead_code, reason = "it is held")] Turns);

/// What a request holds until it is answered.
type Turns = (BodyPermit, Option<Turn<Certname>>);

impl<T: DeserializeOwned + Send> FromRequest<Arc<ServerState>> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &Arc<ServerState>) -> Result<Self, Refusal> {
        origin_check::check_json(request.headers())?;
        // The limit applies before the reading if the request declares its size, otherwise during it.
        if declared_bytes(request.headers()).is_some_and(|bytes| bytes > MAX_BODY_BYTES as u64) {
            return Err(too_large());
        }
        let peer = Peer::of(request.extensions());
        let permit = state.fairness.body_permit(&peer, request.headers()).await;
        let path = request.uri().path().to_owned();
        let body = Bytes::from_request(request, state).await.map_err(|rejection| unread(&rejection))?;
        match serde_json::from_slice(&body) {
            // After the body, since a client that sends slowly must not hold up the store.
            Ok(value) => Ok(Self(value, (permit, state.fairness.store_turn(&peer).await))),
            Err(error) => Err(Refusal::bad_request(format!("the request is not what {path} takes: {error}"))),
        }
    }
}

fn unread(rejection: &BytesRejection) -> Refusal {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        status => Refusal::new(status, format!("the request could not be read: {}", rejection.body_text())),
    }
}

fn too_large() -> Refusal {
    let sentence = format!("the request is larger than a hub takes ({} MiB)", MAX_BODY_BYTES / 1024 / 1024);
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, sentence)
}
