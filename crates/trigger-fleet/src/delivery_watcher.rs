//! Reading this node's deliveries: those that are there, then those that come, and all of them again every ten
//! minutes whatever the watch says, since no backend's watch is trusted for longer (C3). Level-triggered: what is
//! read does not depend on what was read before.

use std::collections::{BTreeMap, HashSet};
use std::pin::Pin;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use trigger_core::event::Target;
use trigger_core::identity::{EventId, GroupName, Revision};
use trigger_core::keyspace::{Key, Range};
use trigger_store::store::{Change, Entry, KeyRange, StoreError, Watch, WatchEvent};

use crate::claim::ClaimState;
use crate::deliveries::{self, Arrival};
use crate::fleet::Fleet;
use crate::holding::ReadOrder;

/// How often everything is read again without a reason.
const READ_AGAIN_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// How soon everything is read again where an event could not be verified yet. Each further reading that finds one doubles
/// the time, so that no number of events that can never be verified makes the reading frequent.
const VERIFY_AGAIN_INTERVAL: Duration = Duration::from_secs(5);
/// Deliveries of one reading that are reported as unusable at most; the others are counted.
const MAX_UNUSABLE: usize = 500;
/// Beyond this many doublings the usual interval is shorter.
const MAX_DOUBLINGS: u32 = 8;

