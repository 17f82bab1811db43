//! Keeps a watch open for the real intake, as the `trigger` crate's `agent/intake.rs` does.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use trigger_backend::claim::Standing;
use trigger_backend::intake::{Intake, Outlets, read_again_after};
use trigger_core::backoff;
use trigger_core::identity::{GroupName, Revision};

use super::Node;

pub(super) async fn run(
    node: Arc<Node>,
    mut claim: watch::Receiver<Standing>,
    link: watch::Sender<bool>,
    outlets: Outlets,
) {
    let Some(joined) = joined_groups(&mut claim).await else { return };
    let intake = Intake::new(node.layout.clone(), node.certname.clone(), joined, outlets);
    let own = node.own.clone();
    let mut lost_at = own.sim.now();
    let mut attempt = 0;
    loop {
        if let Ok(watch) = intake.connect(&node.store).await {
            link.send_replace(true);
            attempt = 0;
            let pause = || async {
                own.sim.sleep(read_again_after(own.jitter())).await;
                own.with(|world| world.count("read again"));
            };
            intake.follow(&node.store, watch, pause).await;
            lost_at = own.sim.now();
        }
        link.send_replace(false);
        let lost_for = own.sim.now() - lost_at;
        own.sim.sleep(backoff::reconnect(attempt, lost_for, own.jitter())).await;
        attempt += 1;
    }
}

async fn joined_groups(claim: &mut watch::Receiver<Standing>) -> Option<BTreeMap<GroupName, Revision>> {
    let held = claim.wait_for(|state| matches!(state, Standing::Held { .. })).await.ok()?;
    match &*held {
        Standing::Held { joined, .. } => Some(joined.clone()),
        _ => None,
    }
}
