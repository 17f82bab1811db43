//! One watch: a WebSocket, its subscription, and the task that stands between. A session that ends tells
//! nobody: its client reconnects and begins with a snapshot.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval_at, timeout};
use trigger_core::identity::Revision;
use trigger_store::hub_protocol::{ChangeForm, EntryForm, WatchMessage, WatchRequest};
use trigger_store::store::{Change, Entry, KeyRange};

use super::http::{Hub, Refusal, check_ranges};
use super::watchers::{Stamped, Subscription, size_of_change};

/// How long a client may take to say what it watches.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Often, because a link that drops packets tells nobody: TCP repeats what was lost at ever longer intervals,
/// so after an outage of a minute an event could be another minute on its way. Clients give a silent hub up
/// after 25 s, so one ping may get lost.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// A client that has answered none of so many pings is gone.
const MAX_UNANSWERED_PINGS: u32 = 2;
/// A client that takes nothing for this long is gone too.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Entries and changes in one message, in bytes of keys and values. What is sent stays in the session's
/// buffer, so this bounds what an idle one keeps.
const MESSAGE_BYTES: usize = 64 * 1024;

/// Why a session ends.
enum SessionEnd {
    /// The client is gone, or said good-bye.
    Gone,
    /// The client may come back: a WebSocket close code, and why.
    Closed(u16, &'static str),
    /// The client must not ask so again.
    Refused(String),
}

/// Serves one watch to its end.
pub(super) async fn serve(mut socket: WebSocket, hub: Arc<Hub>) {
    let end = match watch(&mut socket, &hub).await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    let good_bye = match end {
        SessionEnd::Gone => return,
        SessionEnd::Closed(code, reason) => CloseFrame { code, reason: reason.into() },
        SessionEnd::Refused(sentence) => {
            if send(&mut socket, &WatchMessage::Error(sentence)).await.is_err() {
                return;
            }
            CloseFrame { code: close_code::POLICY, reason: "refused".into() }
        }
    };
    let _ = timeout(SEND_TIMEOUT, socket.send(Message::Close(Some(good_bye)))).await;
}

async fn watch(socket: &mut WebSocket, hub: &Hub) -> Result<std::convert::Infallible, SessionEnd> {
    let mut stopping = hub.stopping.clone();
    let stopped = || SessionEnd::Closed(close_code::AWAY, "the hub is stopping");
    let ranges = tokio::select! {
        ranges = asked_ranges(socket) => ranges?,
        _ = stopping.changed() => return Err(stopped()),
    };
    let subscription = hub.watchers.subscribe(ranges);
    let _counted = hub.metrics.watching();
    let snapshot_at = send_snapshot(socket, hub, &subscription).await?;
    let mut pings = interval_at(tokio::time::Instant::now() + PING_INTERVAL, PING_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut unanswered = 0;
    loop {
        tokio::select! {
            changes = subscription.changes() => match changes {
                Some(changes) => send_changes(socket, changes, snapshot_at).await?,
                None => {
                    hub.metrics.watch_cut();
                    return Err(SessionEnd::Closed(close_code::AGAIN, "the watcher fell too far behind"));
                }
            },
            message = socket.recv() => match message {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(SessionEnd::Gone),
                Some(Ok(_)) => unanswered = 0,
            },
            _ = pings.tick() => {
                if unanswered == MAX_UNANSWERED_PINGS {
                    return Err(SessionEnd::Gone);
                }
                unanswered += 1;
                deliver(socket, Message::Ping(Vec::new().into())).await?;
            }
            _ = stopping.changed() => return Err(stopped()),
        }
    }
}

/// The client's first message.
async fn asked_ranges(socket: &mut WebSocket) -> Result<Vec<KeyRange>, SessionEnd> {
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
        Err(_) => return Err(SessionEnd::Closed(close_code::POLICY, "no watch was asked for")),
    };
    let request: WatchRequest = serde_json::from_str(&text)
        .map_err(|error| SessionEnd::Refused(format!("the message is not what a watch takes: {error}")))?;
    check_ranges(request.watch).map_err(|refusal: Refusal| SessionEnd::Refused(refusal.sentence))
}

/// Sends the snapshot; answers with the moment it shows.
async fn send_snapshot(
    socket: &mut WebSocket,
    hub: &Hub,
    subscription: &Subscription,
) -> Result<Revision, SessionEnd> {
    // In one piece, since pages would be of several moments.
    let page =
        hub.reader.read(subscription.ranges().to_vec(), None, false, usize::MAX).await.map_err(|error| {
            tracing::warn!("cannot begin a watch: {error}");
            SessionEnd::Closed(close_code::ERROR, "the hub could not read its database")
        })?;
    let mut entries = page.entries.into_iter().peekable();
    loop {
        let portion = portion(&mut entries, |entry: &Entry| entry.key.len() + entry.value.len());
        let complete = entries.peek().is_none();
        let entries = portion.into_iter().map(EntryForm::from).collect();
        send(socket, &WatchMessage::Snapshot { entries, complete }).await?;
        if complete {
            return Ok(page.revision);
        }
    }
}

/// Sends what is not in the snapshot already.
async fn send_changes(
    socket: &mut WebSocket,
    changes: Vec<Stamped>,
    snapshot_at: Revision,
) -> Result<(), SessionEnd> {
    let mut news = changes
        .into_iter()
        .filter(|stamped| stamped.revision > snapshot_at)
        .map(|stamped| stamped.change)
        .peekable();
    while news.peek().is_some() {
        let portion = portion(&mut news, |change: &Arc<Change>| size_of_change(change));
        let changes = portion.into_iter().map(|change| ChangeForm::from(Arc::unwrap_or_clone(change)));
        send(socket, &WatchMessage::Changes(changes.collect())).await?;
    }
    Ok(())
}

/// The next items, up to [`MESSAGE_BYTES`]; at least one, if there is one.
fn portion<T>(
    items: &mut std::iter::Peekable<impl Iterator<Item = T>>,
    size: impl Fn(&T) -> usize,
) -> Vec<T> {
    let mut portion = Vec::new();
    let mut bytes = 0;
    while let Some(item) = items.next_if(|item| portion.is_empty() || bytes + size(item) <= MESSAGE_BYTES) {
        bytes += size(&item);
        portion.push(item);
    }
    portion
}

async fn send(socket: &mut WebSocket, message: &impl Serialize) -> Result<(), SessionEnd> {
    let text = serde_json::to_string(message).map_err(|error| {
        tracing::error!("cannot encode a watch's message: {error}");
        SessionEnd::Closed(close_code::ERROR, "the hub could not encode its message")
    })?;
    deliver(socket, Message::Text(text.into())).await
}

async fn deliver(socket: &mut WebSocket, message: Message) -> Result<(), SessionEnd> {
    match timeout(SEND_TIMEOUT, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(SessionEnd::Gone),
    }
}
