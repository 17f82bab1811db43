//! One watch: a WebSocket, a watch of the store, and the task between them, which answers the client's requests besides. A session that ends leaves nothing
//! to clean up: its client reconnects and begins with a snapshot.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures_util::StreamExt;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use trigger_store::hub_protocol::{ChangeForm, EntryForm, WatchMessage, WatchRequest};
use trigger_store::store::{Change, Entry, KeyRange, StoreError};

use super::caller::Caller;
use super::limits::check_ranges;
use super::metrics::OpenWatch;
use super::peer::Peer;
use super::refusal::Refusal;
use super::socket_requests::SocketRequests;
use super::state::ServerState;
use crate::portion::portion;
use crate::served_store::{PagedEvent, PagedWatch};
use crate::watchers::size_of_change;

/// How long a client may take to send the ranges that it watches.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a session pings its client. It is often, because neither end notices a link that drops packets: TCP
/// retransmits at ever longer intervals, so after an outage of a minute an event could be delayed by another minute.
/// Clients give a silent hub up after 25 s, so one ping may get lost.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// After this many unanswered pings in a row a client counts as gone.
const MAX_UNANSWERED_PINGS: u32 = 2;
/// After accepting no data for this long a client counts as gone too.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a watch that ends waits for the answers to its client's requests.
const ANSWERING_TIMEOUT: Duration = Duration::from_secs(2);
/// The size of one message, in bytes of the keys and values of its entries or changes. The session's buffer keeps its
/// size after a message was sent, so this bounds the memory of an idle session.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// The longest reason in a close frame (RFC 6455, 5.5: a control frame holds 125 bytes, two of them the code).
const MAX_CLOSE_REASON_BYTES: usize = 123;

/// The reason why a session ends.
enum SessionEnd {
    /// The client is gone, or has closed the session.
    Gone,
    /// The client may come back: a WebSocket close code, and why.
    Closed(u16, String),
    /// The client must not repeat the request.
    Refused(String),
}

impl SessionEnd {
    fn closed(code: u16, reason: &str) -> Self {
        Self::Closed(code, reason.to_owned())
    }
}

/// Describes a store's error without the store's own address, because the client names the hub as its backend.
impl From<StoreError> for SessionEnd {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused { detail, .. } | StoreError::Denied { detail, .. } => {
                Self::Refused(detail.into())
            }
            StoreError::Unreachable { detail, .. }
            | StoreError::Ambiguous { detail, .. }
            | StoreError::Full { detail, .. } => Self::Closed(close_code::AGAIN, detail.into()),
        }
    }
}

impl From<Refusal> for SessionEnd {
    fn from(refusal: Refusal) -> Self {
        if refusal.is_final() {
            Self::Refused(refusal.sentence)
        } else {
            Self::Closed(close_code::AGAIN, refusal.sentence)
        }
    }
}

/// Serves one watch to its end. A block, and what happens once is boxed: the task of an idle watch, of which a hub has thousands,
/// is small, and an async function would keep its arguments twice.
pub(super) fn serve(
    mut socket: WebSocket,
    state: Arc<ServerState>,
    peer: Peer,
    caller: Option<Caller>,
) -> impl Future<Output = ()> + Send {
    let mut requests = SocketRequests::default();
    async move {
        let end = match watch(&mut socket, &state, &peer, caller.as_ref(), &mut requests).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        Box::pin(close(&mut socket, &mut requests, end)).await;
    }
}

/// Answers what is still asked, and closes the session.
async fn close(socket: &mut WebSocket, requests: &mut SocketRequests, end: SessionEnd) {
    if !matches!(end, SessionEnd::Gone) {
        let _ = timeout(ANSWERING_TIMEOUT, answer_all(socket, requests)).await;
    }
    let close = match end {
        SessionEnd::Gone => return,
        SessionEnd::Closed(code, reason) => CloseFrame { code, reason: close_reason(reason).into() },
        SessionEnd::Refused(sentence) => {
            if send(socket, &WatchMessage::Error(sentence)).await.is_err() {
                return;
            }
            CloseFrame { code: close_code::POLICY, reason: "refused".into() }
        }
    };
    let _ = timeout(SEND_TIMEOUT, socket.send(Message::Close(Some(close)))).await;
}

