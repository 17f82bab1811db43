//! Reading this node's deliveries: what is there, then what comes, and all of it again every ten minutes
//! whatever the watch says, since no backend's watch is trusted for longer (C3). Level-triggered: it
//! knows nothing of what it read before.

use std::collections::{BTreeMap, HashSet};
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use trigger_core::event::Target;
use trigger_core::identity::{Certname, EventId, GroupName, Revision};
use trigger_core::keyspace::{Key, Keyspace};

use crate::claim::ClaimState;
use crate::deliveries::{self, Arrival};
use trigger_store::store::{Change, Entry, KeyRange, Store, StoreError, Watch, WatchEvent};

/// How often everything is read again without a reason.
const READ_AGAIN: Duration = Duration::from_secs(10 * 60);

/// The same, spread over the fleet: `jitter` is from 0.0 up to 1.0.
pub fn read_again_after(jitter: f64) -> Duration {
    READ_AGAIN.mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// What was read.
#[derive(Debug)]
pub struct Batch {
    /// What is pending, or was.
    pub arrivals: Vec<Arrival>,
    /// All that is there has been read by now, and what of it cannot be used is in this batch.
    pub is_all: bool,
}

/// Where what was read goes.
#[derive(Debug)]
pub struct Outlets {
    /// Deliveries.
    pub arrivals: mpsc::Sender<Batch>,
    /// The latest revision at which this node's registration was seen to be written, by whomever.
    pub own_record: watch::Sender<Revision>,
}

/// The reader of one node's deliveries.
#[derive(Debug)]
pub struct DeliveryWatcher {
    keyspace: Keyspace,
    certname: Certname,
    claim: watch::Receiver<ClaimState>,
    /// Since when the node belongs to its groups, as the claim told at the latest connection.
    joined: Option<BTreeMap<GroupName, Revision>>,
    /// Events to groups that have ended here, as read on this connection. Their deliveries stay for days, and are
    /// not looked up again every ten minutes.
    settled: HashSet<EventId>,
    own_key: String,
    outlets: Outlets,
}

/// A watch, and when not to rely on it any more.
struct Feed<P> {
    watch: Watch,
    /// Counts from the last time that everything was read, whatever was reported since.
    read_again: Pin<Box<P>>,
}

/// Entries to look at.
struct Reading {
    entries: Vec<Entry>,
    /// Nothing else is there.
    is_all: bool,
}

impl DeliveryWatcher {
    /// A reader for the node whose claim this is.
    pub fn new(
        keyspace: Keyspace,
        certname: Certname,
        claim: watch::Receiver<ClaimState>,
        outlets: Outlets,
    ) -> Self {
        let own_key = keyspace.node(&certname);
        Self { keyspace, certname, claim, joined: None, settled: HashSet::new(), own_key, outlets }
    }

    /// Whether nobody takes what is read any more.
    pub fn is_closed(&self) -> bool {
        self.outlets.arrivals.is_closed()
    }

    /// Begins to watch; the first time once the node has registered, since which groups' deliveries are its own is
    /// not known before.
    pub async fn connect(&mut self, store: &dyn Store) -> Result<Watch, StoreError> {
        if self.joined.is_none() && self.claim.wait_for(|claim| joined(claim).is_some()).await.is_err() {
            return Err(lost(store, "the agent stops"));
        }
        if let Some(joined) = joined(&self.claim.borrow_and_update()) {
            self.joined = Some(joined.clone());
        }
        // A backend that was restored from a backup has lost outcomes: they are looked up again.
        self.settled.clear();
        store.watch(self.ranges()).await
    }

    fn ranges(&self) -> Vec<KeyRange> {
        let groups = self.joined.iter().flatten().map(|(group, _)| group.clone());
        let mut ranges = deliveries::ranges(&self.keyspace, &self.certname, groups);
        // Whoever takes our claim is seen at once, on the one connection that is there.
        ranges.push(KeyRange::Key(self.own_key.clone()));
        ranges
    }

    /// Passes on what the watch reports until it ends; returns why it did. Each call of `pause` is a wait for
    /// as long as [`read_again_after`] says.
    pub async fn follow<P: Future<Output = ()> + Send>(
        &mut self,
        store: &dyn Store,
        watch: Watch,
        pause: impl Fn() -> P + Send + Sync,
    ) -> StoreError {
        let mut feed = Feed { watch, read_again: Box::pin(pause()) };
        loop {
            let reading = match self.next(store, &mut feed).await {
                Ok(reading) => reading,
                Err(error) => return error,
            };
            if reading.is_all {
                feed.read_again = Box::pin(pause());
            }
            match self.pass_on(store, reading).await {
                Ok(true) => {}
                Ok(false) => return lost(store, "the agent stops"),
                Err(error) => return error,
            }
        }
    }

    async fn next<P: Future<Output = ()> + Send>(
        &mut self,
        store: &dyn Store,
        feed: &mut Feed<P>,
    ) -> Result<Reading, StoreError> {
        let ranges = self.ranges();
        let entries = tokio::select! {
            // In this order, so that no watch is too busy for it.
            biased;
            () = rejoined(&mut self.claim, self.joined.as_ref()) => {
                return Err(lost(store, "its revisions begin anew, so this node has joined its groups anew"));
            }
            () = &mut feed.read_again => store.read(&ranges).await?,
            event = feed.watch.next() => match event {
                Some(Ok(WatchEvent::Snapshot(entries))) => entries,
                Some(Ok(WatchEvent::Changes(changes))) => {
                    return Ok(Reading { entries: puts(changes), is_all: false });
                }
                Some(Err(error)) => return Err(error),
                None => return Err(lost(store, "the watch ended")),
            },
        };
        Ok(Reading { entries, is_all: true })
    }

    /// Reads the events behind deliveries, some at a time: what was read counts though the rest cannot be. False
    /// when nobody listens any more.
    async fn pass_on(
        &mut self,
        store: &dyn Store,
        Reading { entries, is_all }: Reading,
    ) -> Result<bool, StoreError> {
        let (own, entries): (Vec<Entry>, _) =
            entries.into_iter().partition(|entry| entry.key == self.own_key);
        if let Some(latest) = own.iter().map(|entry| entry.revision).max() {
            self.outlets.own_record.send_replace(latest);
        }
        let entries = self.unsettled(entries, is_all);
        let nowhere = BTreeMap::new();
        let joined = self.joined.as_ref().unwrap_or(&nowhere);
        let mut unusable = Vec::new();
        for chunk in entries.chunks(deliveries::PER_READ) {
            let arrivals = deliveries::read(store, &self.keyspace, &self.certname, joined, chunk).await?;
            self.settled.extend(arrivals.iter().filter_map(settled));
            let (known, others): (Vec<Arrival>, Vec<Arrival>) =
                arrivals.into_iter().partition(|arrival| !matches!(arrival, Arrival::Unreadable { .. }));
            unusable.extend(others);
            if !known.is_empty() && !self.send(known, false).await {
                return Ok(false);
            }
        }
        Ok((unusable.is_empty() && !is_all) || self.send(unusable, is_all).await)
    }

    async fn send(&self, arrivals: Vec<Arrival>, is_all: bool) -> bool {
        self.outlets.arrivals.send(Batch { arrivals, is_all }).await.is_ok()
    }

    /// Those of which it is not known that they have ended here.
    fn unsettled(&mut self, mut entries: Vec<Entry>, is_all: bool) -> Vec<Entry> {
        let event_of = |entry: &Entry| match self.keyspace.place(&entry.key) {
            Some(Key::GroupDelivery { event, .. }) => Some(event),
            _ => None,
        };
        if is_all {
            let present: HashSet<EventId> = entries.iter().filter_map(event_of).collect();
            self.settled.retain(|event| present.contains(event));
        }
        entries.retain(|entry| event_of(entry).is_none_or(|event| !self.settled.contains(&event)));
        entries
    }
}

/// The groups joined and since when, while the claim is held.
fn joined(claim: &ClaimState) -> Option<&BTreeMap<GroupName, Revision>> {
    match claim {
        ClaimState::Held { joined, .. } => Some(joined),
        _ => None,
    }
}

/// Returns when the node has joined its groups at other revisions than `known`: the backend was made anew and
/// counts from the start, where all that comes would look as if it had been there before this node joined.
async fn rejoined(claim: &mut watch::Receiver<ClaimState>, known: Option<&BTreeMap<GroupName, Revision>>) {
    if claim.wait_for(|claim| joined(claim).is_some_and(|joined| Some(joined) != known)).await.is_err() {
        // Who stops says so elsewhere.
        std::future::pending::<()>().await;
    }
}

/// A group's event that has ended here: its delivery stays.
fn settled(arrival: &Arrival) -> Option<EventId> {
    match arrival {
        Arrival::HasOutcome { event, target: Target::Group(_) } => Some(*event),
        _ => None,
    }
}

fn lost(store: &dyn Store, detail: &str) -> StoreError {
    StoreError::Unreachable { backend: store.address().to_owned(), detail: detail.to_owned() }
}

/// A deleted delivery says nothing: what was read is run for, whoever deleted it.
fn puts(changes: Vec<Change>) -> Vec<Entry> {
    let put = |change| match change {
        Change::Put(entry) => Some(entry),
        Change::Deleted(_) => None,
    };
    changes.into_iter().filter_map(put).collect()
}
