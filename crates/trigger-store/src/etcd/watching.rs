//! Watches: a snapshot, then the changes since. A gap is never silent: the watch ends, or has another snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use etcd_client::{KeyValue, WatchOptions, WatchResponse, WatchStream};
use futures_util::stream;
use trigger_core::duration;

use super::connection::{Connections, RequestKind, WatchConnection};
use super::failure::{EtcdFailure, ROLES_HINT};
use super::reading::{self, Bounds};
use crate::store::{Change, Entry, KeyRange, StoreError, Watch, WatchEvent};

/// How often compaction may overtake a watch with no change in between. Beyond that the cluster is in trouble, and
/// the watch ends, so that its caller pauses before the next.
const MAX_CONSECUTIVE_COMPACTIONS: usize = 3;

pub(super) async fn watch(connections: Arc<Connections>, ranges: Vec<KeyRange>) -> Result<Watch, StoreError> {
    match Watching::begin(&connections, ranges).await {
        Ok((snapshot, watching)) => {
            Ok(Box::pin(stream::unfold(Phase::Begun(snapshot, watching), Phase::next)))
        }
        Err(failure) => Err(connections.error(failure, RequestKind::Read)),
    }
}

/// How far a watch is, seen from its reader.
enum Phase {
    Begun(Vec<Entry>, Watching),
    Continuing(Watching),
    Ended,
}

impl Phase {
    async fn next(self) -> Option<(Result<WatchEvent, StoreError>, Self)> {
        let mut watching = match self {
            Self::Begun(snapshot, watching) => {
                return Some((Ok(WatchEvent::Snapshot(snapshot)), Self::Continuing(watching)));
            }
            Self::Continuing(watching) => watching,
            Self::Ended => return None,
        };
        match watching.next().await {
            Ok(event) => Some((Ok(event), Self::Continuing(watching))),
            Err(failure) => {
                watching.connections.avoid(watching.connection.member);
                Some((Err(watching.connections.error(failure, RequestKind::Read)), Self::Ended))
            }
        }
    }
}

/// A watch of all its ranges on one stream, on a connection of its own.
struct Watching {
    connections: Arc<Connections>,
    connection: WatchConnection,
    ranges: Vec<KeyRange>,
    stream: WatchStream,
    cursors: Cursors,
    compactions: usize,
}

impl Watching {
    async fn begin(
        connections: &Arc<Connections>,
        ranges: Vec<KeyRange>,
    ) -> Result<(Vec<Entry>, Self), EtcdFailure> {
        if ranges.is_empty() {
            return Err(EtcdFailure::Permanent("nothing is to be watched".into()));
        }
        let mut connection = connections.watch_connection().await?;
        let snapshot = reading::read(connections, &ranges, false).await?;
        let from = snapshot.revision + 1;
        let stream = open(connections, &mut connection, &ranges, from).await?;
        let connections = Arc::clone(connections);
        let cursors = Cursors::new(from);
        Ok((snapshot.entries, Self { connections, connection, ranges, stream, cursors, compactions: 0 }))
    }

    /// Reads everything again and watches from there, on the same connection.
    async fn begin_again(&mut self) -> Result<Vec<Entry>, EtcdFailure> {
        let snapshot = reading::read(&self.connections, &self.ranges, false).await?;
        let from = snapshot.revision + 1;
        self.stream = open(&self.connections, &mut self.connection, &self.ranges, from).await?;
        self.cursors = Cursors::new(from);
        Ok(snapshot.entries)
    }

    /// The next event. If the server is gone, the connection's keep-alive ends the stream.
    async fn next(&mut self) -> Result<WatchEvent, EtcdFailure> {
        loop {
            let name = self.connections.member_name(self.connection.member);
            let response = match self.stream.message().await {
                Ok(Some(response)) => response,
                Ok(None) => {
                    return Err(EtcdFailure::RetryOtherMember(format!("{name}: it ended the watch").into()));
                }
                Err(error) => {
                    let refusal = self.connection.connector.refusal();
                    return Err(EtcdFailure::from_client(name, error, refusal));
                }
            };
            if response.canceled() {
                if response.compact_revision() == 0 {
                    return Err(cancelled(name, response.cancel_reason()));
                }
                // Changes that this watch had not received are compacted. Their result can still be read.
                self.compactions += 1;
                if self.compactions > MAX_CONSECUTIVE_COMPACTIONS {
                    return Err(EtcdFailure::Compacted);
                }
                tracing::info!(member = name, "a compaction overtook the watch: reading everything again");
                return Ok(WatchEvent::Snapshot(self.begin_again().await?));
            }
            let changes = self.cursors.fresh(&response);
            if !changes.is_empty() {
                self.compactions = 0;
                return Ok(WatchEvent::Changes(changes));
            }
        }
    }
}