/// Truncates a reason to the length that a close frame can hold.
fn close_reason(mut reason: String) -> String {
    let end = (0..=MAX_CLOSE_REASON_BYTES).rev().find(|end| reason.is_char_boundary(*end));
    reason.truncate(end.unwrap_or_default());
    reason
}

/// Serves a watch.
async fn watch(
    socket: &mut WebSocket,
    state: &Arc<ServerState>,
    peer: &Peer,
    caller: Option<&Caller>,
    requests: &mut SocketRequests,
) -> Result<Infallible, SessionEnd> {
    let mut stopping = state.stopping.clone();
    let stopped = || SessionEnd::closed(close_code::AWAY, "the hub is stopping");
    let (_counted, mut events) = tokio::select! {
        begun = Box::pin(begin(socket, state, peer, caller)) => begun?,
        _ = stopping.changed() => return Err(stopped()),
    };
    tracing::debug!(%peer, "watch began");
    let mut pings = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unanswered = 0;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => drop(Box::pin(send_event(socket, event)).await?),
                Some(Err(error)) => {
                    tracing::debug!(%peer, %error, "the store ended a watch");
                    return Err(error.into());
                }
                None => return Err(SessionEnd::closed(close_code::AGAIN, "the store ended the watch")),
            },
            message = socket.recv() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(SessionEnd::Gone),
                Some(Ok(message)) => {
                    unanswered = 0;
                    if let Message::Text(request) = message {
                        requests.begin(&request, state, peer, caller).map_err(SessionEnd::Refused)?;
                    }
                }
            },
            answer = requests.next() => Box::pin(send(socket, &WatchMessage::Answer(answer))).await?,
            _ = pings.tick() => {
                if unanswered == MAX_UNANSWERED_PINGS {
                    return Err(SessionEnd::Gone);
                }
                unanswered += 1;
                Box::pin(deliver(socket, Message::Ping(Vec::new().into()))).await?;
            }
            _ = stopping.changed() => return Err(stopped()),
        }
    }
}

/// Answers what was asked before a watch ends, as over HTTP.
async fn answer_all(socket: &mut WebSocket, requests: &mut SocketRequests) {
    while let Some(answer) = requests.remaining().await {
        if send(socket, &WatchMessage::Answer(answer)).await.is_err() {
            return;
        }
    }
}

/// Begins the watch that a client asks for, and sends its snapshot.
async fn begin(
    socket: &mut WebSocket,
    state: &ServerState,
    peer: &Peer,
    caller: Option<&Caller>,
) -> Result<(OpenWatch, PagedWatch), SessionEnd> {
    let (ranges, puts_only) = requested_ranges(socket).await?;
    if let Some(check) = state.check(caller, "watch")? {
        check.watch(&ranges).await?;
    }
    let counted = state.metrics.open_watch();
    // A page of a snapshot is held until it is sent.
    let _permit = timeout(REQUEST_TIMEOUT, state.fairness.snapshot_permit(peer)).await.map_err(|_| {
        SessionEnd::closed(close_code::AGAIN, "this node has not taken the snapshots of its other watches")
    })?;
    let cannot_begin = |error: StoreError| {
        tracing::warn!(%peer, %error, "cannot begin a watch");
        SessionEnd::from(error)
    };
    let turn = state.fairness.store_turn(peer).await;
    let mut events = state.store.watch_in_pages(ranges, puts_only).await.map_err(cannot_begin)?;
    drop(turn);
    loop {
        let turn = state.fairness.store_turn(peer).await;
        let event = events.next().await;
        drop(turn);
        match event {
            Some(Ok(event)) => {
                if let (Some(share), PagedEvent::Snapshot { entries, .. }) = (peer.share(), &event) {
                    share.charge(entries.iter().map(size_of_entry).sum::<usize>() as u64);
                }
                if send_event(socket, event).await? {
                    return Ok((counted, events));
                }
            }
            Some(Err(error)) => return Err(cannot_begin(error)),
            None => return Err(SessionEnd::closed(close_code::AGAIN, "the store ended the watch")),
        }
    }
}

