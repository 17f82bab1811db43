//! The requests of a client that come over the WebSocket of its watch. They pass the same checks as those that are posted, and
//! share their answers' form.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, FromRequestParts, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use serde_json::value::{RawValue, to_raw_value};
use tokio::task::JoinSet;
use tower_service::Service;
use trigger_store::hub_protocol::{
    ErrorReply, MAX_SOCKET_BODY_BYTES, MAX_SOCKET_REQUESTS, NOT_OVER_A_SOCKET, SocketAnswer, SocketRequest,
};

use super::caller::Caller;
use super::clock::now;
use super::limits::{MAX_PAGE_BYTES, MAX_SOCKET_PAGE_BYTES};
use super::peer::Peer;
use super::refusal::Refusal;

/// The largest message of a client that is a request, in bytes.
const MAX_MESSAGE_BYTES: usize = MAX_SOCKET_BODY_BYTES + 1024;

/// The routes that are served over a WebSocket.
#[derive(Clone)]
pub(super) struct SocketRoutes(pub(super) Router);

/// Marks a request that came over a WebSocket.
#[derive(Debug, Clone, Copy)]
struct OverSocket;

/// The size of one page of a read, in bytes of keys and values.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageBytes(pub(super) usize);

impl<S: Sync> FromRequestParts<S> for PageBytes {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let is_over_socket = parts.extensions.get::<OverSocket>().is_some();
        Ok(Self(if is_over_socket { MAX_SOCKET_PAGE_BYTES } else { MAX_PAGE_BYTES }))
    }
}

/// The requests of one session.
pub(super) struct SocketRequests {
    routes: SocketRoutes,
    running: JoinSet<SocketAnswer>,
}

impl SocketRequests {
    pub(super) fn new(routes: SocketRoutes) -> Self {
        Self { routes, running: JoinSet::new() }
    }

    /// Begins to answer a request.
    ///
    /// # Errors
    /// A sentence, if the client does not keep to the protocol.
    pub(super) fn begin(
        &mut self,
        message: &str,
        peer: &Peer,
        caller: Option<&Caller>,
    ) -> Result<(), String> {
        if message.len() > MAX_MESSAGE_BYTES {
            return Err(format!("a request over a watch has at most {MAX_MESSAGE_BYTES} bytes"));
        }
        let SocketRequest { id, path, body } = serde_json::from_str(message)
            .map_err(|error| format!("the message is not a request over a watch: {error}"))?;
        let uri: Uri = path
            .parse()
            .map_err(|error| format!("what a request over a watch is for is not a path: {error}"))?;
        if self.running.len() >= MAX_SOCKET_REQUESTS {
            return Err(format!("a watch takes at most {MAX_SOCKET_REQUESTS} requests at once"));
        }
        let body = String::from(Box::<str>::from(body));
        let mut request = Request::new(Body::empty());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request.headers_mut().insert(CONTENT_LENGTH, body.len().into());
        request.extensions_mut().insert(OverSocket);
        if let Some(client) = peer.client() {
            request.extensions_mut().insert(ConnectInfo(client.clone()));
        }
        if let Some(caller) = caller {
            request.extensions_mut().insert(caller.actor.clone());
        }
        *request.body_mut() = Body::from(body);
        let mut routes = self.routes.0.clone();
        self.running.spawn(async move {
            let Ok(response) = routes.call(request).await;
            let status = response.status();
            let whole = to_bytes(response.into_body(), MAX_SOCKET_BODY_BYTES).await.ok();
            let text = whole.and_then(|bytes| String::from_utf8(bytes.into()).ok());
            match text.and_then(|text| RawValue::from_string(text).ok()) {
                Some(body) => answer(id, status.as_u16(), body),
                None => not_over_a_socket(id, "the answer is too large for a WebSocket"),
            }
        });
        Ok(())
    }

    /// The next answer; never, while none is due.
    pub(super) async fn next(&mut self) -> SocketAnswer {
        match self.remaining().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    /// The next answer; nothing once all are given.
    pub(super) async fn remaining(&mut self) -> Option<SocketAnswer> {
        loop {
            match self.running.join_next().await? {
                Ok(answer) => return Some(answer),
                Err(error) => tracing::error!(%error, "a request over a watch was not answered"),
            }
        }
    }
}

/// What is not served over a WebSocket.
pub(super) async fn not_served() -> Refusal {
    let status = StatusCode::from_u16(NOT_OVER_A_SOCKET).unwrap_or(StatusCode::NOT_FOUND);
    Refusal::new(status, "this is not served over a WebSocket")
}

fn not_over_a_socket(id: u32, sentence: &str) -> SocketAnswer {
    let reply = ErrorReply { error: sentence.to_owned(), denied: false };
    let body = to_raw_value(&reply).unwrap_or_default();
    answer(id, NOT_OVER_A_SOCKET, body)
}

fn answer(id: u32, status: u16, body: Box<RawValue>) -> SocketAnswer {
    SocketAnswer { id, status, time: now().as_unix_ms(), body }
}

#[cfg(test)]
mod tests {
    use axum::routing::post;

    use super::*;

    /// Requests of which none is answered.
    fn requests() -> SocketRequests {
        let never = post(std::future::pending::<()>);
        SocketRequests::new(SocketRoutes(Router::new().route("/v1/read", never)))
    }

    fn begin(requests: &mut SocketRequests, path: &str, body: &str) -> Result<(), String> {
        let peer = Peer::of(&axum::http::Extensions::new());
        requests.begin(&format!(r#"{{"id":1,"path":"{path}","body":{body}}}"#), &peer, None)
    }

    #[tokio::test]
    async fn a_request_is_bounded_and_so_is_their_number() {
        let mut requests = requests();
        let body = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        let around = r#"{"id":1,"path":"/v1/read","body":}"#.len();
        assert_eq!(begin(&mut requests, "/v1/read", &body(MAX_MESSAGE_BYTES - around)), Ok(()));
        let error = begin(&mut requests, "/v1/read", &body(MAX_MESSAGE_BYTES - around + 1)).unwrap_err();
        assert_eq!(error, "a request over a watch has at most 33792 bytes");
        for _ in 1..MAX_SOCKET_REQUESTS {
            assert_eq!(begin(&mut requests, "/v1/read", "{}"), Ok(()));
        }
        let error = begin(&mut requests, "/v1/read", "{}").unwrap_err();
        assert_eq!(error, "a watch takes at most 4 requests at once");
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused() {
        let mut requests = requests();
        let error = begin(&mut requests, "no path", "{}").unwrap_err();
        assert!(error.starts_with("what a request over a watch is for is not a path: "), "{error}");
        let error = begin(&mut requests, "/v1/read", "{").unwrap_err();
        assert!(error.starts_with("the message is not a request over a watch: "), "{error}");
        assert!(requests.running.is_empty());
    }
}
