//! Answers that are not a success: a status for programs and a sentence for people.

use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use trigger_core::authorization::{Denial, DenialKind};
use trigger_store::hub_protocol::{AMBIGUOUS, ErrorReply, FULL};
use trigger_store::store::StoreError;

/// How much a refusal says of an error that quotes its client, in characters.
const MAX_ERROR_CHARS: usize = 400;

/// A refusal: a status for programs and a sentence for people.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) sentence: String,
    /// When the client should try again, if the hub knows.
    retry_after: Option<Duration>,
    /// Whether the client has no right to what it asks for, and must not repeat the request.
    is_denied: bool,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self { status, sentence: sentence.into(), retry_after: None, is_denied: false }
    }

    /// The client asks for more than its share, and may try again after a while.
    pub(crate) fn too_many(sentence: impl Into<String>, retry_after: Duration) -> Self {
        let mut refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, sentence);
        refusal.retry_after = Some(retry_after);
        refusal
    }

    /// The client has no right to what it asks for.
    pub(crate) fn denied(sentence: impl Into<String>) -> Self {
        Self { is_denied: true, ..Self::new(StatusCode::FORBIDDEN, sentence) }
    }

    /// Whether the same request can never succeed.
    pub(crate) fn is_final(&self) -> bool {
        self.is_denied || matches!(self.status, StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE)
    }

    /// What the metrics call the reason of a denial.
    pub(crate) fn reason(&self) -> &'static str {
        match self.status {
            StatusCode::FORBIDDEN => "forbidden",
            StatusCode::CONFLICT => "not_yet",
            StatusCode::PAYLOAD_TOO_LARGE => "too_large",
            StatusCode::TOO_MANY_REQUESTS => "too_much",
            _ => "other",
        }
    }

    /// The body of a request is not what is taken at its path.
    pub(crate) fn not_what_is_taken(path: &str, error: &serde_json::Error) -> Self {
        // It quotes what the client has sent.
        let error: String = error.to_string().chars().take(MAX_ERROR_CHARS).collect();
        Self::bad_request(format!("the request is not what {path} takes: {error}"))
    }

    /// The body of the answer.
    pub(crate) fn into_reply(self) -> ErrorReply {
        ErrorReply { error: self.sentence, denied: self.is_denied }
    }

    /// The request itself is wrong, and must not be repeated.
    pub(crate) fn bad_request(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, sentence)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, retry_after) = (self.status, self.retry_after);
        let mut response = (status, Json(self.into_reply())).into_response();
        if let Some(wait) = retry_after {
            // Whole seconds, at least one: a client that comes back too early is refused again.
            let seconds = wait.as_secs() + 1;
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        match denial.kind {
            DenialKind::Forbidden => Self::denied(denial.sentence),
            DenialKind::NotYet => Self::new(StatusCode::CONFLICT, denial.sentence),
            DenialKind::TooLarge => Self::new(StatusCode::PAYLOAD_TOO_LARGE, denial.sentence),
        }
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
            StoreError::Refused { detail, .. } | StoreError::Denied { detail, .. } => {
                Self::bad_request(detail)
            }
        }
    }
}
