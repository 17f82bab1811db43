//! A watch of a hub: a WebSocket of its own.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::body::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use super::connections::Turn;
use super::failure::HubFailure;
use super::limits::{LONGEST_LIMIT, MAX_ANSWER_BYTES};
use super::open_watches::{Exchange, IncomingRequests, OutgoingRequest};
use super::requests::{OpenSocket, Requests};
use crate::detail::Detail;
use crate::hub_protocol::{
    MAX_SOCKET_BODY_BYTES, MAX_SOCKET_FRAME_BYTES, RangeForm, SocketRequest, WatchMessage, WatchRequest,
};
use crate::store::{Entry, KeyRange, WatchEvent};

/// How long a watch may wait for its snapshot: ten thousand agents may be asking at once.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(20);
/// The hub pings every 10 s; one that is silent for this long is gone, whatever TCP reports.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(25);
/// The library's own default, 128 KiB each way, would be most of an idle agent's buffers.
const READ_BUFFER_BYTES: usize = 8 * 1024;
/// How much is gathered before it is written: all frames of a message.
const WRITE_BUFFER_BYTES: usize = MAX_SOCKET_BODY_BYTES;

/// How many events of a watch wait for its reader before the socket is no longer read, which makes the hub wait.
const MAX_BACKLOG: usize = 4;
/// How many wait at most, while answers have to be received.
const MAX_UNREAD: usize = 256;
/// How long a request may be waited for after its watch is no longer read.
const LEAVING_TIMEOUT: Duration = LONGEST_LIMIT;

/// The events of a watch, until one is a failure.
pub(super) type Events = mpsc::Receiver<Result<WatchEvent, HubFailure>>;

/// Connects and sends what to watch. The watch ends when the value is dropped.
pub(super) async fn open(
    requests: &Arc<Requests>,
    ranges: Vec<KeyRange>,
    puts_only: bool,
) -> Result<Events, HubFailure> {
    let request = WatchRequest { watch: ranges.into_iter().map(RangeForm::from).collect(), puts_only };
    let request =
        serde_json::to_string(&request).map_err(|error| HubFailure::Refused(Detail::root_cause(error)))?;
    let OpenSocket { socket, takes_requests, turn } = requests.open_socket().await?;
    let mut socket = WebSocketStream::from_raw_socket(socket, Role::Client, Some(socket_config())).await;
    match timeout(SNAPSHOT_TIMEOUT, send_text(&mut socket, request)).await {
        Ok(sent) => sent.map_err(watch_failure)?,
        Err(_) => return Err(silent(SNAPSHOT_TIMEOUT)),
    }
    let client = takes_requests.then(|| Opening { client: Arc::clone(requests), _turn: turn });
    Ok(Session::start(socket, client))
}

/// The client's end of a watch. It has a task of its own, so that answers and pings are received while the reader of the
/// watch is busy, perhaps with a request over this same watch.
struct Session<S> {
    socket: WebSocketStream<S>,
    /// The portions of a snapshot so far.
    snapshot: Vec<Entry>,
    /// Whether the first snapshot has come.
    begun: bool,
    /// When the hub was heard last.
    heard: Instant,
    /// What the reader has not taken.
    backlog: VecDeque<WatchEvent>,
    /// Present until the watch has begun, if the hub takes requests this way.
    opening: Option<Opening>,
    incoming: Option<IncomingRequests>,
    /// The requests that were sent.
    pending: HashMap<u32, (oneshot::Sender<Exchange>, OwnedSemaphorePermit)>,
    latest_id: u32,
}

/// The client whose requests wait for a watch to begin.
struct Opening {
    client: Arc<Requests>,
    _turn: Option<Turn>,
}

