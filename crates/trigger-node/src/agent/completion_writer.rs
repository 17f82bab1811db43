//! Writes outcomes to the backend, the last steps of the order at a run's end (C4). It retries until it succeeds. After
//! a crash, the open run record starts the same steps again, and a delivery that ended without a run is judged again.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use trigger_core::backoff;
use trigger_core::delivery::Completion;
use trigger_core::event::Target;
use trigger_core::identity::{EventId, RunId};
use trigger_core::run::history::RunHistory;
use trigger_store::store::StoreError;

use super::Node;
use super::run_history::RunHistoryWriter;
use crate::host::Host;
use crate::state::Runs;

/// The most jobs that one batch holds.
const BATCH: usize = 256;

/// Deliveries beyond which no others are read until some of these are written: a backend in which an attacker has put any
/// number of forgeries delivers them faster than it takes their ends.
const MAX_UNWRITTEN: usize = 4096;

/// A job for the completion writer.
#[derive(Debug)]
pub(super) enum CompletionJob {
    /// Store how deliveries ended, delete them, then close the run's record.
    Finish { run: Option<RunId>, completions: Vec<Completion> },
    /// Delete deliveries of an event that ended before.
    DeleteDeliveries { event: EventId, addressed_as: BTreeSet<Target> },
}

impl CompletionJob {
    fn deliveries(&self) -> usize {
        match self {
            Self::Finish { completions, .. } => completions.len(),
            Self::DeleteDeliveries { .. } => 1,
        }
    }
}

/// Where jobs are sent to. The channel is unbounded, because a run's end must not wait; what is in it is bounded, because
/// no deliveries are read while [`Self::room`] waits, and runs that could not happen are minutes apart.
#[derive(Debug)]
pub(super) struct CompletionJobs {
    jobs: mpsc::UnboundedSender<CompletionJob>,
    /// Deliveries in all jobs that were sent.
    sent: usize,
    written: watch::Receiver<usize>,
}

/// The other end of [`CompletionJobs`].
#[derive(Debug)]
pub(super) struct JobsToDo {
    jobs: mpsc::UnboundedReceiver<CompletionJob>,
    /// Deliveries in all jobs that are done.
    written: watch::Sender<usize>,
}

pub(super) fn channel() -> (CompletionJobs, JobsToDo) {
    let (sender, jobs) = mpsc::unbounded_channel();
    let (written_in, written) = watch::channel(0);
    (CompletionJobs { jobs: sender, sent: 0, written }, JobsToDo { jobs, written: written_in })
}

impl CompletionJobs {
    pub(super) fn send(&mut self, job: CompletionJob) {
        self.sent += job.deliveries();
        if self.jobs.send(job).is_err() {
            tracing::error!(
                "the completion writer has ended; the next start of the agent writes its completions"
            );
        }
    }

    /// Returns once there is room for the ends of more deliveries.
    pub(super) async fn room(&self) {
        let has_room = |written: &usize| self.sent - written < MAX_UNWRITTEN;
        // Without a writer the agent ends.
        let _ = self.written.clone().wait_for(has_room).await;
    }
}

pub(super) async fn run<H: Host>(node: Arc<Node<H>>, runs: Runs<H>, mut to_do: JobsToDo) {
    let mut history_writer = RunHistoryWriter::new(runs.clone(), node.settings.certname.clone());
    let mut batch = Vec::with_capacity(BATCH);
    while to_do.jobs.recv_many(&mut batch, BATCH).await > 0 {
        let deliveries: usize = batch.iter().map(CompletionJob::deliveries).sum();
        let (mut completions, mut forgotten, mut to_close) = (Vec::new(), Vec::new(), Vec::new());
        for job in batch.drain(..) {
            match job {
                CompletionJob::Finish { run, completions: more } => {
                    history_writer.take_in(run, &more);
                    completions.extend(more);
                    to_close.extend(run);
                }
                CompletionJob::DeleteDeliveries { event, addressed_as } => {
                    forgotten.push((event, addressed_as))
                }
            }
        }
        let history = (!to_close.is_empty()).then_some(history_writer.history());
        carry(&node, Load { completions: &completions, forgotten: &forgotten, history, is_again: false })
            .await;
        for run in to_close {
            if let Err(error) = runs.close(run) {
                // Its outcome is stored: closing it again at the next start does no harm.
                tracing::error!(%error, "cannot close a completed run");
            }
        }
        to_do.written.send_modify(|written| *written += deliveries);
    }
}

