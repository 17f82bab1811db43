//! Carries outcomes to the backend, as in the `trigger` crate's `agent/courier.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;
use trigger_backend::outcomes;
use trigger_backend::store::StoreError;
use trigger_core::backoff;
use trigger_core::history::RunHistory;
use trigger_core::identity::{EventId, RunId};
use trigger_core::queue::{Ending, Source};

use super::Node;
use crate::runs;

const BATCH: usize = 256;

/// Something to carry.
#[derive(Debug)]
pub(super) enum Errand {
    Finish { run: Option<RunId>, endings: Vec<Ending> },
    Forget { event: EventId, sources: BTreeSet<Source> },
}

pub(super) async fn run(node: Arc<Node>, mut errands: UnboundedReceiver<Errand>) {
    let mut history = node.own.disk(|disk| runs::history(disk));
    let mut batch = Vec::with_capacity(BATCH);
    while errands.recv_many(&mut batch, BATCH).await > 0 {
        node.own.step("courier: errands taken").await;
        let (mut endings, mut forgotten, mut to_close) = (Vec::new(), Vec::new(), Vec::new());
        for errand in batch.drain(..) {
            match errand {
                Errand::Finish { run, endings: more } => {
                    if let Some(past) = run.and_then(|run| node.own.disk(|disk| runs::past_run(disk, run))) {
                        history.push(past);
                    }
                    endings.extend(more);
                    to_close.extend(run);
                }
                Errand::Forget { event, sources } => forgotten.push((event, sources)),
            }
        }
        let told = (!to_close.is_empty()).then_some(&history);
        carry(&node, &endings, &forgotten, told).await;
        for run in to_close {
            node.own.step("courier: before a record is closed").await;
            node.own.disk(|disk| runs::close(disk, run));
            node.own.note(format_args!("run {run} closed"));
        }
    }
}

async fn carry(
    node: &Node,
    endings: &[Ending],
    mut forgotten: &[(EventId, BTreeSet<Source>)],
    history: Option<&RunHistory>,
) {
    let lost_at = node.own.sim.now();
    let mut attempt = 0;
    while try_carry(node, endings, forgotten, history).await.is_err() {
        forgotten = &[];
        let lost_for = node.own.sim.now() - lost_at;
        node.own.sim.sleep(backoff::reconnect(attempt, lost_for, node.own.jitter())).await;
        attempt += 1;
    }
}

async fn try_carry(
    node: &Node,
    endings: &[Ending],
    forgotten: &[(EventId, BTreeSet<Source>)],
    history: Option<&RunHistory>,
) -> Result<(), StoreError> {
    let store = &node.store;
    if !endings.is_empty() || history.is_some() {
        outcomes::finish_runs(store, &node.layout, &node.certname, endings, history).await?;
    }
    let ended = forgotten.iter().map(|(event, sources)| (*event, sources));
    outcomes::delete(store, &node.layout, &node.certname, ended).await
}