/// The same, spread over the fleet: `jitter` is from 0.0 up to 1.0.
pub fn read_again_after(jitter: f64) -> Duration {
    READ_AGAIN_INTERVAL.mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// Deliveries that were read together.
#[derive(Debug)]
pub struct Batch {
    /// The deliveries.
    pub arrivals: Vec<Arrival>,
    /// All deliveries that are there have been read by now, and those that cannot be used are in this batch.
    pub is_all: bool,
    /// Whether they were found when everything that is there was read. The others have been committed since.
    pub is_of_all: bool,
    /// Whether more deliveries that were found together with these follow in the next batch.
    pub more_follow: bool,
}

/// The receivers of what a [`DeliveryWatcher`] reads.
#[derive(Debug)]
pub struct Outlets {
    /// Takes the deliveries.
    pub arrivals: mpsc::Sender<Batch>,
    /// Takes the latest revision at which this node's registration was written, by any agent.
    pub own_record: watch::Sender<Revision>,
    /// Takes the requests for the output of this node's runs, as they are stored. What it has no room for is dropped: its
    /// reader asks again.
    pub log_requests: mpsc::Sender<Vec<Entry>>,
}

/// The reader of one node's deliveries.
#[derive(Debug)]
pub struct DeliveryWatcher {
    fleet: Fleet,
    claim: watch::Receiver<ClaimState>,
    /// Since when the node belongs to its groups, according to the claim at the latest connection.
    joined: Option<BTreeMap<GroupName, Revision>>,
    /// Events to groups that have ended here, as read on this connection. Their deliveries stay for days, and are
    /// not looked up again every ten minutes.
    settled: HashSet<EventId>,
    own_key: String,
    hold_key: String,
    outlets: Outlets,
    /// How many readings in a row have found events that could not be verified yet.
    unverified_readings: u32,
    /// Whether requests for the output of runs are watched, too. An older hub, or an etcd with older roles, refuses that: each
    /// connection asks, until the backend has once allowed it.
    watches_logs: bool,
    /// Whether orders to hold this node are watched, too: the same.
    watches_holds: bool,
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

/// What became of a reading.
enum PassedOn {
    /// The receiver has all of it.
    All {
        /// Whether an event could not be verified yet.
        has_unverified: bool,
    },
    /// There is no receiver any more.
    ReceiverGone,
}

impl DeliveryWatcher {
    /// A reader for the node that `fleet` acts for, whose claim this is.
    ///
    /// # Panics
    /// When `fleet` acts for no node.
    pub fn new(fleet: Fleet, claim: watch::Receiver<ClaimState>, outlets: Outlets) -> Self {
        let own_key = fleet.key(&Key::Node { certname: fleet.own().clone() });
        let hold_key = fleet.key(&Key::Hold { certname: fleet.own().clone() });
        Self {
            fleet,
            claim,
            joined: None,
            settled: HashSet::new(),
            own_key,
            hold_key,
            outlets,
            unverified_readings: 0,
            watches_logs: false,
            watches_holds: false,
        }
    }

    /// Whether the receiver of the deliveries is gone.
    pub fn is_closed(&self) -> bool {
        self.outlets.arrivals.is_closed()
    }

    /// Begins to watch; the first time once the node has registered, since which groups' deliveries are its own is
    /// not known before.
    ///
    /// # Errors
    /// When the backend cannot be watched now, or the agent stops.
    pub async fn connect(&mut self) -> Result<Watch, StoreError> {
        if self.joined.is_none() && self.claim.wait_for(|claim| joined(claim).is_some()).await.is_err() {
            return Err(self.lost("the agent stops"));
        }
        if let Some(joined) = joined(&self.claim.borrow_and_update()) {
            self.joined = Some(joined.clone());
        }
        // A backend that was restored from a backup has lost outcomes: they are looked up again. It may also lack what
        // others need to verify this node's: that is stored again with what this node signs next, or when everything is read.
        self.settled.clear();
        self.fleet.forget_announced();
        if !(self.watches_logs && self.watches_holds) {
            self.ask_what_may_be_watched().await?;
        }
        // A deletion is of no use: a delivery that was read is run for, whichever process deleted it.
        let watch = self.fleet.store().watch_puts(self.ranges()).await;
        watch.inspect_err(|error| self.forget_if_denied(error))
    }

    /// Finds out what the backend shows this node beside its deliveries. A watch of more would be refused whole.
    async fn ask_what_may_be_watched(&mut self) -> Result<(), StoreError> {
        let (logs, hold) = (self.log_requests(), KeyRange::Key(self.hold_key.clone()));
        let may_both = self.may_watch(&[logs.clone(), hold.clone()]).await?;
        self.watches_logs = may_both || self.may_watch(&[logs]).await?;
        self.watches_holds = may_both || self.may_watch(&[hold]).await?;
        Ok(())
    }

    async fn may_watch(&self, ranges: &[KeyRange]) -> Result<bool, StoreError> {
        match self.fleet.store().list(ranges).await {
            Ok(_) => Ok(true),
            Err(error) if is_denied(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Has the next connection ask again what may be watched: another hub may have taken this one's place.
    fn forget_if_denied(&mut self, error: &StoreError) {
        self.watches_logs &= !is_denied(error);
        self.watches_holds &= !is_denied(error);
    }

    fn log_requests(&self) -> KeyRange {
        self.fleet.all(&Range::LogRequestsTo(self.fleet.own().clone()))
    }

    fn ranges(&self) -> Vec<KeyRange> {
        let groups = self.joined.iter().flatten().map(|(group, _)| group.clone());
        let mut ranges = self.fleet.delivery_ranges(groups);
        // An agent that takes our claim is seen at once, on the one connection that is there.
        ranges.push(KeyRange::Key(self.own_key.clone()));
        if self.watches_logs {
            ranges.push(self.log_requests());
        }
        if self.watches_holds {
            ranges.push(KeyRange::Key(self.hold_key.clone()));
        }
        ranges
    }

    /// Passes on what the watch reports until it ends; returns why it did. Each call of `pause` is a wait for
    /// as long as [`read_again_after`] says, but for no longer than its argument.
    pub async fn follow<P: Future<Output = ()> + Send>(
        &mut self,
        watch: Watch,
        pause: impl Fn(Duration) -> P + Send + Sync,
    ) -> StoreError {
        let error = self.follow_until_lost(watch, pause).await;
        self.forget_if_denied(&error);
        error
    }

    async fn follow_until_lost<P: Future<Output = ()> + Send>(
        &mut self,
        watch: Watch,
        pause: impl Fn(Duration) -> P + Send + Sync,
    ) -> StoreError {
        let mut feed = Feed { watch, read_again: Box::pin(pause(Duration::MAX)) };
        loop {
            let reading = match self.next(&mut feed).await {
                Ok(reading) => reading,
                Err(error) => return error,
            };
            let is_all = reading.is_all;
            if is_all {
                feed.read_again = Box::pin(pause(Duration::MAX));
            }
            let has_unverified = match self.pass_on(reading).await {
                Ok(PassedOn::All { has_unverified }) => has_unverified,
                Ok(PassedOn::ReceiverGone) => return self.lost("the agent stops"),
                Err(error) => return error,
            };
            if let Some(soon) = self.verify_again_after(is_all, has_unverified) {
                feed.read_again = Box::pin(pause(soon));
            }
        }
    }

    /// When everything is to be read again because of a reading that found events which could not be verified yet. Those
    /// that come while that is due anyway do not bring it forward.
    fn verify_again_after(&mut self, is_all: bool, has_unverified: bool) -> Option<Duration> {
        match (is_all, has_unverified) {
            (true, false) => self.unverified_readings = 0,
            (true, true) => self.unverified_readings += 1,
            (false, true) if self.unverified_readings == 0 => self.unverified_readings = 1,
            (false, _) => return None,
        }
        let doublings = self.unverified_readings.checked_sub(1)?;
        (doublings <= MAX_DOUBLINGS).then(|| VERIFY_AGAIN_INTERVAL * 2u32.pow(doublings))
    }

    async fn next<P: Future<Output = ()> + Send>(
        &mut self,
        feed: &mut Feed<P>,
    ) -> Result<Reading, StoreError> {
        let ranges = self.ranges();
        let entries = tokio::select! {
            // In this order, so that no watch is too busy for it.
            biased;
            () = rejoined(&mut self.claim, self.joined.as_ref()) => {
                return Err(self.lost("its revisions start again, so this node has joined its groups again"));
            }
            () = &mut feed.read_again => {
                self.fleet.announce_certificate().await?;
                self.fleet.store().read(&ranges).await?
            }
            event = feed.watch.next() => match event {
                Some(Ok(WatchEvent::Snapshot(entries))) => entries,
                Some(Ok(WatchEvent::Changes(changes))) => {
                    return Ok(Reading { entries: puts(changes), is_all: false });
                }
                Some(Err(error)) => return Err(error),
                None => return Err(self.lost("the watch ended")),
            },
        };
        Ok(Reading { entries, is_all: true })
    }

    /// Passes on the deliveries of a reading.
    async fn pass_on(&mut self, reading: Reading) -> Result<PassedOn, StoreError> {
        let is_of_all = reading.is_all;
        let passed_on = self.pass_on_in_portions(reading).await;
        if passed_on.is_err() {
            // The receiver may be waiting for the rest.
            self.send(Batch { arrivals: Vec::new(), is_all: false, is_of_all, more_follow: false }).await;
        }
        passed_on
    }

    /// Reads the events behind deliveries, some at a time: what was read counts though the rest cannot be.
    async fn pass_on_in_portions(
        &mut self,
        Reading { entries, is_all }: Reading,
    ) -> Result<PassedOn, StoreError> {
        let (own, entries): (Vec<Entry>, _) =
            entries.into_iter().partition(|entry| entry.key == self.own_key);
        if let Some(latest) = own.iter().map(|entry| entry.revision).max() {
            self.outlets.own_record.send_replace(latest);
        }
        let (orders, entries): (Vec<Entry>, _) =
            entries.into_iter().partition(|entry| entry.key == self.hold_key);
        let entries = self.fleet.with_cancelled(self.without_log_requests(entries)).await?;
        let entries = self.unsettled(entries, is_all);
        let no_groups = BTreeMap::new();
        let joined = self.joined.as_ref().unwrap_or(&no_groups);
        let (mut unusable, mut more) = (Vec::new(), 0);
        let mut has_unverified = false;
        let in_portions = is_all || entries.len() > deliveries::PER_READ;
        // Before the deliveries that were read with it: a node that is held starts no run for them.
        if let Some(order) = orders.last() {
            let ReadOrder { arrival, waits } = self.fleet.read_order(order).await?;
            has_unverified |= waits;
            if matches!(arrival, Arrival::Ordered(_)) {
                let arrivals = vec![arrival];
                let batch = Batch { arrivals, is_all: false, is_of_all: is_all, more_follow: in_portions };
                if !self.send(batch).await {
                    return Ok(PassedOn::ReceiverGone);
                }
            } else {
                unusable.push(arrival);
            }
        }
        for chunk in entries.chunks(deliveries::PER_READ) {
            let arrivals = self.fleet.read_uncancelled(joined, chunk).await?;
            self.settled.extend(arrivals.iter().filter_map(settled));
            has_unverified |= arrivals.iter().any(|arrival| matches!(arrival, Arrival::Unverified(_)));
            let (known, others): (Vec<Arrival>, Vec<Arrival>) =
                arrivals.into_iter().partition(|arrival| !matches!(arrival, Arrival::Unreadable { .. }));
            let room = MAX_UNUSABLE - unusable.len();
            more += others.len().saturating_sub(room);
            unusable.extend(others.into_iter().take(room));
            let batch = Batch { arrivals: known, is_all: false, is_of_all: is_all, more_follow: in_portions };
            if !batch.arrivals.is_empty() && !self.send(batch).await {
                return Ok(PassedOn::ReceiverGone);
            }
        }
        if more > 0 {
            let detail = format!("{more} more deliveries to this node cannot be used either");
            unusable.push(Arrival::Unreadable { key: self.fleet.prefix().to_string(), detail });
        }
        let last = Batch { arrivals: unusable, is_all, is_of_all: is_all, more_follow: false };
        let is_sent = (last.arrivals.is_empty() && !in_portions) || self.send(last).await;
        Ok(if is_sent { PassedOn::All { has_unverified } } else { PassedOn::ReceiverGone })
    }

    async fn send(&self, batch: Batch) -> bool {
        self.outlets.arrivals.send(batch).await.is_ok()
    }

    /// Passes on the requests for the output of runs, and returns the other entries.
    fn without_log_requests(&self, entries: Vec<Entry>) -> Vec<Entry> {
        let is_request =
            |entry: &Entry| matches!(self.fleet.keyspace().parse(&entry.key), Some(Key::LogRequest { .. }));
        let (requests, entries): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(is_request);
        if !requests.is_empty() {
            let _ = self.outlets.log_requests.try_send(requests);
        }
        entries
    }

    /// Those of which it is not known that they have ended here.
    fn unsettled(&mut self, mut entries: Vec<Entry>, is_all: bool) -> Vec<Entry> {
        let event_of = |entry: &Entry| match self.fleet.keyspace().parse(&entry.key) {
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

    fn lost(&self, detail: &str) -> StoreError {
        StoreError::Unreachable { backend: self.fleet.store().address().to_owned(), detail: detail.into() }
    }
}

fn is_denied(error: &StoreError) -> bool {
    matches!(error, StoreError::Refused { .. } | StoreError::Denied { .. })
}

/// The groups joined and since when, while the claim is held.
fn joined(claim: &ClaimState) -> Option<&BTreeMap<GroupName, Revision>> {
    match claim {
        ClaimState::Held { joined, .. } => Some(joined),
        _ => None,
    }
}

/// Returns when the node has joined its groups at other revisions than `known`: the backend was replaced by an empty
/// one and counts from the start, so all that comes would look as if it had been there before this node joined.
async fn rejoined(claim: &mut watch::Receiver<ClaimState>, known: Option<&BTreeMap<GroupName, Revision>>) {
    if claim.wait_for(|claim| joined(claim).is_some_and(|joined| Some(joined) != known)).await.is_err() {
        // The agent stops, which is noticed elsewhere.
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

/// A deletion is ignored: a delivery that was read is run for, whichever process deleted it.
fn puts(changes: Vec<Change>) -> Vec<Entry> {
    let put = |change| match change {
        Change::Put(entry) => Some(entry),
        Change::Deleted(_) => None,
    };
    changes.into_iter().filter_map(put).collect()
}
