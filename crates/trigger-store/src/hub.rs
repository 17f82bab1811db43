//! The client of a hub: requests over kept-alive HTTP connections, each watch over a WebSocket of its own.
//!
//! Nothing is connected before it is needed, and nothing is repeated here: the layers above know what may
//! be repeated. What is sent is in [`crate::hub_protocol`].

use std::error::Error;
use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{SinkExt, StreamExt, stream};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tokio_websockets::{ClientBuilder, Limits, Message, WebSocketStream};
use trigger_core::identity::Revision;

use crate::address::Address;
use crate::connector::{Connection, Connector};
use crate::credentials::Credentials;
use crate::hub_protocol::{
    COMPARE_AND_SWAP, CasReply, CasRequest, DELETE, DeleteReply, DeleteRequest, ErrorReply, MAX_BODY_BYTES,
    NewEntry, PUT, PutReply, PutRequest, READ, RangeForm, ReadReply, ReadRequest, WATCH, WatchMessage,
    WatchRequest,
};
use crate::store::{CasOutcome, Entry, KeyRange, Store, StoreError, Watch, WatchEvent};
use crate::url::BackendUrl;

/// A hub that does not even accept is known to be away after this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a write may take, connecting included: the caller spools what was not answered by then.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// And so much longer for each mebibyte, several of which may be in flight: a busy disk is no absent hub.
const WRITE_TIMEOUT_PER_MIB: Duration = Duration::from_secs(4);
/// How long one page of a read, or the opening of a watch, may take. Longer than a write, since nothing is
/// spooled instead and impatience would only load a busy hub further.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a watch may wait for its snapshot: ten thousand agents may be asking at once.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(20);
/// The hub pings every 10 s; one that is silent for this long is gone, whatever TCP believes.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(25);
/// An agent is idle nearly always: it gives its request connection back soon.
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Of one request's keys and values, in bytes; a larger entry travels alone.
const CHUNK_BYTES: usize = 1024 * 1024;
/// Requests in flight at once.
const IN_FLIGHT: usize = 4;
/// More than any answer or message of a hub: its largest entry and what stands around it.
const MAX_ANSWER_BYTES: usize = MAX_BODY_BYTES + 1024 * 1024;

/// A hub, as a client sees it.
#[derive(Debug)]
pub struct HubStore {
    /// The URL, for people.
    url: String,
    address: Address,
    connector: Connector,
    client: Client<Connector, Full<Bytes>>,
}

