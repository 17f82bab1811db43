//! The JSON body of a request.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use serde::de::DeserializeOwned;
use trigger_store::hub_protocol::MAX_BODY_BYTES;

use super::origin_check;
use super::refusal::Refusal;

/// A JSON body. Anything else is refused in the hub's own form.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        origin_check::check_json(request.headers())?;
        // The limit applies before the reading if the request declares its size, otherwise during it.
        let declared =
            request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if declared.is_some_and(|bytes: u64| bytes > MAX_BODY_BYTES as u64) {
            return Err(too_large());
        }
        let path = request.uri().path().to_owned();
        let body = Bytes::from_request(request, state).await.map_err(|rejection| unread(&rejection))?;
        match serde_json::from_slice(&body) {
            Ok(value) => Ok(Self(value)),
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
