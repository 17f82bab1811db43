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
    /// A hub answered that it does not know the path: it is older than this client.
    UnknownPath(Detail),
}

impl HubFailure {
    /// Returns the meaning of an answer other than success. An error on the hub's side is transient, and unless the hub
    /// says otherwise, it has stored nothing. Only an answer in the hub's own form about the request's own content is a
    /// permanent refusal: another server that answers in its place while the hub is down must not cause the loss of an
    /// event, and neither must a setting of the hub or a hub of another version, which an operator mends.
    pub(super) fn from_answer(status: StatusCode, body: &[u8]) -> Self {
        match serde_json::from_slice::<ErrorReply>(body) {
            Ok(reply) if matches!(status, StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE) => {
                Self::Refused(reply.error.into())
            }
            Ok(reply) if reply.denied => Self::Refused(reply.error.into()),
            Ok(reply) if status.as_u16() == AMBIGUOUS => Self::Ambiguous(reply.error.into()),
            Ok(reply) if status.as_u16() == FULL => Self::Full(reply.error.into()),
            Ok(reply) if status == StatusCode::NOT_FOUND => Self::UnknownPath(reply.error.into()),
            Ok(reply) if status.is_client_error() => {
                Self::Unreachable(format!("it answered {status}: {}", reply.error).into())
            }
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
            Self::Unreachable(detail) | Self::UnknownPath(detail) => {
                StoreError::Unreachable { backend, detail }
            }
            Self::Ambiguous(detail) => StoreError::Ambiguous { backend, detail },
            Self::Full(detail) => StoreError::Full { backend, detail },
            Self::Refused(detail) => StoreError::Refused { backend, detail },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_hub_says_about_the_request_itself_is_final() {
        for status in 400..600 {
            let status = StatusCode::from_u16(status).unwrap();
            let failure = HubFailure::from_answer(status, br#"{"error":"no"}"#);
            let is_final = [400, 413].contains(&status.as_u16());
            assert_eq!(matches!(failure, HubFailure::Refused(_)), is_final, "{status}");
            let stranger = HubFailure::from_answer(status, b"<html>no</html>");
            assert!(matches!(stranger, HubFailure::Unreachable(_)), "{status}");
        }
        let HubFailure::Unreachable(detail) =
            HubFailure::from_answer(StatusCode::FORBIDDEN, br#"{"error":"use that"}"#)
        else {
            panic!("a setting of the hub can be mended")
        };
        assert_eq!(&*detail, "it answered 403 Forbidden: use that");
        let denied = HubFailure::from_answer(StatusCode::FORBIDDEN, br#"{"error":"no","denied":true}"#);
        assert!(matches!(denied, HubFailure::Refused(_)), "{denied:?}");
    }
}
