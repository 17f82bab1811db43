//! Answers that are not a success: a status for programs and a sentence for people.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use trigger_store::hub_protocol::{AMBIGUOUS, ErrorReply, FULL};
use trigger_store::store::StoreError;

/// A refusal: a status for programs and a sentence for people.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) sentence: String,
    /// When the client should try again, if the hub knows.
    retry_after: Option<Duration>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self { status, sentence: sentence.into(), retry_after: None }
    }

    /// The client asks for more than its share, and may try again after a while.
    pub(crate) fn too_many(sentence: impl Into<String>, retry_after: Duration) -> Self {
        let mut refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, sentence);
        refusal.retry_after = Some(retry_after);
        refusal
    }

    /// The request itself is wrong, and must not be repeated.
    pub(crate) fn bad_request(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, sentence)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(ErrorReply { error: self.sentence })).into_response();
        if let Some(wait) = self.retry_after {
            // Whole seconds, at least one: a client that comes back too early is refused again.
            let seconds = wait.as_secs() + 1;
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// Describes a store's error without the store's own address, because the client names the hub as its backend.
impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let status = |code| StatusCode::from_u16(code).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        match error {
            StoreError::Unreachable { detail, .. } => Self::new(StatusCode::SERVICE_UNAVAILABLE, detail),
            StoreError::Ambiguous { detail, .. } => Self::new(status(AMBIGUOUS), detail),
            StoreError::Full { detail, .. } => Self::new(status(FULL), detail),
            StoreError::Refused { detail, .. } => Self::bad_request(detail),
        }
    }
}
