//! Writes outcomes to the backend, the last steps of the order at a run's end (C4). It retries until it succeeds. After
//! a crash, the open run record starts the same steps again, and a delivery that ended without a run is judged again.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;
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

/// A job for the completion writer. The channel is unbounded, but the number of jobs is bounded by the deliveries that
/// arrive and by the attempts at runs that could not happen: while the backend is unreachable no delivery arrives, and
/// attempts are minutes apart.
#[derive(Debug)]
pub(super) enum CompletionJob {
    /// Store how deliveries ended, delete them, then close the run's record.
    Finish { run: Option<RunId>, completions: Vec<Completion> },
    /// Delete deliveries of an event that ended before.
    DeleteDeliveries { event: EventId, addressed_as: BTreeSet<Target> },
}

pub(super) async fn run<H: Host>(
    node: Arc<Node<H>>,
    runs: Runs<H>,
    mut completions: UnboundedReceiver<CompletionJob>,
) {
    let mut history_writer = RunHistoryWriter::new(runs.clone(), node.settings.certname.clone());
    let mut batch = Vec::with_capacity(BATCH);
    while completions.recv_many(&mut batch, BATCH).await > 0 {
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