/// The writes of one batch.
#[derive(Debug, Clone, Copy)]
struct Load<'a> {
    completions: &'a [Completion],
    /// Deliveries of events that ended before.
    forgotten: &'a [(EventId, BTreeSet<Target>)],
    history: Option<&'a RunHistory>,
    /// An earlier attempt failed. The backend may have been replaced since, and may lack outcomes that it had.
    is_again: bool,
}

/// Writes a batch. An outcome that the backend permanently refuses is logged and dropped, so that it does not hold up
/// the others; the batch is halved until that outcome is alone.
async fn carry<H: Host>(node: &Node<H>, mut load: Load<'_>) {
    let lost_at = node.host.elapsed();
    let mut attempt = 0;
    while let Err(error) = try_carry(node, load).await {
        load.is_again = true;
        if !error.is_transient() {
            if let [completion] = load.completions {
                tracing::error!(event = %completion.event, %error, "the backend refuses an outcome; it is dropped");
                if load.history.is_none() && load.forgotten.is_empty() {
                    return;
                }
                // What came with it is written without it.
                load.completions = &[];
                continue;
            }
            if load.completions.is_empty() {
                tracing::error!(%error, "the backend refuses to delete completed deliveries");
                return;
            }
            let (first, second) = load.completions.split_at(load.completions.len() / 2);
            Box::pin(carry(node, Load { completions: first, ..load })).await;
            Box::pin(carry(node, Load { completions: second, forgotten: &[], history: None, ..load })).await;
            return;
        }
        let lost_for = node.host.elapsed().saturating_sub(lost_at);
        let wait = backoff::reconnect(attempt, lost_for, node.host.jitter());
        if load.completions.is_empty() {
            tracing::warn!(%error, "what has ended waits for the backend");
        } else {
            tracing::warn!(deliveries = load.completions.len(), %error, "outcomes wait for the backend");
        }
        node.host.sleep(wait).await;
        attempt += 1;
    }
}

async fn try_carry<H: Host>(node: &Node<H>, load: Load<'_>) -> Result<(), StoreError> {
    let Load { completions, forgotten, history, is_again } = load;
    let fleet = &node.fleet;
    if !completions.is_empty() || history.is_some() {
        fleet.finish_runs(completions, history).await?;
    }
    if is_again {
        return fleet.delete_deliveries_with_outcome(forgotten).await;
    }
    let ended = forgotten.iter().map(|(event, addressed_as)| (*event, addressed_as));
    fleet.delete_deliveries(ended).await
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// Proves C13.
    #[tokio::test]
    async fn no_more_deliveries_are_read_than_their_ends_can_be_written() {
        let (mut jobs, mut to_do) = channel();
        let job = || CompletionJob::DeleteDeliveries {
            event: EventId::from_uuid(Uuid::from_u128(1)),
            addressed_as: BTreeSet::new(),
        };
        for _ in 0..MAX_UNWRITTEN {
            jobs.room().await;
            jobs.send(job());
        }
        // The end of a run does not wait.
        jobs.send(job());
        let has_room = async || {
            tokio::select! {
                biased;
                () = jobs.room() => true,
                () = std::future::ready(()) => false,
            }
        };
        assert!(!has_room().await);
        to_do.written.send_modify(|written| *written += 1);
        assert!(!has_room().await);
        to_do.written.send_modify(|written| *written += 1);
        assert!(has_room().await);
        assert_eq!(to_do.jobs.len(), MAX_UNWRITTEN + 1);
        assert!(to_do.jobs.try_recv().is_ok());
    }
}