impl HubStore {
    /// The hub at the first address of `url`. Connects when first used.
    pub fn new(url: &BackendUrl, connector: Connector) -> Self {
        let connector = connector.with_connect_timeout(CONNECT_TIMEOUT);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_CONNECTION_TIMEOUT)
            .pool_max_idle_per_host(1)
            .pool_timer(TokioTimer::new())
            .build(connector.clone());
        Self { url: url.to_string(), address: url.addresses()[0].clone(), connector, client }
    }

    /// The hub at `HOST:PORT`, over plain connections.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when that is no address.
    pub fn connect(address: &str) -> Result<Self, StoreError> {
        let url = format!("hub+http://{address}");
        let refused = |detail: String| StoreError::Refused { backend: url.clone(), detail };
        let url: BackendUrl = url.parse().map_err(|error| refused(format!("{error}")))?;
        let connector =
            Connector::new(&url, &Credentials::default()).map_err(|error| refused(error.to_string()))?;
        Ok(Self::new(&url, connector))
    }

    async fn read_pages(&self, ranges: &[KeyRange], keys_only: bool) -> Result<Vec<Entry>, StoreError> {
        let ranges = ranges.iter().cloned().map(RangeForm::from).collect();
        let mut request = ReadRequest { ranges, from: None, keys_only };
        let mut entries = Vec::new();
        loop {
            let reply: Result<ReadReply, _> = self.post(READ, &request, READ_TIMEOUT).await;
            let page = reply.map_err(|failure| failure.of_read().of(&self.url))?;
            entries.extend(page.entries.into_iter().map(Entry::from));
            match page.next {
                None => return Ok(entries),
                next => request.from = next,
            }
        }
    }

    async fn post<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        request: &Q,
        patience: Duration,
    ) -> Result<A, HubFailure> {
        match timeout(patience, self.exchange(path, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(HubFailure::Ambiguous(format!("no answer within {} s", patience.as_secs()))),
        }
    }

    async fn exchange<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        request: &Q,
    ) -> Result<A, HubFailure> {
        let refused = |error: &dyn Error| HubFailure::Refused(root_cause(error));
        let body = serde_json::to_vec(request).map_err(|error| refused(&error))?;
        let request = Request::post(format!("{}://{}{path}", self.connector.http_scheme(), self.address))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(body))
            .map_err(|error| refused(&error))?;
        let answer = self.client.request(request).await.map_err(|error| {
            let detail = root_cause(&error);
            if error.is_connect() { HubFailure::Unreachable(detail) } else { HubFailure::Ambiguous(detail) }
        })?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        if !status.is_success() {
            let body = body.map(|collected| collected.to_bytes()).unwrap_or_default();
            return Err(HubFailure::from_answer(status, &body));
        }
        let body = body.map_err(|error| HubFailure::Ambiguous(root_cause(&*error)))?.to_bytes();
        serde_json::from_slice(&body)
            .map_err(|error| HubFailure::Ambiguous(format!("its answer is not a hub's: {error}")))
    }

    /// Sends chunks side by side; after one that the hub did not answer, those not yet sent are not tried.
    async fn put_chunks(&self, chunks: Vec<PutRequest>) -> Vec<Result<Revision, StoreError>> {
        let lost = OnceLock::new();
        let send = |chunk: PutRequest| {
            let lost = &lost;
            async move {
                let count = chunk.entries.len();
                let bytes = chunk.entries.iter().map(|entry| entry.key.len() + entry.value.len()).sum();
                let answer = match lost.get() {
                    Some(detail) => Err(HubFailure::Unreachable(String::clone(detail))),
                    None => self.post::<_, PutReply>(PUT, &chunk, write_timeout(bytes)).await,
                };
                if let Err(HubFailure::Unreachable(detail) | HubFailure::Ambiguous(detail)) = &answer {
                    lost.get_or_init(|| detail.clone());
                }
                self.answer_for_each(count, answer)
            }
        };
        stream::iter(chunks.into_iter().map(send)).buffered(IN_FLIGHT).concat().await
    }

    fn answer_for_each(
        &self,
        count: usize,
        answer: Result<PutReply, HubFailure>,
    ) -> Vec<Result<Revision, StoreError>> {
        let failure = match answer {
            Ok(reply) if reply.revisions.len() == count => {
                return reply.revisions.into_iter().map(|revision| Ok(Revision(revision))).collect();
            }
            Ok(_) => HubFailure::Ambiguous("it answered for another number of keys".to_owned()),
            Err(failure) => failure,
        };
        (0..count).map(|_| Err(failure.clone().of(&self.url))).collect()
    }

    async fn open_watch(&self, ranges: Vec<KeyRange>) -> Result<WebSocketStream<Connection>, HubFailure> {
        let unreachable = |error: &dyn Error| HubFailure::Unreachable(root_cause(error));
        let uri: Uri = format!("ws://{}{WATCH}", self.address)
            .parse()
            .map_err(|error| HubFailure::Refused(root_cause(&error)))?;
        let connection = timeout(CONNECT_TIMEOUT, self.connector.connect(&self.address))
            .await
            .map_err(|error| unreachable(&error))?
            .map_err(|error| unreachable(&*error))?;
        let request = WatchRequest { watch: ranges.into_iter().map(RangeForm::from).collect() };
        let request =
            serde_json::to_string(&request).map_err(|error| HubFailure::Refused(root_cause(&error)))?;
        let limits = Limits::default().max_payload_len(Some(MAX_ANSWER_BYTES));
        let builder = ClientBuilder::from_uri(uri).limits(limits);
        let opening = async {
            let (mut socket, _) = builder.connect_on(connection).await?;
            socket.send(Message::text(request)).await?;
            Ok(socket)
        };
        match timeout(READ_TIMEOUT, opening).await {
            Ok(opened) => opened.map_err(watch_failure),
            Err(_) => Err(HubFailure::Unreachable(format!("no answer within {} s", READ_TIMEOUT.as_secs()))),
        }
    }
}

