//! The requests of a client that come over the WebSocket of its watch. They pass the same checks as those that are posted, and
//! their answers have the same form. They do not pass the HTTP routes: a fleet that comes back sends nearly all of its requests
//! this way.

use std::sync::Arc;

use axum::http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};
use tokio::task::JoinSet;
use trigger_core::identity::Certname;
use trigger_store::hub_protocol::{
    COMPARE_AND_SWAP, CasReply, DELETE, MAX_SOCKET_BODY_BYTES, MAX_SOCKET_REQUESTS, NOT_OVER_A_SOCKET, PUT,
    READ, SocketAnswer, SocketRequest,
};
use trigger_store::store::StoreError;

use super::caller::Caller;
use super::clock::now;
use super::limits::MAX_SOCKET_PAGE_BYTES;
use super::metrics::kind;
use super::peer::Peer;
use super::refusal::Refusal;
use super::state::ServerState;
use super::turns::Turn;
use super::{fairness, store_requests};

/// The largest message of a client that is a request, in bytes.
const MAX_MESSAGE_BYTES: usize = MAX_SOCKET_BODY_BYTES + 1024;

/// The requests of one session.
#[derive(Default)]
pub(super) struct SocketRequests {
    running: JoinSet<SocketAnswer>,
}

impl SocketRequests {
    /// Begins to answer a request.
    ///
    /// # Errors
    /// A sentence, if the client does not keep to the protocol.
    pub(super) fn begin(
        &mut self,
        message: &str,
        state: &Arc<ServerState>,
        peer: &Peer,
        caller: Option<&Caller>,
    ) -> Result<(), String> {
        self.begin_with(message, |request| answer(request, Arc::clone(state), peer.clone(), caller.cloned()))
    }

