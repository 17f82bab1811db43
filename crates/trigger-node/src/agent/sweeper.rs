//! Sweeps the backend, so that it holds no data that no node needs. Each agent checks about once an hour whether any
//! agent has swept recently, and sweeps if none has. None does on a backend that sweeps by itself.

use std::sync::Arc;
use std::time::Duration;

use trigger_core::identity::Revision;
use trigger_store::store::StoreError;

use super::Node;
use crate::host::Host;

/// How often an agent checks, with jitter across the fleet.
const POLL_INTERVAL: Duration = Duration::from_secs(60 * 60);

pub(super) async fn run<H: Host>(node: Arc<Node<H>>) {
    if node.fleet.store().sweeps_itself() {
        // The agent ends when one of its tasks does.
        std::future::pending::<()>().await;
    }
    let mut last_seen = None;
    let mut is_first_look = true;
    loop {
        node.host.sleep(POLL_INTERVAL.mul_f64(0.5 + node.host.jitter())).await;
        match look(&node, last_seen, is_first_look).await {
            Ok(seen) => {
                last_seen = seen;
                is_first_look = false;
            }
            Err(error) => tracing::warn!(%error, "cannot sweep the backend now"),
        }
    }
}

async fn look<H: Host>(
    node: &Node<H>,
    last_seen: Option<Revision>,
    is_first_look: bool,
) -> Result<Option<Revision>, StoreError> {
    let (is_ours, seen) = node.fleet.try_acquire_sweep(last_seen, is_first_look).await?;
    if is_ours {
        let swept = node.fleet.sweep(node.host.wall(), last_seen).await?;
        tracing::info!(expired = swept.expired, removed = swept.removed, "swept the backend");
    }
    Ok(seen)
}