#[async_trait]
impl Store for HubStore {
    async fn put_many(&self, entries: Vec<(String, String)>) -> Vec<Result<Revision, StoreError>> {
        let entries = entries.into_iter().map(|(key, value)| NewEntry { key, value });
        let chunks = chunks(entries, |entry| entry.key.len() + entry.value.len());
        self.put_chunks(chunks.into_iter().map(|entries| PutRequest { entries }).collect()).await
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        for keys in chunks(keys.into_iter(), String::len) {
            let reply: Result<DeleteReply, _> =
                self.post(DELETE, &DeleteRequest { keys }, WRITE_TIMEOUT).await;
            reply.map_err(|failure| failure.of(&self.url))?;
        }
        Ok(())
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        value: &str,
        expected: Option<Revision>,
    ) -> Result<CasOutcome, StoreError> {
        let request = CasRequest {
            key: key.to_owned(),
            value: value.to_owned(),
            expected: expected.map(|revision| revision.0),
        };
        let reply: Result<CasReply, _> = self.post(COMPARE_AND_SWAP, &request, WRITE_TIMEOUT).await;
        reply.map(CasOutcome::from).map_err(|failure| failure.of(&self.url))
    }

    async fn read(&self, ranges: &[KeyRange]) -> Result<Vec<Entry>, StoreError> {
        self.read_pages(ranges, false).await
    }

    async fn list(&self, ranges: &[KeyRange]) -> Result<Vec<(String, Revision)>, StoreError> {
        let entries = self.read_pages(ranges, true).await?;
        Ok(entries.into_iter().map(|entry| (entry.key, entry.revision)).collect())
    }

    async fn watch(&self, ranges: Vec<KeyRange>) -> Result<Watch, StoreError> {
        let socket = self.open_watch(ranges).await.map_err(|failure| failure.of(&self.url))?;
        let feed = Feed { socket, begun: false };
        let address = self.url.clone();
        let events = stream::unfold(Some((feed, address)), |state| async move {
            let (mut feed, address) = state?;
            match feed.next().await {
                Ok(event) => Some((Ok(event), Some((feed, address)))),
                Err(failure) => Some((Err(failure.of(&address)), None)),
            }
        });
        Ok(Box::pin(events))
    }

    fn address(&self) -> &str {
        &self.url
    }
}

/// The receiving end of a watch.
struct Feed {
    socket: WebSocketStream<Connection>,
    /// Whether the first snapshot has come.
    begun: bool,
}

impl Feed {
    async fn next(&mut self) -> Result<WatchEvent, HubFailure> {
        let mut snapshot = Vec::new();
        loop {
            match self.message().await? {
                WatchMessage::Snapshot { entries, complete } => {
                    snapshot.extend(entries.into_iter().map(Entry::from));
                    if complete {
                        self.begun = true;
                        return Ok(WatchEvent::Snapshot(snapshot));
                    }
                }
                WatchMessage::Changes(changes) => return Ok(changes.into()),
                WatchMessage::Error(sentence) => return Err(HubFailure::Refused(sentence)),
            }
        }
    }

