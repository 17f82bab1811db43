//! Reads this node's deliveries: what is there, then what comes, and all of it again whenever continuity
//! was lost and every ten minutes (contract 3). Level-triggered: it knows nothing of what it read before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};
use trigger_backend::deliveries::{self, Arrival};
use trigger_backend::store::{Change, Entry, KeyRange, StoreError, Watch, WatchEvent};
use trigger_core::backoff;
use trigger_core::identity::{GroupName, Revision};

use super::Node;
use super::registrar::ClaimState;
use crate::clock::jitter;
use crate::state::Breaker;

/// How often everything is read again without a reason, spread over the fleet: no backend's watch is
/// trusted for longer.
const READ_AGAIN: Duration = Duration::from_secs(10 * 60);

/// Whether the backend is watched now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    Up,
    Down(String),
}

pub(super) async fn run(
    node: Arc<Node>,
    breaker: Breaker,
    mut claim: watch::Receiver<ClaimState>,
    link: watch::Sender<Link>,
    arrivals: mpsc::Sender<Vec<Arrival>>,
) {
    // Which groups' deliveries are ours is known once we have registered.
    let Ok(joined) = joined_groups(&mut claim).await else { return };
    let intake = Intake { node, joined, arrivals };
    let mut lost_at = Instant::now();
    let mut attempt = 0;
    loop {
        let error = match intake.connect().await {
            Ok(watch) => {
                breaker.reset(&intake.node.settings.backend);
                link.send_replace(Link::Up);
                attempt = 0;
                let error = intake.follow(watch).await;
                lost_at = Instant::now();
                error
            }
            Err(error) => error,
        };
        if link.send_replace(Link::Down(error.to_string())) == Link::Up {
            tracing::warn!("the watch ended, everything is read again: {error}");
        }
        if intake.arrivals.is_closed() {
            return;
        }
        tokio::time::sleep(backoff::reconnect(attempt, lost_at.elapsed(), jitter())).await;
        attempt += 1;
    }
}

async fn joined_groups(
    claim: &mut watch::Receiver<ClaimState>,
) -> Result<BTreeMap<GroupName, Revision>, watch::error::RecvError> {
    let held = claim.wait_for(|state| matches!(state, ClaimState::Held { .. })).await?;
    match &*held {
        ClaimState::Held { joined } => Ok(joined.clone()),
        _ => Ok(BTreeMap::new()),
    }
}

struct Intake {
    node: Arc<Node>,
    joined: BTreeMap<GroupName, Revision>,
    arrivals: mpsc::Sender<Vec<Arrival>>,
}

impl Intake {
    fn ranges(&self) -> Vec<KeyRange> {
        let settings = &self.node.settings;
        deliveries::ranges(&settings.layout, &settings.certname, self.joined.keys().cloned())
    }

    async fn connect(&self) -> Result<Watch, StoreError> {
        self.node.store.watch(self.ranges()).await
    }

    /// Passes on what the watch reports until it ends; returns why it did.
    async fn follow(&self, mut watch: Watch) -> StoreError {
        let lost = |detail: &str| StoreError::Unreachable {
            backend: self.node.store.address().to_owned(),
            detail: detail.to_owned(),
        };
        loop {
            let read_again = tokio::time::sleep(READ_AGAIN.mul_f64(0.75 + jitter() / 2.0));
            let entries = tokio::select! {
                event = watch.next() => match event {
                    Some(Ok(WatchEvent::Snapshot(entries))) => entries,
                    Some(Ok(WatchEvent::Changes(changes))) => puts(changes),
                    Some(Err(error)) => return error,
                    None => return lost("the watch ended"),
                },
                () = read_again => match self.node.store.read(&self.ranges()).await {
                    Ok(entries) => entries,
                    Err(error) => return error,
                },
            };
            match self.pass_on(entries).await {
                Ok(true) => {}
                Ok(false) => return lost("the agent stops"),
                Err(error) => return error,
            }
        }
    }

    /// Reads the events behind deliveries; false when nobody listens any more.
    async fn pass_on(&self, entries: Vec<Entry>) -> Result<bool, StoreError> {
        if entries.is_empty() {
            return Ok(true);
        }
        let settings = &self.node.settings;
        let store = self.node.store.as_ref();
        let arrivals =
            deliveries::read(store, &settings.layout, &settings.certname, &self.joined, entries).await?;
        Ok(arrivals.is_empty() || self.arrivals.send(arrivals).await.is_ok())
    }
}

/// A deleted delivery says nothing: what was read is run for, whoever deleted it.
fn puts(changes: Vec<Change>) -> Vec<Entry> {
    let put = |change| match change {
        Change::Put(entry) => Some(entry),
        Change::Deleted(_) => None,
    };
    changes.into_iter().filter_map(put).collect()
}