/// What happens next to a watch.
enum Step {
    /// The hub is heard; it may have said no more than that.
    Heard(Result<Option<WatchMessage>, HubFailure>),
    Request(OutgoingRequest),
    /// The reader has taken an event.
    Taken,
    /// The reader has gone.
    Left,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Session<S> {
    fn start(socket: WebSocketStream<S>, opening: Option<Opening>) -> Events {
        let (events, reader) = mpsc::channel(1);
        let session = Self {
            socket,
            snapshot: Vec::new(),
            begun: false,
            heard: Instant::now(),
            backlog: VecDeque::new(),
            opening,
            incoming: None,
            pending: HashMap::new(),
            latest_id: 0,
        };
        tokio::spawn(session.run(events));
        reader
    }

    /// Serves the reader until it has gone or the watch has ended, and the requests until they are answered.
    async fn run(mut self, events: mpsc::Sender<Result<WatchEvent, HubFailure>>) {
        let failure = loop {
            match self.step(&events).await {
                Step::Heard(message) => {
                    if let Err(failure) = message.and_then(|message| self.take(message)) {
                        break failure;
                    }
                }
                Step::Request(request) => {
                    if let Err(failure) = self.send(request).await {
                        break failure;
                    }
                }
                Step::Taken => {}
                Step::Left => return self.leave().await,
            }
        };
        let Self { backlog, incoming, pending, socket, opening, .. } = self;
        if let Some(incoming) = incoming {
            not_sent(incoming.close().await);
        }
        // Who waits for an answer learns of it at once: the reader may be one of them.
        drop((pending, socket, opening));
        for event in backlog {
            if events.send(Ok(event)).await.is_err() {
                return;
            }
        }
        let _ = events.send(Err(failure)).await;
    }

    async fn step(&mut self, events: &mpsc::Sender<Result<WatchEvent, HubFailure>>) -> Step {
        let is_read = self.backlog.len() < MAX_BACKLOG || !self.pending.is_empty();
        let patience = if self.begun { SILENCE_TIMEOUT } else { SNAPSHOT_TIMEOUT };
        let silence = self.heard + patience;
        let step = tokio::select! {
            biased;
            () = events.closed() => Step::Left,
            place = events.reserve(), if !self.backlog.is_empty() => {
                if let (Ok(place), Some(event)) = (place, self.backlog.pop_front()) {
                    place.send(Ok(event));
                }
                Step::Taken
            }
            message = next_message(&mut self.socket, silence, patience), if is_read => Step::Heard(message),
            Some(request) = next_request(&mut self.incoming) => Step::Request(request),
        };
        // What was not listened to was not silent.
        if !is_read || matches!(step, Step::Heard(_)) {
            self.heard = Instant::now();
        }
        step
    }

    /// Takes what the hub sent.
    fn take(&mut self, message: Option<WatchMessage>) -> Result<(), HubFailure> {
        match message {
            None => {}
            Some(WatchMessage::Snapshot { entries, complete }) => {
                self.snapshot.extend(entries.into_iter().map(Entry::from));
                if complete {
                    self.backlog.push_back(WatchEvent::Snapshot(std::mem::take(&mut self.snapshot)));
                    self.begun = true;
                    if let Some(opening) = self.opening.take() {
                        self.incoming = Some(opening.client.watches().add());
                    }
                }
            }
            Some(WatchMessage::Changes(_)) if self.backlog.len() >= MAX_UNREAD => {
                return Err(HubFailure::Unreachable(
                    "the watch's changes come faster than they are read".into(),
                ));
            }
            Some(WatchMessage::Changes(changes)) => self.backlog.push_back(changes.into()),
            Some(WatchMessage::Error(sentence)) => return Err(HubFailure::Refused(sentence.into())),
            Some(WatchMessage::Answer(answer)) => {
                // Without a place, its sender has given up.
                if let Some((sender, _place)) = self.pending.remove(&answer.id) {
                    let _ = sender.send(Exchange::Answered(answer));
                }
            }
        }
        if let Some(incoming) = &self.incoming {
            incoming.hub.set(self.backlog.len() < MAX_BACKLOG);
        }
        Ok(())
    }

    /// Sends a request of the client.
    async fn send(&mut self, request: OutgoingRequest) -> Result<(), HubFailure> {
        let OutgoingRequest { path, body, answer, place } = request;
        if answer.is_closed() {
            // Its sender has given up, and may have sent something else since.
            return Ok(());
        }
        self.latest_id = self.latest_id.wrapping_add(1);
        let form = SocketRequest { id: self.latest_id, path: path.to_owned(), body };
        let text =
            serde_json::to_string(&form).map_err(|error| HubFailure::Refused(Detail::root_cause(error)))?;
        self.pending.insert(form.id, (answer, place));
        match timeout(SILENCE_TIMEOUT, send_text(&mut self.socket, text)).await {
            Ok(sent) => sent.map_err(watch_failure),
            Err(_) => Err(silent(SILENCE_TIMEOUT)),
        }
    }

    /// Waits for the answers to what was asked, without a reader.
    async fn leave(mut self) {
        let answers = async {
            if let Some(incoming) = self.incoming.take() {
                let mut asked = incoming.close().await.into_iter();
                while let Some(request) = asked.next() {
                    if self.send(request).await.is_err() {
                        return not_sent(asked);
                    }
                }
            }
            while !self.pending.is_empty() {
                let silence = Instant::now() + SILENCE_TIMEOUT;
                let message = next_message(&mut self.socket, silence, SILENCE_TIMEOUT).await;
                if message.and_then(|message| self.take(message)).is_err() {
                    return;
                }
                self.backlog.clear();
            }
        };
        let _ = timeout(LEAVING_TIMEOUT, answers).await;
    }
}

/// Sends a message in frames of which none is large.
async fn send_text<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    text: String,
) -> tungstenite::Result<()> {
    let mut rest = Bytes::from(text);
    let mut data = Data::Text;
    while rest.len() > MAX_SOCKET_FRAME_BYTES {
        let frame = Frame::message(rest.split_to(MAX_SOCKET_FRAME_BYTES), OpCode::Data(data), false);
        socket.feed(Message::Frame(frame)).await?;
        data = Data::Continue;
    }
    socket.send(Message::Frame(Frame::message(rest, OpCode::Data(data), true))).await
}