    fn begin_with<F: Future<Output = SocketAnswer> + Send + 'static>(
        &mut self,
        message: &str,
        answer: impl FnOnce(SocketRequest) -> F,
    ) -> Result<(), String> {
        if message.len() > MAX_MESSAGE_BYTES {
            return Err(format!("a request over a watch has at most {MAX_MESSAGE_BYTES} bytes"));
        }
        let request = serde_json::from_str(message)
            .map_err(|error| format!("the message is not a request over a watch: {error}"))?;
        if self.running.len() >= MAX_SOCKET_REQUESTS {
            return Err(format!("a watch takes at most {MAX_SOCKET_REQUESTS} requests at once"));
        }
        self.running.spawn(answer(request));
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

async fn answer(
    SocketRequest { id, path, body }: SocketRequest,
    state: Arc<ServerState>,
    peer: Peer,
    caller: Option<Caller>,
) -> SocketAnswer {
    let kind = kind(&path);
    let (status, body) = match serve(&path, body, &state, &peer, caller).await {
        Ok(body) => (StatusCode::OK, body),
        Err(refusal) => (refusal.status, to_raw_value(&refusal.into_reply()).unwrap_or_default()),
    };
    state.metrics.answered(kind, status);
    tracing::debug!(kind, %peer, status = status.as_u16(), "request over a watch answered");
    SocketAnswer { id, status: status.as_u16(), time: now().as_unix_ms(), body }
}

/// Carries a request out, once its sender may send it.
async fn serve(
    path: &str,
    body: Box<RawValue>,
    state: &Arc<ServerState>,
    peer: &Peer,
    caller: Option<Caller>,
) -> Result<Box<RawValue>, Refusal> {
    fairness::take(&state.metrics, peer, body.get().len() as u64).await?;
    match path {
        PUT => {
            let (request, turn) = parse(path, body, state, peer).await?;
            encode(peer, &store_requests::put(Arc::clone(state), caller, request, turn).await?)
        }
        DELETE => {
            let (request, _turn) = parse(path, body, state, peer).await?;
            encode(peer, &store_requests::delete(state, caller.as_ref(), request).await?)
        }
        COMPARE_AND_SWAP => {
            let (request, turn) = parse(path, body, state, peer).await?;
            let reply = store_requests::compare_and_swap(Arc::clone(state), caller, request, turn).await?;
            let has_written = matches!(reply, CasReply::Written(_));
            let encoded = encode(peer, &reply)?;
            if has_written { Ok(encoded) } else { fitting(encoded) }
        }
        READ => {
            let (request, _turn) = parse(path, body, state, peer).await?;
            let reply = store_requests::read(state, caller.as_ref(), request, MAX_SOCKET_PAGE_BYTES).await?;
            fitting(encode(peer, &reply)?)
        }
        _ => Err(not_over_a_socket("this is not served over a WebSocket")),
    }
}

/// Parses a body, and then waits for its sender's turn at the store.
async fn parse<T: DeserializeOwned>(
    path: &str,
    body: Box<RawValue>,
    state: &ServerState,
    peer: &Peer,
) -> Result<(T, Option<Turn<Certname>>), Refusal> {
    let parsed = serde_json::from_str(body.get());
    drop(body);
    let request = parsed.map_err(|error| Refusal::not_what_is_taken(path, &error))?;
    Ok((request, state.fairness.store_turn(peer).await))
}

/// Encodes an answer, which costs its client what it would cost if it was posted, also if it does not fit.
fn encode(peer: &Peer, reply: &impl Serialize) -> Result<Box<RawValue>, Refusal> {
    let encoded = to_raw_value(reply).map_err(|error| {
        tracing::error!(%error, "cannot encode an answer");
        // It may have been a write.
        let detail = format!("the hub could not encode its answer: {error}").into();
        StoreError::Ambiguous { backend: String::new(), detail }
    })?;
    fairness::charge(peer, encoded.get().len() as u64);
    Ok(encoded)
}

/// The answer to a request that wrote nothing, and may be posted where its answer is too large.
fn fitting(body: Box<RawValue>) -> Result<Box<RawValue>, Refusal> {
    if body.get().len() > MAX_SOCKET_BODY_BYTES {
        return Err(not_over_a_socket("the answer is too large for a WebSocket"));
    }
    Ok(body)
}

fn not_over_a_socket(sentence: &str) -> Refusal {
    Refusal::new(StatusCode::from_u16(NOT_OVER_A_SOCKET).unwrap_or(StatusCode::MISDIRECTED_REQUEST), sentence)
}

#[cfg(test)]
mod tests {
    use axum::extract::ConnectInfo;
    use axum::http::Extensions;
    use tokio::sync::watch;
    use tokio::time::Instant;
    use trigger_store::hub_protocol::WHY;
    use trigger_store::memory::MemoryStore;
    use trigger_store::store::Store;

    use super::*;
    use crate::server::connections::{Client, Node, Standing};
    use crate::server::metrics::Metrics;
    use crate::server::principal::Principal;
    use crate::server::shares::tests::open_connection;

    fn begin(requests: &mut SocketRequests, path: &str, body: &str) -> Result<(), String> {
        let message = format!(r#"{{"id":1,"path":"{path}","body":{body}}}"#);
        requests.begin_with(&message, |_| std::future::pending())
    }

    #[tokio::test]
    async fn a_request_is_bounded_and_so_is_their_number() {
        let mut requests = SocketRequests::default();
        let body = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        let around = r#"{"id":1,"path":"/v1/read","body":}"#.len();
        assert_eq!(begin(&mut requests, READ, &body(MAX_MESSAGE_BYTES - around)), Ok(()));
        let error = begin(&mut requests, READ, &body(MAX_MESSAGE_BYTES - around + 1)).unwrap_err();
        assert_eq!(error, "a request over a watch has at most 33792 bytes");
        for _ in 1..MAX_SOCKET_REQUESTS {
            assert_eq!(begin(&mut requests, READ, "{}"), Ok(()));
        }
        let error = begin(&mut requests, READ, "{}").unwrap_err();
        assert_eq!(error, "a watch takes at most 4 requests at once");
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused() {
        let mut requests = SocketRequests::default();
        let error = begin(&mut requests, READ, "{").unwrap_err();
        assert!(error.starts_with("the message is not a request over a watch: "), "{error}");
        assert!(requests.running.is_empty());
    }

    fn state(store: MemoryStore) -> Arc<ServerState> {
        let store = Arc::new(store);
        let metrics = Arc::new(Metrics::new(&*store));
        Arc::new(ServerState::new(store, metrics, None, watch::channel(()).1))
    }

    #[tokio::test]
    async fn what_is_not_served_here_has_to_be_posted() {
        let state = state(MemoryStore::default());
        let peer = Peer::of(&Extensions::new());
        for (path, body, status, answer) in [
            (READ, r#"{"ranges":[]}"#, 200, r#"{"entries":[],"next":null}"#),
            (READ, "{}", 400, r#"{"error":"the request is not what /v1/read takes: missing field"#),
            (WHY, "{}", 421, r#"{"error":"this is not served over a WebSocket"}"#),
            ("no path", "{}", 421, r#"{"error":"this is not served over a WebSocket"}"#),
        ] {
            let mut requests = SocketRequests::default();
            let message = format!(r#"{{"id":7,"path":"{path}","body":{body}}}"#);
            requests.begin(&message, &state, &peer, None).unwrap();
            let given = requests.next().await;
            assert_eq!((given.id, given.status), (7, status), "{path}: {}", given.body);
            assert!(given.body.get().starts_with(answer), "{path}: {}", given.body);
        }
        let counted = state.metrics.text();
        for line in [
            r#"requests_total{kind="read",result="ok"} 1"#,
            r#"requests_total{kind="read",result="refused"} 1"#,
            r#"requests_total{kind="why",result="refused"} 1"#,
            r#"requests_total{kind="other",result="refused"} 1"#,
        ] {
            assert!(counted.contains(line), "{counted}");
        }
    }

    /// A client that reads what is large over its watch makes the hub work as much as one that posts its requests.
    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_too_large_costs_its_client_as_much_as_one_that_is_given() {
        let store = MemoryStore::default();
        store.put_many(vec![("/large".to_owned(), "x".repeat(8 * 1024 * 1024))]).await;
        let state = state(store);
        let open = open_connection();
        let principal = Principal(Arc::clone(&open.live.presented.peer));
        let node = Node { principal, share: Arc::clone(&open.share) };
        let mut extensions = Extensions::new();
        let address = open.live.address;
        extensions.insert(ConnectInfo(Client { address, standing: Standing::Ordinary, node: Some(node) }));
        let peer = Peer::of(&extensions);
        let begun = Instant::now();
        for _ in 0..8 {
            let mut requests = SocketRequests::default();
            let message = r#"{"id":7,"path":"/v1/read","body":{"ranges":[{"key":"/large"}]}}"#;
            requests.begin(message, &state, &peer, None).unwrap();
            assert_eq!(requests.next().await.status, NOT_OVER_A_SOCKET);
        }
        // Each answer counts as 128 requests. 400 are free at once, and 100 more each second.
        assert_eq!(begun.elapsed().as_secs(), (8 + 7 * 128 - 400) / 100);
    }
}