/// Opens one stream that watches all `ranges` from the revision `from`.
async fn open(
    connections: &Connections,
    connection: &mut WatchConnection,
    ranges: &[KeyRange],
    from: i64,
) -> Result<WatchStream, EtcdFailure> {
    let WatchConnection { member, client, connector } = connection;
    let member = *member;
    let name = connections.member_name(member);
    let creating = async {
        let mut ids = 1..;
        let mut wanted = ranges.iter().map(|range| {
            let bounds = Bounds::of(range);
            // Fragments keep a burst of large values below our limit for one answer.
            let options = WatchOptions::new().with_range(bounds.end).with_start_revision(from);
            let options = options.with_watch_id(ids.next().unwrap_or_default());
            (bounds.begin, options.with_progress_notify().with_fragment())
        });
        let Some((begin, options)) = wanted.next() else {
            return Err(EtcdFailure::Permanent("nothing is to be watched".into()));
        };
        let refused = |error| EtcdFailure::from_client(name, error, connector.refusal());
        let mut stream = client.watch(begin, Some(options)).await.map_err(refused)?;
        for (begin, options) in wanted {
            stream.watch(begin, Some(options)).await.map_err(refused)?;
        }
        Ok(stream)
    };
    let result = match connections.await_watch(member, connector, creating).await {
        Ok(result) => result,
        Err(limit) => {
            let detail = format!("{name}: no watch within {}", duration::format_short(limit));
            Err(EtcdFailure::RetryOtherMember(detail.into()))
        }
    };
    result.inspect_err(|_| connections.avoid(member))
}

fn cancelled(name: &str, reason: &str) -> EtcdFailure {
    if reason.contains("permission denied") {
        return EtcdFailure::Permanent(format!("{name}: {reason}; {ROLES_HINT}").into());
    }
    EtcdFailure::RetryOtherMember(format!("{name}: it cancelled the watch: {reason}").into())
}

/// The position of each watch of the stream. An etcd with bug #15271 or #17529 (3.4.23 has both) repeats events, also
/// long after; those are dropped, because an old event would undo a newer one.
struct Cursors {
    from: i64,
    by_watch: BTreeMap<i64, Cursor>,
}

/// All events before `revision` were received, and at it those of these keys: a transaction changes several keys at
/// one revision, which may arrive in several fragments, but no key twice.
struct Cursor {
    revision: i64,
    keys: BTreeSet<Vec<u8>>,
}

impl Cursors {
    fn new(from: i64) -> Self {
        Self { from, by_watch: BTreeMap::new() }
    }

    fn fresh(&mut self, response: &WatchResponse) -> Vec<Change> {
        let from = self.from;
        let cursor = self.by_watch.entry(response.watch_id());
        let cursor = cursor.or_insert_with(|| Cursor { revision: from, keys: BTreeSet::new() });
        let pairs = response.events().iter().filter_map(|event| event.kv());
        pairs.filter(|pair| cursor.advance(pair.key(), pair.mod_revision())).map(change).collect()
    }
}

impl Cursor {
    /// Advances to an event, and returns whether it is a new one.
    fn advance(&mut self, key: &[u8], revision: i64) -> bool {
        if revision > self.revision {
            self.revision = revision;
            self.keys.clear();
        }
        revision == self.revision && self.keys.insert(key.to_owned())
    }
}

fn change(pair: &KeyValue) -> Change {
    // Not by the event's type, since the client library panics at a type that it does not know. A key's version
    // counts from one, and only a deletion resets it to zero.
    if pair.version() == 0 {
        return Change::Deleted(String::from_utf8_lossy(pair.key()).into_owned());
    }
    Change::Put(reading::entry(pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_events_are_dropped() {
        let mut cursor = Cursor { revision: 5, keys: BTreeSet::new() };
        let events = [("a", 4), ("a", 5), ("b", 5), ("a", 5), ("c", 9), ("d", 9), ("b", 5), ("c", 10)];
        let new: Vec<_> =
            events.iter().filter(|(key, revision)| cursor.advance(key.as_bytes(), *revision)).collect();
        assert_eq!(new, [&("a", 5), &("b", 5), &("c", 9), &("d", 9), &("c", 10)]);
    }
}
