//! A watch of a hub: a WebSocket of its own.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::Uri;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use trigger_core::duration;

use super::failure::HubFailure;
use super::limits::MAX_ANSWER_BYTES;
use super::requests::Requests;
use crate::address::Address;
use crate::connector::{Connection, Connector};
use crate::detail::Detail;
use crate::hub_protocol::{ErrorReply, RangeForm, WATCH, WatchMessage, WatchRequest};
use crate::store::{Entry, KeyRange, WatchEvent};

/// How long a watch may wait for its snapshot: ten thousand agents may be asking at once.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(20);
/// The hub pings every 10 s; one that is silent for this long is gone, whatever TCP reports.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(25);
/// The library's own default, 128 KiB each way, would be most of an idle agent's buffers.
const READ_BUFFER_BYTES: usize = 8 * 1024;

/// The receiving end of a watch.
pub(super) struct Feed {
    socket: WebSocketStream<Connection>,
    /// Whether the first snapshot has come.
    begun: bool,
}

impl Feed {
    /// Connects and sends what to watch.
    pub(super) async fn open(
        connector: &Connector,
        address: &Address,
        requests: &Requests,
        ranges: Vec<KeyRange>,
    ) -> Result<Self, HubFailure> {
        let uri: Uri = format!("ws://{address}{WATCH}")
            .parse()
            .map_err(|error| HubFailure::Refused(Detail::root_cause(error)))?;
        let connection = connector
            .connect(address)
            .await
            .map_err(|error| HubFailure::Unreachable(Detail::root_cause(error)))?;
        let request = WatchRequest { watch: ranges.into_iter().map(RangeForm::from).collect() };
        let request = serde_json::to_string(&request)
            .map_err(|error| HubFailure::Refused(Detail::root_cause(error)))?;
        let opening = async {
            let (mut socket, _) = client_async_with_config(uri, connection, Some(socket_config())).await?;
            socket.send(Message::text(request)).await?;
            Ok(socket)
        };
        match requests.await_watch(opening).await {
            Ok(opened) => opened.map(|socket| Self { socket, begun: false }).map_err(watch_failure),
            Err(limit) => {
                let limit = duration::format_short(limit);
                Err(HubFailure::Unreachable(format!("no answer to a watch within {limit}").into()))
            }
        }
    }

    /// The next event.
    pub(super) async fn next(&mut self) -> Result<WatchEvent, HubFailure> {
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
                WatchMessage::Error(sentence) => return Err(HubFailure::Refused(sentence.into())),
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
                Ok(None) => return Err(closed()),
                Err(_) => {
                    let detail = format!("the watch was silent for {} s", patience.as_secs());
                    return Err(HubFailure::Unreachable(detail.into()));
                }
            };
            match message {
                Message::Close(Some(frame)) => {
                    let detail = format!("the hub ended the watch: {}", frame.reason);
                    return Err(HubFailure::Unreachable(detail.into()));
                }
                Message::Close(None) => return Err(closed()),
                Message::Text(text) => {
                    return serde_json::from_str(&text).map_err(|error| {
                        HubFailure::Unreachable(Detail::new(
                            format!("it sent what is not a hub's: {error}"),
                            error,
                        ))
                    });
                }
                _ => {}
            }
        }
    }
}

fn socket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_ANSWER_BYTES))
        .max_frame_size(Some(MAX_ANSWER_BYTES))
}

/// A watch that cannot be opened or goes on no longer. Nothing was asked that could be half done.
fn watch_failure(error: tungstenite::Error) -> HubFailure {
    match error {
        tungstenite::Error::Http(answer) => {
            let reply = answer.body().as_deref().map(serde_json::from_slice::<ErrorReply>);
            let sentence =
                reply.and_then(Result::ok).map_or_else(String::new, |reply| format!(": {}", reply.error));
            HubFailure::Unreachable(format!("it answered {} to a watch{sentence}", answer.status()).into())
        }
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => closed(),
        error => HubFailure::Unreachable(Detail::root_cause(error)),
    }
}

fn closed() -> HubFailure {
    HubFailure::Unreachable("the watch was closed".into())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    /// A watch whose handshake is done, and the hub's end of it.
    async fn feed() -> (Feed, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (hub, _) = listener.accept().await.unwrap();
        let socket =
            WebSocketStream::from_raw_socket(Connection::Plain(client), Role::Client, Some(socket_config()))
                .await;
        (Feed { socket, begun: false }, hub)
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
        assert_eq!(&*detail, "the watch was silent for 25 s");
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
}
