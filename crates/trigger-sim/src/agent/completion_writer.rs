//! Carries outcomes to the backend, as in the `trigger` crate's `agent/courier.rs`.

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
use crate::runs;

const BATCH: usize = 256;

/// Something to carry.
#[derive(Debug)]
pub(super) enum CompletionJob {
    Finish { run: Option<RunId>, completions: Vec<Completion> },
    DeleteDeliveries { event: EventId, addressed_as: BTreeSet<Target> },
}

pub(super) async fn run(node: Arc<Node>, mut completions: UnboundedReceiver<CompletionJob>) {
    let mut history = node.own.disk(|disk| runs::history(disk));
    let mut batch = Vec::with_capacity(BATCH);
    while completions.recv_many(&mut batch, BATCH).await > 0 {
        node.own.step("courier: completions taken").await;
        let (mut completions, mut forgotten, mut to_close) = (Vec::new(), Vec::new(), Vec::new());
        for job in batch.drain(..) {
            match job {
                CompletionJob::Finish { run, completions: more } => {
                    if let Some(past) = run.and_then(|run| node.own.disk(|disk| runs::past_run(disk, run))) {
                        history.push(past);
                    }
                    completions.extend(more);
                    to_close.extend(run);
                }
                CompletionJob::DeleteDeliveries { event, addressed_as } => {
                    forgotten.push((event, addressed_as))
                }
            }
        }
        let told = (!to_close.is_empty()).then_some(&history);
        carry(
            &node,
            Load { completions: &completions, forgotten: &forgotten, history: told, is_again: false },
        )
        .await;
        for run in to_close {
            node.own.step("courier: before a record is closed").await;
            node.own.disk(|disk| runs::close(disk, run));
            node.own.note(format_args!("run {run} closed"));
        }
    }
}

#[derive(Clone, Copy)]
struct Load<'a> {
    completions: &'a [Completion],
    forgotten: &'a [(EventId, BTreeSet<Target>)],
    history: Option<&'a RunHistory>,
    is_again: bool,
}

async fn carry(node: &Node, mut load: Load<'_>) {
    let lost_at = node.own.sim.now();
    let mut attempt = 0;
    while try_carry(node, load).await.is_err() {
        load.is_again = true;
        let lost_for = node.own.sim.now() - lost_at;
        node.own.sim.sleep(backoff::reconnect(attempt, lost_for, node.own.jitter())).await;
        attempt += 1;
    }
}

async fn try_carry(node: &Node, load: Load<'_>) -> Result<(), StoreError> {
    let Load { completions, forgotten, history, is_again } = load;
    if !completions.is_empty() || history.is_some() {
        node.fleet.finish_runs(completions, history).await?;
    }
    if is_again {
        return node.fleet.delete_deliveries_with_outcome(forgotten).await;
    }
    let ended = forgotten.iter().map(|(event, addressed_as)| (*event, addressed_as));
    node.fleet.delete_deliveries(ended).await
}
