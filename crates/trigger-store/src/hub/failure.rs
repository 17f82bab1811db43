//! The error of a request or a watch, before the name of the backend is added.

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
    /// Returns the meaning of an answer other than success. An error on the hub's side is transient, and unless the hub
    /// says otherwise, it has stored nothing. Only an answer in the hub's own form is a permanent refusal, because
    /// another server that answers in its place while the hub is down must not cause the loss of an event.
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

    /// Converts the failure of a read, which changes nothing even if it was not answered.
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