/// Has requests posted that the watch did not send.
fn not_sent(requests: impl IntoIterator<Item = OutgoingRequest>) {
    for request in requests {
        let _ = request.answer.send(Exchange::NotSent);
    }
}

/// The next request; never, where requests are not taken.
async fn next_request(incoming: &mut Option<IncomingRequests>) -> Option<OutgoingRequest> {
    match incoming {
        Some(incoming) => incoming.requests.recv().await,
        None => std::future::pending().await,
    }
}

/// The next message of the hub, or nothing but a sign of life: the next poll answers a ping.
async fn next_message<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    silence: Instant,
    patience: Duration,
) -> Result<Option<WatchMessage>, HubFailure> {
    let message = match timeout_at(silence, socket.next()).await {
        Ok(Some(Ok(message))) => message,
        Ok(Some(Err(error))) => return Err(watch_failure(error)),
        Ok(None) => return Err(closed()),
        Err(_) => return Err(silent(patience)),
    };
    match message {
        Message::Close(Some(frame)) => {
            let detail = format!("the hub ended the watch: {}", frame.reason);
            Err(HubFailure::Unreachable(detail.into()))
        }
        Message::Close(None) => Err(closed()),
        Message::Text(text) => serde_json::from_str(&text).map(Some).map_err(|error| {
            HubFailure::Unreachable(Detail::new(format!("it sent what is not a hub's: {error}"), error))
        }),
        _ => Ok(None),
    }
}

fn socket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(Some(MAX_ANSWER_BYTES))
        .max_frame_size(Some(MAX_ANSWER_BYTES))
}

/// A watch that goes on no longer. Nothing was asked that could be half done.
fn watch_failure(error: tungstenite::Error) -> HubFailure {
    match error {
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => closed(),
        error => HubFailure::Unreachable(Detail::root_cause(error)),
    }
}

pub(super) fn closed() -> HubFailure {
    HubFailure::Unreachable("the watch was closed".into())
}

