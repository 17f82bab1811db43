//! Keeps a watch open for the real intake, as the `trigger` crate's `agent/intake.rs` does.

use std::sync::Arc;

use tokio::sync::watch;
use trigger_core::backoff;
use trigger_fleet::claim::ClaimState;
use trigger_fleet::delivery_watcher::{DeliveryWatcher, Outlets, read_again_after};

use super::Node;

pub(super) async fn run(
    node: Arc<Node>,
    claim: watch::Receiver<ClaimState>,
    link: watch::Sender<bool>,
    outlets: Outlets,
) {
    let mut watcher = DeliveryWatcher::new(node.fleet.clone(), claim, outlets);
    let own = node.own.clone();
    let mut lost_at = own.sim.now();
    let mut attempt = 0;
    loop {
        if let Ok(watch) = watcher.connect().await {
            link.send_replace(true);
            attempt = 0;
            let pause = || async {
                own.sim.sleep(read_again_after(own.jitter())).await;
                own.with(|world| world.count("read again"));
            };
            watcher.follow(watch, pause).await;
            lost_at = own.sim.now();
        }
        link.send_replace(false);
        let lost_for = own.sim.now() - lost_at;
        own.sim.sleep(backoff::reconnect(attempt, lost_for, own.jitter())).await;
        attempt += 1;
    }
}
