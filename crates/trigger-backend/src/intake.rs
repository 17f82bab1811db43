//! Reading this node's deliveries: what is there, then what comes, and all of it again every ten minutes
//! whatever the watch says, since no backend's watch is trusted for longer (contract 3). Level-triggered: it
//! knows nothing of what it read before.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use trigger_core::identity::{Certname, GroupName, Revision};
use trigger_core::layout::Layout;

use crate::deliveries::{self, Arrival};
use crate::store::{Change, Entry, KeyRange, Store, StoreError, Watch, WatchEvent};

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
    /// Nothing else is there: what was read before and is not among it has gone.
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
pub struct Intake {
    layout: Layout,
    certname: Certname,
    joined: BTreeMap<GroupName, Revision>,
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

impl Intake {
    /// A reader for a node that belongs to these groups since then.
    pub fn new(
        layout: Layout,
        certname: Certname,
        joined: BTreeMap<GroupName, Revision>,
        outlets: Outlets,
    ) -> Self {
        Self { own_key: layout.node(&certname), layout, certname, joined, outlets }
    }

    /// Whether nobody takes what is read any more.
    pub fn is_closed(&self) -> bool {
        self.outlets.arrivals.is_closed()
    }

    /// Begins to watch.
    pub async fn connect(&self, store: &dyn Store) -> Result<Watch, StoreError> {
        store.watch(self.ranges()).await
    }

    fn ranges(&self) -> Vec<KeyRange> {
        let mut ranges = deliveries::ranges(&self.layout, &self.certname, self.joined.keys().cloned());
        // Whoever takes our claim is seen at once, on the one connection that is there.
        ranges.push(KeyRange::Key(self.own_key.clone()));
        ranges
    }

    /// Passes on what the watch reports until it ends; returns why it did. Each call of `pause` is a wait for
    /// as long as [`read_again_after`] says.
    pub async fn follow<P: Future<Output = ()> + Send>(
        &self,
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
        &self,
        store: &dyn Store,
        feed: &mut Feed<P>,
    ) -> Result<Reading, StoreError> {
        let entries = tokio::select! {
            // In this order, so that no watch is too busy for it.
            biased;
            () = &mut feed.read_again => store.read(&self.ranges()).await?,
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

    /// Reads the events behind deliveries; false when nobody listens any more.
    async fn pass_on(
        &self,
        store: &dyn Store,
        Reading { entries, is_all }: Reading,
    ) -> Result<bool, StoreError> {
        let (own, entries): (Vec<Entry>, _) =
            entries.into_iter().partition(|entry| entry.key == self.own_key);
        if let Some(latest) = own.iter().map(|entry| entry.revision).max() {
            self.outlets.own_record.send_replace(latest);
        }
        if entries.is_empty() && !is_all {
            return Ok(true);
        }
        let arrivals = deliveries::read(store, &self.layout, &self.certname, &self.joined, entries).await?;
        let is_news = is_all || !arrivals.is_empty();
        Ok(!is_news || self.outlets.arrivals.send(Batch { arrivals, is_all }).await.is_ok())
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
