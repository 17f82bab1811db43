//! What went wrong with a request or a watch, before the backend that it concerns is named.

use hyper::StatusCode;

use crate::detail::Detail;
use crate::hub_protocol::{AMBIGUOUS, ErrorReply, FULL};
use crate::store::StoreError;

/// A [`StoreError`] without its backend, which can be given to each of many keys.
#[derive(Debug, Clone)]
pub(super) enum HubFailure {
    Unreachable(Detail),
    Ambiguous(Detail),
    Full(Detail),
    Refused(Detail),
}

impl HubFailure {
    /// What an answer other than success means. Trouble on the hub's side may pass, and a hub that did not say
    /// otherwise has stored nothing. Only a hub refuses permanently: what answers in its place while it is down
    /// must not cost an event.
    pub(super) fn from_answer(status: StatusCode, body: &[u8]) -> Self {
        match serde_json::from_slice::<ErrorReply>(body) {
            Ok(reply) if status.is_client_error() => Self::Refused(reply.error.into()),
            Ok(reply) if status.as_u16() == AMBIGUOUS => Self::Ambiguous(reply.error.into()),
            Ok(reply) if status.as_u16() == FULL => Self::Full(reply.error.into()),
            Ok(reply) => Self::Unreachable(reply.error.into()),
            Err(error) => {
                let sentence = format!("it answered {status}, which is not a hub's answer");
                Self::Unreachable(Detail::new(sentence, error))
            }
        }
    }

    /// A read that was not answered did nothing.
    pub(super) fn of_read(self) -> Self {
        match self {
            Self::Ambiguous(detail) => Self::Unreachable(detail),
            other => other,
        }
    }

    pub(super) fn of(self, backend: &str) -> StoreError {
        let backend = backend.to_owned();
        match self {
            Self::Unreachable(detail) => StoreError::Unreachable { backend, detail },
            Self::Ambiguous(detail) => StoreError::Ambiguous { backend, detail },
            Self::Full(detail) => StoreError::Full { backend, detail },
            Self::Refused(detail) => StoreError::Refused { backend, detail },
        }
    }
}