    /// The next message of the hub. Pings count as signs of life, and are answered by the next poll.
    async fn message(&mut self) -> Result<WatchMessage, HubFailure> {
        let patience = if self.begun { SILENCE_TIMEOUT } else { SNAPSHOT_TIMEOUT };
        loop {
            let message = match timeout(patience, self.socket.next()).await {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(error))) => return Err(watch_failure(error)),
                Ok(None) => return Err(HubFailure::Unreachable("the watch was closed".to_owned())),
                Err(_) => {
                    let detail = format!("the watch was silent for {} s", patience.as_secs());
                    return Err(HubFailure::Unreachable(detail));
                }
            };
            if let Some((_, reason)) = message.as_close() {
                return Err(HubFailure::Unreachable(format!("the hub ended the watch: {reason}")));
            }
            if let Some(text) = message.as_text() {
                return serde_json::from_str(text).map_err(|error| {
                    HubFailure::Unreachable(format!("it sent what is not a hub's: {error}"))
                });
            }
        }
    }
}

/// A [`StoreError`] that does not name its backend yet, and can be given to each of many keys.
#[derive(Debug, Clone)]
enum HubFailure {
    Unreachable(String),
    Ambiguous(String),
    Refused(String),
}

impl HubFailure {
    /// What an answer other than success means. Trouble on the hub's side may pass; a hub answers so only
    /// when it has stored nothing. Only a hub refuses for good: what answers in its place while it is down
    /// must not cost an event.
    fn from_answer(status: StatusCode, body: &[u8]) -> Self {
        match serde_json::from_slice::<ErrorReply>(body) {
            Ok(reply) if status.is_client_error() => Self::Refused(reply.error),
            Ok(reply) => Self::Unreachable(reply.error),
            Err(_) => Self::Unreachable(format!("it answered {status}, which is not a hub's answer")),
        }
    }

    /// A read that was not answered did nothing.
    fn of_read(self) -> Self {
        match self {
            Self::Ambiguous(detail) => Self::Unreachable(detail),
            other => other,
        }
    }

    fn of(self, backend: &str) -> StoreError {
        let backend = backend.to_owned();
        match self {
            Self::Unreachable(detail) => StoreError::Unreachable { backend, detail },
            Self::Ambiguous(detail) => StoreError::Ambiguous { backend, detail },
            Self::Refused(detail) => StoreError::Refused { backend, detail },
        }
    }
}

/// A watch that cannot be opened or goes on no longer. Nothing was asked that could be half done.
fn watch_failure(error: tokio_websockets::Error) -> HubFailure {
    use tokio_websockets::Error::Upgrade;
    use tokio_websockets::upgrade::Error::DidNotSwitchProtocols;
    if let Upgrade(DidNotSwitchProtocols(status)) = error {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        return HubFailure::Unreachable(format!("it answered {status} to a watch"));
    }
    HubFailure::Unreachable(root_cause(&error))
}

/// The innermost error: what happened, without the layers it came through.
fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn write_timeout(bytes: usize) -> Duration {
    WRITE_TIMEOUT + WRITE_TIMEOUT_PER_MIB.mul_f64(bytes as f64 / (1024.0 * 1024.0))
}

