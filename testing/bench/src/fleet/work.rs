//! The deliveries that are pending at one agent of the fleet, and their outcomes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use trigger_core::backoff;
use trigger_core::delivery::{Completion, DeliveryOutcome};
use trigger_core::event::RunOptions;
use trigger_core::identity::{Certname, EventId, RunId};
use trigger_core::run::history::{MAX_RUNS, PastRun, RunHistory};
use trigger_core::run::record::{Cause, RunRecord};
use trigger_core::run::{CompletedRun, RunOutcome, RunResult};
use trigger_core::time::Timestamp;
use trigger_fleet::Fleet;
use trigger_fleet::deliveries::Arrival;
use trigger_fleet::delivery_watcher::Batch;

use super::clock::{Jitter, wall};

pub(super) struct Work<'a> {
    fleet: &'a Fleet,
    certname: &'a Certname,
    jitter: &'a Jitter,
    waiting: Vec<Cause>,
    /// All events that ever arrived: an event is read repeatedly until its delivery is deleted.
    known: BTreeSet<EventId>,
    history: RunHistory,
}

impl<'a> Work<'a> {
    pub(super) fn new(fleet: &'a Fleet, certname: &'a Certname, jitter: &'a Jitter) -> Self {
        let (waiting, known, history) = (Vec::new(), BTreeSet::new(), RunHistory::default());
        Self { fleet, certname, jitter, waiting, known, history }
    }

    /// Takes in a batch and returns the new events.
    pub(super) async fn take_in(&mut self, batch: Batch) -> Vec<EventId> {
        let mut new = Vec::new();
        for arrival in batch.arrivals {
            match arrival {
                Arrival::Pending(cause) if self.known.insert(cause.event.id) => {
                    new.push(cause.event.id);
                    self.waiting.push(*cause);
                }
                Arrival::HasOutcome { event, target } => {
                    // A delivery that still exists is read again.
                    let _ = self.fleet.delete_deliveries([(event, &[target].into())]).await;
                }
                _ => {}
            }
        }
        new
    }

    /// Returns the causes of the next run, if there are any.
    pub(super) fn next(&mut self) -> Option<Vec<Cause>> {
        (!self.waiting.is_empty()).then(|| std::mem::take(&mut self.waiting))
    }

    /// Stores the outcome of a run that found nothing to change, and retries until that succeeds.
    pub(super) async fn finish(&mut self, run_id: RunId, started_at: Timestamp, causes: Vec<Cause>) {
        let result = RunResult {
            outcome: RunOutcome::Unchanged,
            reason: None,
            reported_noop: false,
            drift: Default::default(),
            started_at,
            finished_at: wall(),
        };
        let end = DeliveryOutcome::Done(CompletedRun::new(run_id, false, result.clone()));
        let completion = |cause: &Cause| Completion {
            event: cause.event.id,
            addressed_as: cause.addressed_as.clone(),
            outcome: end.clone(),
        };
        let completions: Vec<Completion> = causes.iter().map(completion).collect();
        self.record_past(PastRun::of(&self.record(run_id, started_at, causes), result, 0, []));

        let (mut attempt, lost_at) = (0, Instant::now());
        while self.fleet.finish_runs(&completions, Some(&self.history)).await.is_err() {
            let wait = backoff::reconnect(attempt, lost_at.elapsed(), self.jitter.next());
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    /// Adds a run to the history. A node that has worked for a while reports many runs, and so does this one from its
    /// first.
    fn record_past(&mut self, past: PastRun) {
        for _ in self.history.runs.len() + 1..MAX_RUNS {
            let run = CompletedRun { run_id: RunId::from_uuid(uuid::Uuid::now_v7()), ..past.run.clone() };
            self.history.push(PastRun { run, ..past.clone() });
        }
        self.history.push(past);
    }

    fn record(&self, run_id: RunId, started_at: Timestamp, causes: Vec<Cause>) -> RunRecord {
        RunRecord {
            run_id,
            certname: self.certname.clone(),
            command: Vec::new(),
            options: RunOptions::default(),
            timeout: Duration::ZERO,
            started_at,
            causes,
            environment: BTreeMap::new(),
        }
    }
}
