//! Requests to a hub: one JSON body each way, over an open watch or over kept-alive connections.

use std::pin::pin;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{
    CONNECTION, CONTENT_TYPE, DATE, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use trigger_core::duration;
use trigger_core::identity::Revision;

use super::connections::{Connections, MAX_CONNECTIONS, Turn};
use super::failure::HubFailure;
use super::limits::{CONNECTION_PATIENCE, LONGEST_LIMIT, MAX_ANSWER_BYTES, READ_LIMIT};
use super::open_watches::{Exchange, OpenWatches, Place};
use crate::address::Address;
use crate::clock::ClockDifference;
use crate::connector::{Connector, is_refused_handshake};
use crate::detail::{Detail, causes};
use crate::hub_protocol::{
    ErrorReply, NOT_OVER_A_SOCKET, PUT, PutReply, PutRequest, READ, RangeForm, ReadReply, ReadRequest,
    SocketAnswer, TAKES_REQUESTS, WATCH,
};
use crate::step_limit::StepLimit;
use crate::store::{Entry, KeyRange};

/// The first limit of a write. The caller spools an event whose write was not answered by then.
const WRITE_LIMIT: Duration = Duration::from_secs(2);
/// The additional time for each mebibyte, several of which may be in flight, because a hub with a busy disk is not
/// unreachable.
const WRITE_TIMEOUT_PER_MIB: Duration = Duration::from_secs(4);
/// How long an idle request connection is kept. It is short, because an agent is nearly always idle.
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of keys and values in one request; a larger entry travels alone.
const MAX_CHUNK_BYTES: usize = 1024 * 1024;

/// How many pages of a read may travel over a watch, where they are small. What does not fit on them is read in large ones.
const MAX_SMALL_PAGES: usize = 4;

/// By how much the time of an answer may be later than its date: it has whole seconds, and is made once a second.
const DATE_STEP_MS: u64 = 2_000;

/// The stream of a WebSocket.
pub(super) type Socket = TokioIo<Upgraded>;

/// A connection that has become the WebSocket of a watch.
pub(super) struct OpenSocket {
    pub(super) socket: Socket,
    pub(super) takes_requests: bool,
    /// To be kept until the watch has begun.
    pub(super) turn: Option<Turn>,
}

/// How a request travels.
enum Way {
    Watch(Place),
    Connection(Turn),
}

/// Sends requests to one hub. Connects when it is first used, and repeats nothing.
#[derive(Debug)]
pub(super) struct Requests {
    /// The part of a URL before the path: `http://HOST:PORT`.
    base: String,
    address: Address,
    connector: Connector,
    client: Client<Connector, Full<Bytes>>,
    writes: StepLimit,
    reads: StepLimit,
    clock: Mutex<Option<ClockDifference>>,
    watches: OpenWatches,
    connections: Connections,
}

impl Requests {
    pub(super) fn new(address: &Address, connector: Connector) -> Self {
        let base = format!("{}://{address}", connector.http_scheme());
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_CONNECTION_TIMEOUT)
            // With fewer, requests side by side would close connections that the next ones have to open again.
            .pool_max_idle_per_host(MAX_CONNECTIONS)
            .pool_timer(TokioTimer::new())
            .build(connector.clone());
        let writes = StepLimit::new(WRITE_LIMIT, LONGEST_LIMIT);
        let reads = StepLimit::new(READ_LIMIT, LONGEST_LIMIT);
        Self {
            base,
            address: address.clone(),
            connector: connector.clone(),
            client,
            writes,
            reads,
            clock: Mutex::default(),
            watches: OpenWatches::default(),
            connections: Connections::new(connector),
        }
    }

    /// The open watches that may carry requests.
    pub(super) fn watches(&self) -> &OpenWatches {
        &self.watches
    }

    /// Makes the connection of the next request, unless a watch may carry it.
    pub(super) async fn prepare(&self) {
        if !self.watches.is_any_open() {
            self.connector.prepare(&self.address).await;
        }
    }

    /// Sends one request that changes something, and waits for its answer; `extra` is added to the limit.
    pub(super) async fn write<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &'static str,
        request: &Q,
        extra: Duration,
    ) -> Result<A, HubFailure> {
        self.post(path, request, &self.writes, extra).await
    }

    /// Asks for a document of the hub's own.
    pub(super) async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, HubFailure> {
        let request = Request::get(format!("{}{path}", self.base)).body(Full::default());
        let request = request.map_err(|error| HubFailure::Refused(Detail::root_cause(error)))?;
        self.send(request, &self.reads, Duration::ZERO).await
    }

    async fn post<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &'static str,
        request: &Q,
        limit: &StepLimit,
        extra: Duration,
    ) -> Result<A, HubFailure> {
        let body = encoded(request)?;
        let turn = match self.way(path, &body).await? {
            Way::Connection(turn) => turn,
            Way::Watch(place) => match self.over_watch(place, path, body.clone(), limit, extra).await {
                Some(answer) => return answer,
                None => self.turn().await?,
            },
        };
        self.send_in(turn, self.request(path, body)?, limit, extra).await
    }

    /// Waits until a request can be sent. That is no part of the time that its answer may take: what waits behind many others of this
    /// client says nothing about the hub.
    async fn way(&self, path: &str, body: &RawValue) -> Result<Way, HubFailure> {
        if !OpenWatches::may_carry(path, body) {
            return self.turn().await.map(Way::Connection);
        }
        loop {
            let another = self.watches.added();
            let mut over_watch = pin!(self.watches.place());
            match timeout(CONNECTION_PATIENCE, &mut over_watch).await {
                Ok(Some(place)) => return Ok(Way::Watch(place)),
                Ok(None) => tokio::select! {
                    turn = self.turn() => {
                        let turn = turn?;
                        // Else one was opened meanwhile, perhaps on the connection that this turn was about.
                        if !self.watches.is_any_open() {
                            return Ok(Way::Connection(turn));
                        }
                    }
                    () = another => {}
                },
                Err(_) => tokio::select! {
                    turn = self.turn() => return turn.map(Way::Connection),
                    place = over_watch => {
                        if let Some(place) = place {
                            return Ok(Way::Watch(place));
                        }
                    }
                },
            }
        }
    }

    /// Waits for the turn of a request that no watch carries.
    async fn turn(&self) -> Result<Turn, HubFailure> {
        self.connections.turn().await.ok_or_else(|| {
            let limit = duration::format_short(LONGEST_LIMIT);
            let detail =
                format!("this was not sent: other requests, or their connections, have taken {limit}");
            HubFailure::Unreachable(detail.into())
        })
    }

    /// Sends a request over an open watch. Returns nothing if it has to be posted.
    async fn over_watch<A: DeserializeOwned>(
        &self,
        place: Place,
        path: &'static str,
        body: Box<RawValue>,
        limit: &StepLimit,
        extra: Duration,
    ) -> Option<Result<A, HubFailure>> {
        let (asked_at, hub) = (unix_ms(), place.hub().clone());
        let exchange = place.exchange(path, body);
        match self.connector.await_answer(&self.address, limit, extra, exchange).await {
            Ok(Exchange::NotSent) => None,
            Ok(Exchange::Answered(answer)) if answer.status == NOT_OVER_A_SOCKET => None,
            Ok(Exchange::Answered(answer)) => {
                self.note_clock(asked_at, answer.time, answer.time.saturating_add(1));
                Some(parse_answer(&answer))
            }
            Ok(Exchange::Unanswered) => {
                Some(Err(HubFailure::Ambiguous("the watch that carried the request was closed".into())))
            }
            Err(limit) => {
                hub.set(false);
                Some(Err(no_answer_within(limit)))
            }
        }
    }

    async fn send<A: DeserializeOwned>(
        &self,
        request: Request<Full<Bytes>>,
        limit: &StepLimit,
        extra: Duration,
    ) -> Result<A, HubFailure> {
        let turn = self.turn().await?;
        self.send_in(turn, request, limit, extra).await
    }

    /// Sends a request in a turn that is kept until the answer is there.
    async fn send_in<A: DeserializeOwned>(
        &self,
        _turn: Turn,
        mut request: Request<Full<Bytes>>,
        limit: &StepLimit,
        extra: Duration,
    ) -> Result<A, HubFailure> {
        let connection = capture_connection(&mut request);
        match self.await_answer(connection, limit, extra, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(limit) => Err(no_answer_within(limit)),
        }
    }

    /// Waits for an answer. The time until the request has its connection does not count: the making of one has its own limits.
    async fn await_answer<T>(
        &self,
        mut connection: CaptureConnection,
        limit: &StepLimit,
        extra: Duration,
        answer: impl Future<Output = T>,
    ) -> Result<T, Duration> {
        let mut answer = pin!(answer);
        let connected = async { drop(connection.wait_for_connection_metadata().await) };
        tokio::select! {
            biased;
            answer = &mut answer => return Ok(answer),
            () = connected => {}
        }
        self.connector.await_answer(&self.address, limit, extra, answer).await
    }

    /// How far this machine's clock is from the hub's, as its latest answer showed.
    pub(super) fn clock_difference(&self) -> Option<ClockDifference> {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compare_clocks(&self, asked_at: u64, headers: &HeaderMap) {
        let date = headers.get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let Some(date) = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok()) else { return };
        let earliest = u64::try_from(date.as_millis()).unwrap_or(u64::MAX);
        self.note_clock(asked_at, earliest, earliest.saturating_add(DATE_STEP_MS));
    }

    /// Compares the clocks by the moments at which the hub may have answered.
    fn note_clock(&self, asked_at: u64, earliest: u64, latest: u64) {
        let difference = ClockDifference::observed(asked_at, unix_ms(), earliest, latest);
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = difference;
    }

    /// Makes a connection a WebSocket for a watch: the one that is idle, if there is one. Requests wait for it, if the hub takes
    /// them over it.
    pub(super) async fn open_socket(&self) -> Result<OpenSocket, HubFailure> {
        let turn = self.connections.turn_on_first().await;
        let key = generate_key();
        let mut request = Request::get(format!("{}{WATCH}", self.base))
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key)
            .body(Full::default())
            .map_err(|error| HubFailure::Refused(Detail::root_cause(error)))?;
        let connection = capture_connection(&mut request);
        let opening = self.upgrade(request, &key);
        match self.await_answer(connection, &self.reads, Duration::ZERO, opening).await {
            Ok(opened) => opened.map(|(socket, takes_requests)| OpenSocket { socket, takes_requests, turn }),
            Err(limit) => {
                let limit = duration::format_short(limit);
                Err(HubFailure::Unreachable(format!("no answer to a watch within {limit}").into()))
            }
        }
    }

    /// RFC 6455, 4.1.
    async fn upgrade(&self, request: Request<Full<Bytes>>, key: &str) -> Result<(Socket, bool), HubFailure> {
        let unreachable = |error| HubFailure::Unreachable(Detail::root_cause(error));
        let answer = self.client.request(request).await.map_err(unreachable)?;
        let status = answer.status();
        if status != StatusCode::SWITCHING_PROTOCOLS {
            let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
            let reply = body.ok().map(|body| serde_json::from_slice::<ErrorReply>(&body.to_bytes()));
            let sentence =
                reply.and_then(Result::ok).map_or_else(String::new, |reply| format!(": {}", reply.error));
            return Err(HubFailure::Unreachable(format!("it answered {status} to a watch{sentence}").into()));
        }
        let accepted = answer.headers().get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
        if accepted != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(HubFailure::Unreachable("its answer to a watch is not that of a WebSocket".into()));
        }
        let takes_requests = answer.headers().contains_key(TAKES_REQUESTS);
        let upgraded = hyper::upgrade::on(answer).await;
        let upgraded = upgraded.map_err(|error| HubFailure::Unreachable(Detail::root_cause(error)))?;
        Ok((TokioIo::new(upgraded), takes_requests))
    }

    fn request(&self, path: &str, body: Box<RawValue>) -> Result<Request<Full<Bytes>>, HubFailure> {
        let body = String::from(Box::<str>::from(body));
        Request::post(format!("{}{path}", self.base))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::from(body))
            .map_err(|error| HubFailure::Refused(Detail::root_cause(error)))
    }

    async fn exchange<A: DeserializeOwned>(&self, request: Request<Full<Bytes>>) -> Result<A, HubFailure> {
        let asked_at = unix_ms();
        let answer = self.client.request(request).await.map_err(|error| {
            let is_unread = error.is_connect() || causes(&error).any(is_refused_handshake);
            let failure = if is_unread { HubFailure::Unreachable } else { HubFailure::Ambiguous };
            failure(Detail::root_cause(error))
        })?;
        self.compare_clocks(asked_at, answer.headers());
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        if !status.is_success() {
            let body = body.map(|collected| collected.to_bytes()).unwrap_or_default();
            return Err(HubFailure::from_answer(status, &body));
        }
        let body = body.map_err(|error| HubFailure::Ambiguous(Detail::root_cause(error)))?.to_bytes();
        serde_json::from_slice(&body).map_err(not_a_hubs)
    }

    /// Asks a question that changes nothing; `None` where the hub is older than the question.
    pub(super) async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &'static str,
        request: &Q,
    ) -> Result<Option<A>, HubFailure> {
        match self.post(path, request, &self.reads, Duration::ZERO).await {
            Ok(answer) => Ok(Some(answer)),
            Err(HubFailure::UnknownPath(_)) => Ok(None),
            Err(failure) => Err(failure.of_read()),
        }
    }

    /// All pages of a read; the values are empty if only keys are asked for.
    pub(super) async fn read_pages(
        &self,
        ranges: &[KeyRange],
        keys_only: bool,
    ) -> Result<Vec<Entry>, HubFailure> {
        let ranges = ranges.iter().cloned().map(RangeForm::from).collect();
        let mut request = ReadRequest { ranges, from: None, keys_only };
        let mut entries = Vec::new();
        let mut small_pages = 0;
        loop {
            let reply: Result<ReadReply, _> = if small_pages < MAX_SMALL_PAGES {
                small_pages += 1;
                self.post(READ, &request, &self.reads, Duration::ZERO).await
            } else {
                self.send(self.request(READ, encoded(&request)?)?, &self.reads, Duration::ZERO).await
            };
            let page = reply.map_err(HubFailure::of_read)?;
            entries.extend(page.entries.into_iter().map(Entry::from));
            match page.next {
                None => return Ok(entries),
                next => request.from = next,
            }
        }
    }

    /// Sends one put, and returns the revision of each of its entries.
    pub(super) async fn put(&self, request: &PutRequest) -> Result<Vec<Revision>, HubFailure> {
        let bytes = request.entries.iter().map(|entry| entry.key.len() + entry.value.len()).sum();
        let reply: PutReply = self.write(PUT, request, extra_for(bytes)).await?;
        if reply.revisions.len() != request.entries.len() {
            return Err(HubFailure::Ambiguous("it answered for another number of keys".into()));
        }
        Ok(reply.revisions.into_iter().map(Revision).collect())
    }

    /// Sends chunks side by side, and answers for each entry; after one that the hub did not answer, those not
    /// yet sent are not tried.
    pub(super) async fn put_chunks(&self, chunks: Vec<PutRequest>) -> Vec<Result<Revision, HubFailure>> {
        let lost = OnceLock::new();
        let send = |chunk: PutRequest| {
            let lost = &lost;
            async move {
                let answer = match lost.get() {
                    Some(detail) => Err(HubFailure::Unreachable(Detail::clone(detail))),
                    None => self.put(&chunk).await,
                };
                if let Err(HubFailure::Unreachable(detail) | HubFailure::Ambiguous(detail)) = &answer {
                    lost.get_or_init(|| detail.clone());
                }
                match answer {
                    Ok(revisions) => revisions.into_iter().map(Ok).collect(),
                    Err(failure) => vec![Err(failure); chunk.entries.len()],
                }
            }
        };
        stream::iter(chunks.into_iter().map(send)).buffered(MAX_CONNECTIONS).concat().await
    }
}

