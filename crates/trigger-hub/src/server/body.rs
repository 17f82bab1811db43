//! The JSON body of a request.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use trigger_core::identity::Certname;
use trigger_store::hub_protocol::MAX_BODY_BYTES;

use super::fairness::{BodyPermit, declared_bytes};
use super::origin_check;
use super::peer::Peer;
use super::refusal::Refusal;
use super::shares::TOKEN_BYTES;
use super::state::ServerState;
use super::turns::Turn;

/// A JSON body, and its sender's turn at the store, which lasts until the request is answered. Anything else is refused
/// in the hub's own form.
pub(super) struct Body<T>(pub(super) T, pub(super) Held<Option<Turn<Certname>>>);

/// The same of a question, whose sender has a turn among those who ask.
pub(super) struct InquiryBody<T>(
    pub(super) T,
    #[expect(dead_code, reason = "it is held")] Held<Turn<Option<Certname>>>,
);

/// What a request holds until it is answered.
pub(super) type Held<T> = (BodyPermit, T);

impl<T: DeserializeOwned + Send> FromRequest<Arc<ServerState>> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &Arc<ServerState>) -> Result<Self, Refusal> {
        let (value, permit, peer) = receive(request, state).await?;
        // After the body, since a client that sends slowly must not hold up the store.
        let turn = state.fairness.store_turn(&peer).await;
        Ok(Self(value, (permit, turn)))
    }
}

impl<T: DeserializeOwned + Send> FromRequest<Arc<ServerState>> for InquiryBody<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &Arc<ServerState>) -> Result<Self, Refusal> {
        let (value, permit, peer) = receive(request, state).await?;
        let turn = state.fairness.inquiry_turn(&peer).await;
        Ok(Self(value, (permit, turn)))
    }
}

/// Receives and parses a body.
async fn receive<T: DeserializeOwned>(
    request: Request,
    state: &ServerState,
) -> Result<(T, BodyPermit, Peer), Refusal> {
    origin_check::check_json(request.headers())?;
    let declared = declared_bytes(request.headers());
    if declared.is_some_and(|bytes| bytes > MAX_BODY_BYTES as u64) {
        return Err(too_large());
    }
    let peer = Peer::of(request.extensions());
    let permit = state.fairness.body_permit(&peer, request.headers()).await;
    let path = request.uri().path().to_owned();
    // What was declared has been paid for.
    let payer = peer.share().filter(|_| declared.is_none());
    let body =
        read(request.into_body(), |bytes| payer.into_iter().for_each(|share| share.charge(bytes))).await?;
    match serde_json::from_slice(&body) {
        Ok(value) => Ok((value, permit, peer)),
        Err(error) => Err(Refusal::not_what_is_taken(&path, &error)),
    }
}

/// Reads a body of at most [`MAX_BODY_BYTES`], and reports its bytes as they come, in the portions that are paid for.
async fn read(body: axum::body::Body, mut report: impl FnMut(u64)) -> Result<Vec<u8>, Refusal> {
    let mut frames = body.into_data_stream();
    let (mut received, mut reported) = (Vec::new(), 0);
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|error| {
            Refusal::new(StatusCode::BAD_REQUEST, format!("the request could not be read: {error}"))
        })?;
        if received.len() + frame.len() > MAX_BODY_BYTES {
            return Err(too_large());
        }
        received.extend_from_slice(&frame);
        let whole = received.len() as u64 / TOKEN_BYTES * TOKEN_BYTES;
        if whole > reported {
            report(whole - reported);
            reported = whole;
        }
    }
    Ok(received)
}

fn too_large() -> Refusal {
    let sentence = format!("the request is larger than a hub takes ({} MiB)", MAX_BODY_BYTES / 1024 / 1024);
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, sentence)
}

#[cfg(test)]
mod tests {
    use axum::body::{Body as Stream, Bytes};
    use futures_util::stream;

    use super::*;

    /// What is reported of a body that comes in frames of these sizes, and whether it is read.
    async fn check(frames: &[usize], expected: &[u64], is_read: bool) {
        let frames: Vec<Result<Bytes, std::io::Error>> =
            frames.iter().map(|size| Ok(Bytes::from(vec![b'x'; *size]))).collect();
        let mut reported = Vec::new();
        let read = read(Stream::from_stream(stream::iter(frames)), |bytes| reported.push(bytes)).await;
        assert_eq!((&reported[..], read.is_ok()), (expected, is_read));
    }

    #[tokio::test]
    async fn a_body_is_reported_as_it_comes_and_has_a_largest_size() {
        const PORTION: usize = TOKEN_BYTES as usize;
        check(&[], &[], true).await;
        check(&[10, 20], &[], true).await;
        check(
            &[PORTION - 1, 1, PORTION, 3 * PORTION + 5],
            &[TOKEN_BYTES, TOKEN_BYTES, 3 * TOKEN_BYTES],
            true,
        )
        .await;
        let half = MAX_BODY_BYTES / 2;
        check(&[half, half], &[half as u64, half as u64], true).await;
        check(&[half, half, 1], &[half as u64, half as u64], false).await;
    }
}
