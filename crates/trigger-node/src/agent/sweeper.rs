//! Sweeps the backend now and then, so that it holds what somebody still needs and no more. Each agent looks
//! about once an hour whether anybody has; whoever finds that nobody did, does.

use std::sync::Arc;
use std::time::Duration;

use trigger_core::identity::Revision;
use trigger_store::store::StoreError;

use super::Node;
use crate::host::Host;

/// How often an agent looks, spread over the fleet.
const POLL_INTERVAL: Duration = Duration::from_secs(60 * 60);

pub(super) async fn run<H: Host>(node: Arc<Node<H>>) {
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
