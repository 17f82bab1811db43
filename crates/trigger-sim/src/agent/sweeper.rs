//! Sweeps the backend now and then, as in the `trigger` crate's `agent/sweeper.rs`.

use std::sync::Arc;
use std::time::Duration;

use trigger_core::identity::Revision;
use trigger_store::store::StoreError;

use super::Node;

const POLL_INTERVAL: Duration = Duration::from_secs(60 * 60);

pub(super) async fn run(node: Arc<Node>) {
    let mut last_seen = None;
    let mut is_first_look = true;
    loop {
        node.own.sim.sleep(POLL_INTERVAL.mul_f64(0.5 + node.own.jitter())).await;
        if let Ok(seen) = look(&node, last_seen, is_first_look).await {
            last_seen = seen;
            is_first_look = false;
        }
    }
}

async fn look(
    node: &Node,
    last_seen: Option<Revision>,
    is_first_look: bool,
) -> Result<Option<Revision>, StoreError> {
    let (is_ours, seen) = node.fleet.try_acquire_sweep(last_seen, is_first_look).await?;
    if is_ours {
        let swept = node.fleet.sweep(node.own.wall(), last_seen).await?;
        node.own.note(format_args!("swept: {swept:?}"));
        node.own.with(|world| {
            world.count("sweep");
            (0..swept.expired).for_each(|_| world.count("delivery expired by a sweeper"));
            (0..swept.removed).for_each(|_| world.count("event removed by a sweeper"));
        });
    }
    Ok(seen)
}