/// The client's first message: what it watches, and whether it wants puts only.
async fn requested_ranges(socket: &mut WebSocket) -> Result<(Vec<KeyRange>, bool), SessionEnd> {
    let asked = async {
        loop {
            match socket.recv().await {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(_))) => {
                    return Err(SessionEnd::Refused("a watch is asked for in text, not in bytes".to_owned()));
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(SessionEnd::Gone),
            }
        }
    };
    let text = match timeout(REQUEST_TIMEOUT, asked).await {
        Ok(text) => text?,
        Err(_) => return Err(SessionEnd::closed(close_code::POLICY, "no watch was asked for")),
    };
    let request: WatchRequest = serde_json::from_str(&text)
        .map_err(|error| SessionEnd::Refused(format!("the message is not what a watch takes: {error}")))?;
    Ok((check_ranges(request.watch)?, request.puts_only))
}

/// Sends an event. Returns whether the snapshot is complete with it.
async fn send_event(socket: &mut WebSocket, event: PagedEvent) -> Result<bool, SessionEnd> {
    match event {
        PagedEvent::Snapshot { entries, is_last } => {
            send_snapshot(socket, entries, is_last).await?;
            Ok(is_last)
        }
        PagedEvent::Changes(changes) => send_changes(socket, changes).await.map(|()| true),
    }
}

async fn send_snapshot(socket: &mut WebSocket, page: Vec<Entry>, is_last: bool) -> Result<(), SessionEnd> {
    let mut page = page.into_iter().peekable();
    loop {
        let portion = portion(&mut page, MAX_MESSAGE_BYTES, size_of_entry);
        let is_sent = page.peek().is_none();
        let entries = portion.into_iter().map(EntryForm::from).collect();
        send(socket, &WatchMessage::Snapshot { entries, complete: is_sent && is_last }).await?;
        if is_sent {
            return Ok(());
        }
    }
}

fn size_of_entry(entry: &Entry) -> usize {
    entry.key.len() + entry.value.len()
}

async fn send_changes(socket: &mut WebSocket, changes: Vec<Change>) -> Result<(), SessionEnd> {
    let mut changes = changes.into_iter().peekable();
    while changes.peek().is_some() {
        let portion = portion(&mut changes, MAX_MESSAGE_BYTES, size_of_change);
        send(socket, &WatchMessage::Changes(portion.into_iter().map(ChangeForm::from).collect())).await?;
    }
    Ok(())
}

async fn send(socket: &mut WebSocket, message: &impl Serialize) -> Result<(), SessionEnd> {
    let text = serde_json::to_string(message).map_err(|error| {
        tracing::error!(%error, "cannot encode a watch's message");
        SessionEnd::closed(close_code::ERROR, "the hub could not encode its message")
    })?;
    deliver(socket, Message::Text(text.into())).await
}

async fn deliver(socket: &mut WebSocket, message: Message) -> Result<(), SessionEnd> {
    match timeout(SEND_TIMEOUT, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(SessionEnd::Gone),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of the future that a function returns.
    fn size<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_task_of_an_idle_watch_is_small() {
        let bytes = size(serve);
        assert!(bytes <= 1056, "{bytes} bytes for each watch of a hub");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(close_reason("short".to_owned()), "short");
        let whole = "x".repeat(MAX_CLOSE_REASON_BYTES);
        assert_eq!(close_reason(whole.clone()), whole);
        let cut = close_reason(format!("{}ß and more", &whole[1..]));
        assert_eq!(cut, whole[1..]);
    }
}