fn encoded(request: &impl Serialize) -> Result<Box<RawValue>, HubFailure> {
    serde_json::value::to_raw_value(request).map_err(|error| HubFailure::Refused(Detail::root_cause(error)))
}

/// The meaning of an answer over a watch.
fn parse_answer<A: DeserializeOwned>(answer: &SocketAnswer) -> Result<A, HubFailure> {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if !status.is_success() {
        return Err(HubFailure::from_answer(status, answer.body.get().as_bytes()));
    }
    serde_json::from_str(answer.body.get()).map_err(not_a_hubs)
}

fn not_a_hubs(error: serde_json::Error) -> HubFailure {
    HubFailure::Ambiguous(Detail::new(format!("its answer is not a hub's: {error}"), error))
}

fn no_answer_within(limit: Duration) -> HubFailure {
    HubFailure::Ambiguous(format!("no answer within {}", duration::format_short(limit)).into())
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn extra_for(bytes: usize) -> Duration {
    WRITE_TIMEOUT_PER_MIB.mul_f64(bytes as f64 / (1024.0 * 1024.0))
}

/// Portions of at most [`MAX_CHUNK_BYTES`], of at least one item.
pub(super) fn chunks<T>(items: impl Iterator<Item = T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut chunks: Vec<Vec<T>> = Vec::new();
    let mut bytes = MAX_CHUNK_BYTES;
    for item in items {
        let own = size(&item);
        match chunks.last_mut() {
            Some(chunk) if bytes + own <= MAX_CHUNK_BYTES => chunk.push(item),
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
    use super::*;

    #[test]
    fn chunks_are_bounded_and_keep_the_order() {
        let lengths = |sizes: &[usize]| -> Vec<usize> {
            chunks(sizes.iter().copied(), |size| *size).iter().map(Vec::len).collect()
        };
        assert_eq!(lengths(&[]), [0; 0]);
        assert_eq!(lengths(&[1, 2, 3]), [3]);
        assert_eq!(lengths(&[MAX_CHUNK_BYTES, 1, MAX_CHUNK_BYTES - 1, 1]), [1, 2, 1]);
        assert_eq!(lengths(&[3 * MAX_CHUNK_BYTES, 1]), [1, 1], "a large one travels alone");
        assert_eq!(chunks(0..5, |_| MAX_CHUNK_BYTES / 2).concat(), [0, 1, 2, 3, 4]);
    }
}
