//! Carries outcomes to the backend, as in the `trigger` crate's `agent/courier.rs`.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;
use trigger_core::backoff;
use trigger_core::history::RunHistory;
use trigger_core::identity::{EventId, RunId};
use trigger_core::queue::{Ending, Source};
use trigger_fleet::outcomes;
use trigger_store::store::StoreError;

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
        carry(&node, Load { endings: &endings, forgotten: &forgotten, history: told, is_again: false }).await;
        for run in to_close {
            node.own.step("courier: before a record is closed").await;
            node.own.disk(|disk| runs::close(disk, run));
            node.own.note(format_args!("run {run} closed"));
        }
    }
}

#[derive(Clone, Copy)]
struct Load<'a> {
    endings: &'a [Ending],
    forgotten: &'a [(EventId, BTreeSet<Source>)],
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
    let Load { endings, forgotten, history, is_again } = load;
    let store = &node.store;
    if !endings.is_empty() || history.is_some() {
        outcomes::finish_runs(store, &node.layout, &node.certname, endings, history).await?;
    }
    if is_again {
        return outcomes::delete_told(store, &node.layout, &node.certname, forgotten).await;
    }
    let ended = forgotten.iter().map(|(event, sources)| (*event, sources));
    outcomes::delete(store, &node.layout, &node.certname, ended).await
}