fn silent(patience: Duration) -> HubFailure {
    HubFailure::Unreachable(format!("the watch was silent for {} s", patience.as_secs()).into())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::hub_protocol::READ;

    /// A watch whose handshake is done, and the hub's end of it.
    async fn watch() -> (Events, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (hub, _) = listener.accept().await.unwrap();
        let socket = WebSocketStream::from_raw_socket(client, Role::Client, Some(socket_config())).await;
        (Session::start(socket, None), hub)
    }

    async fn next(watch: &mut Events) -> Result<WatchEvent, HubFailure> {
        watch.recv().await.expect("a watch ends with a failure")
    }

    /// A short unmasked frame, as servers send them.
    fn frame(opcode: u8, payload: &str) -> Vec<u8> {
        [&[0x80 | opcode, u8::try_from(payload.len()).unwrap()], payload.as_bytes()].concat()
    }

    #[tokio::test]
    async fn a_silent_hub_is_given_up_and_a_ping_is_a_sign_of_life() {
        let (mut watch, mut hub) = watch().await;
        hub.write_all(&frame(1, r#"{"snapshot":{"entries":[],"complete":true}}"#)).await.unwrap();
        assert_eq!(next(&mut watch).await.unwrap(), WatchEvent::Snapshot(Vec::new()));
        tokio::time::pause();
        let started = tokio::time::Instant::now();
        let ping = async {
            tokio::time::sleep(Duration::from_secs(20)).await;
            hub.write_all(&frame(9, "")).await.unwrap();
            hub.readable().await.unwrap();
        };
        let (_, ended) = tokio::join!(ping, next(&mut watch));
        let Err(HubFailure::Unreachable(detail)) = ended else { panic!("{ended:?}") };
        assert_eq!(&*detail, "the watch was silent for 25 s");
        assert!(started.elapsed() > Duration::from_secs(40), "25 s after the ping: {:?}", started.elapsed());
        let mut pong = [0; 2];
        hub.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong, [0x8a, 0x80], "a masked pong");
    }

    #[tokio::test]
    async fn a_snapshot_in_portions_is_one_event() {
        let (mut watch, mut hub) = watch().await;
        let portion = |key: &str, complete: bool| {
            let entry = format!(r#"{{"key":"{key}","value":"","revision":1}}"#);
            frame(1, &format!(r#"{{"snapshot":{{"entries":[{entry}],"complete":{complete}}}}}"#))
        };
        hub.write_all(&[portion("a", false), portion("b", true)].concat()).await.unwrap();
        let WatchEvent::Snapshot(entries) = next(&mut watch).await.unwrap() else { panic!("a snapshot") };
        assert_eq!(entries.len(), 2);
        hub.write_all(&frame(1, "garbage")).await.unwrap();
        assert!(
            matches!(next(&mut watch).await, Err(HubFailure::Unreachable(_))),
            "another try may meet a hub"
        );
    }

    #[tokio::test]
    async fn a_request_learns_at_once_that_its_watch_has_failed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        let (mut hub, _) = listener.accept().await.unwrap();
        let socket = WebSocketStream::from_raw_socket(client, Role::Client, Some(socket_config())).await;
        let store = crate::hub::HubStore::connect(&address.to_string()).unwrap();
        let opening = Opening { client: Arc::clone(&store.requests), _turn: None };
        let _reader = Session::start(socket, Some(opening));
        let changes = frame(1, r#"{"changes":[{"deleted":"a"}]}"#);
        let snapshot = frame(1, r#"{"snapshot":{"entries":[],"complete":true}}"#);
        hub.write_all(&[snapshot, changes.clone(), changes].concat()).await.unwrap();
        let body = serde_json::value::to_raw_value(&()).unwrap();
        let place = async {
            loop {
                if let Some(place) = store.requests.watches().place().await {
                    return place;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let place = timeout(Duration::from_secs(5), place).await.unwrap();
        let asked = tokio::spawn(place.exchange(READ, body.clone()));
        assert!(hub.read(&mut [0; 512]).await.unwrap() > 0);
        drop(hub);
        let answered = timeout(Duration::from_secs(5), asked).await.expect("although the watch is not read");
        assert!(matches!(answered.unwrap(), Exchange::Unanswered));
    }
}
