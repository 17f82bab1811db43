//! One agent without its runs: it sends the backend all the requests that the real one sends, through the same
//! functions. These are its registration and claim, with its current activity; its deliveries and its own record,
//! which it watches; and its outcomes with the history of its runs. A run is a pause.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use trigger_core::backoff;
use trigger_core::identity::{Certname, Revision, RunId};
use trigger_core::node::{Activity, Running};
use trigger_core::run::record::Cause;
use trigger_core::time::Now;
use trigger_fleet::Fleet;
use trigger_fleet::claim::{Claim, ClaimState, Claimant};
use trigger_fleet::delivery_watcher::{Batch, DeliveryWatcher, Outlets, read_again_after};

use super::clock::{Jitter, wall};
use super::seen::Seen;
use super::work::Work;

/// The time over which the starts of the agents are spread, since a fleet does not start at one moment.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// The length of a run, equal to the agent's minimum interval between the starts of two runs: events that arrive
/// meanwhile share the next run.
const RUN: Duration = Duration::from_secs(1);
/// The delay before a change of activity is written, as in the agent's registration task.
const ACTIVITY_DELAY: Duration = Duration::from_millis(50);
/// The number of batches of deliveries that may wait to be processed, as in the agent.
const BATCHES: usize = 16;

pub(super) struct Client {
    fleet: Fleet,
    certname: Certname,
    jitter: Jitter,
    started: Instant,
    seen: Arc<Mutex<Seen>>,
}

impl Client {
    pub(super) fn new(fleet: Fleet, certname: Certname, spread: f64, seen: Arc<Mutex<Seen>>) -> Self {
        let fleet = fleet.acting_as(certname.clone());
        Self { fleet, certname, jitter: Jitter::new(spread), started: Instant::now(), seen }
    }

    pub(super) async fn run(self) {
        tokio::time::sleep(START_TIMEOUT.mul_f64(self.jitter.spread())).await;
        let claim = self.register().await;
        let (activity, changes) = watch::channel(Activity::default());
        let (arrivals, batches) = mpsc::channel(BATCHES);
        // The agent would see another claimant of the certname here. There is none, so the value is not read.
        let (own_record, _unseen) = watch::channel(Revision::default());
        // No node asks for the output of a run.
        let (log_requests, _none) = mpsc::channel(1);
        let outlets = Outlets { arrivals, own_record, log_requests };
        // The agent holds its certname, and belongs to no groups.
        let (_held, standing) = watch::channel(claim.state(self.started.elapsed()));
        let watcher = DeliveryWatcher::new(self.fleet.clone(), standing, outlets);
        tokio::join!(self.keep(claim, changes), self.follow(watcher), self.work(batches, activity));
    }

    fn see(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Registers the agent, which reads no deliveries before that.
    async fn register(&self) -> Claim {
        let claimant = Claimant {
            instance: uuid::Uuid::now_v7().to_string(),
            lock: None,
            may_inherit: false,
            ended: Vec::new(),
            host: "bench".to_owned(),
            pid: std::process::id(),
            directory: format!("/var/lib/trigger/{}", self.certname),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            groups: Vec::new(),
        };
        let elapsed = self.started.elapsed();
        let mut claim = Claim::new(self.fleet.clone(), claimant, BTreeMap::new(), elapsed);
        while !matches!(claim.state(self.started.elapsed()), ClaimState::Held { .. }) {
            tokio::time::sleep(claim.pause(self.started.elapsed(), self.jitter.next())).await;
            let _ = claim.renew(&Activity::default(), self.now()).await;
        }
        claim
    }

    /// Renews the claim in time, and whenever the activity changes.
    async fn keep(&self, mut claim: Claim, mut activity: watch::Receiver<Activity>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(claim.pause(self.started.elapsed(), self.jitter.next())) => {}
                () = change(&mut activity), if claim.publishes_activity() => {}
            }
            let doing = activity.borrow_and_update().clone();
            let _ = claim.renew(&doing, self.now()).await;
        }
    }

    /// Reads deliveries, and reconnects whenever the watch ends.
    async fn follow(&self, mut watcher: DeliveryWatcher) {
        let pause = |most: Duration| tokio::time::sleep(read_again_after(self.jitter.next()).min(most));
        let (mut attempt, mut lost_at) = (0, Instant::now());
        loop {
            if let Ok(watch) = watcher.connect().await {
                self.see(|seen| seen.watches(&self.certname, true));
                attempt = 0;
                watcher.follow(watch, pause).await;
                self.see(|seen| seen.watches(&self.certname, false));
                lost_at = Instant::now();
            }
            tokio::time::sleep(backoff::reconnect(attempt, lost_at.elapsed(), self.jitter.next())).await;
            attempt += 1;
        }
    }

    /// Performs one run after the other, each for all pending deliveries.
    async fn work(&self, mut batches: mpsc::Receiver<Batch>, activity: watch::Sender<Activity>) {
        let mut work = Work::new(&self.fleet, &self.certname, &self.jitter);
        while let Some(batch) = batches.recv().await {
            self.take_in(&mut work, batch).await;
            while let Some(causes) = work.next() {
                let run_id = RunId::from_uuid(uuid::Uuid::now_v7());
                activity.send_replace(running(run_id, &causes));
                let started_at = wall();
                let over_at = tokio::time::Instant::now() + RUN;
                while let Ok(Some(batch)) = tokio::time::timeout_at(over_at, batches.recv()).await {
                    self.take_in(&mut work, batch).await;
                }
                let events: Vec<_> = causes.iter().map(|cause| cause.event.id).collect();
                work.finish(run_id, started_at, causes).await;
                self.see(|seen| events.iter().for_each(|event| seen.finished(&self.certname, *event)));
                activity.send_replace(Activity::default());
            }
        }
    }

    async fn take_in(&self, work: &mut Work<'_>, batch: Batch) {
        for event in work.take_in(batch).await {
            self.see(|seen| seen.arrived(&self.certname, event));
        }
    }

    fn now(&self) -> Now {
        Now { wall: wall(), elapsed: self.started.elapsed() }
    }
}

/// Returns when the activity changes.
async fn change(activity: &mut watch::Receiver<Activity>) {
    if activity.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(ACTIVITY_DELAY).await;
}

fn running(run_id: RunId, causes: &[Cause]) -> Activity {
    let causes = causes.iter().map(|cause| cause.event.id).collect();
    Activity { running: Some(Running { run_id, started_at: wall(), causes }), ..Activity::default() }
}