/// Portions of at most [`CHUNK_BYTES`], of at least one item.
fn chunks<T>(items: impl Iterator<Item = T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut chunks: Vec<Vec<T>> = Vec::new();
    let mut bytes = CHUNK_BYTES;
    for item in items {
        let own = size(&item);
        match chunks.last_mut() {
            Some(chunk) if bytes + own <= CHUNK_BYTES => chunk.push(item),
            _ => {
                chunks.push(vec![item]);
                bytes = 0;
            }
        }
        bytes += own;
    }
    chunks
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn put(store: &HubStore) -> String {
        match store.put_many(vec![("a".to_owned(), "1".to_owned())]).await.remove(0) {
            Ok(revision) => format!("written at {revision}"),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn a_port_nobody_listens_on_is_unreachable_at_once() {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let store = HubStore::connect(&address.to_string()).unwrap();
        let message = put(&store).await;
        assert_eq!(
            message,
            format!("backend hub+http://{address} is unreachable: Connection refused (os error 111)")
        );
        let watch = store.watch(vec![KeyRange::Key("a".to_owned())]).await.err().unwrap();
        assert!(matches!(watch, StoreError::Unreachable { .. }), "{watch}");
    }

    #[tokio::test]
    async fn a_hub_that_never_answers_is_known_within_seconds() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let store = HubStore::connect(&listener.local_addr().unwrap().to_string()).unwrap();
        let started = Instant::now();
        let message = put(&store).await;
        assert!(
            message.ends_with("no answer within 2 s; it may or may not have done what was asked"),
            "{message}"
        );
        assert!(started.elapsed() < Duration::from_secs(3));
    }

    /// A watch whose handshake is done, and the hub's end of it.
    async fn feed() -> (Feed, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (hub, _) = listener.accept().await.unwrap();
        (Feed { socket: ClientBuilder::new().take_over(Connection::Plain(client)), begun: false }, hub)
    }

    /// A short unmasked frame, as servers send them.
    fn frame(opcode: u8, payload: &str) -> Vec<u8> {
        [&[0x80 | opcode, u8::try_from(payload.len()).unwrap()], payload.as_bytes()].concat()
    }

    #[tokio::test]
    async fn a_silent_hub_is_given_up_and_a_ping_is_a_sign_of_life() {
        let (mut feed, mut hub) = feed().await;
        hub.write_all(&frame(1, r#"{"snapshot":{"entries":[],"complete":true}}"#)).await.unwrap();
        assert_eq!(feed.next().await.unwrap(), WatchEvent::Snapshot(Vec::new()));
        tokio::time::pause();
        let started = tokio::time::Instant::now();
        let ping = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            hub.write_all(&frame(9, "")).await.unwrap();
            hub.readable().await.unwrap();
        };
        let (_, ended) = tokio::join!(ping, feed.next());
        let Err(HubFailure::Unreachable(detail)) = ended else { panic!("{ended:?}") };
        assert_eq!(detail, "the watch was silent for 25 s");
        assert!(started.elapsed() > Duration::from_secs(40), "25 s after the ping: {:?}", started.elapsed());
        let mut pong = [0; 2];
        hub.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong, [0x8a, 0x80], "a masked pong");
    }

    #[tokio::test]
    async fn a_snapshot_in_portions_is_one_event() {
        let (mut feed, mut hub) = feed().await;
        let portion = |key: &str, complete: bool| {
            let entry = format!(r#"{{"key":"{key}","value":"","revision":1}}"#);
            frame(1, &format!(r#"{{"snapshot":{{"entries":[{entry}],"complete":{complete}}}}}"#))
        };
        hub.write_all(&[portion("a", false), portion("b", true)].concat()).await.unwrap();
        let WatchEvent::Snapshot(entries) = feed.next().await.unwrap() else { panic!("a snapshot") };
        assert_eq!(entries.len(), 2);
        hub.write_all(&frame(1, "garbage")).await.unwrap();
        assert!(matches!(feed.next().await, Err(HubFailure::Unreachable(_))), "another try may meet a hub");
    }

    #[test]
    fn chunks_are_bounded_and_keep_the_order() {
        let lengths = |sizes: &[usize]| -> Vec<usize> {
            chunks(sizes.iter().copied(), |size| *size).iter().map(Vec::len).collect()
        };
        assert_eq!(lengths(&[]), [0; 0]);
        assert_eq!(lengths(&[1, 2, 3]), [3]);
        assert_eq!(lengths(&[CHUNK_BYTES, 1, CHUNK_BYTES - 1, 1]), [1, 2, 1]);
        assert_eq!(lengths(&[3 * CHUNK_BYTES, 1]), [1, 1], "a large one travels alone");
        assert_eq!(chunks(0..5, |_| CHUNK_BYTES / 2).concat(), [0, 1, 2, 3, 4]);
    }
}
