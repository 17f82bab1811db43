//! Watches this node's deliveries: connects, and connects again whenever a watch has ended.
//! [`trigger_fleet::delivery_watcher`] decides which deliveries are read, and when.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use trigger_core::{backoff, duration};
use trigger_fleet::claim::ClaimState;
use trigger_fleet::delivery_watcher::{DeliveryWatcher, Outlets, read_again_after};

use super::Node;
use super::connection::Connection;
use crate::host::Host;
use crate::state::Breaker;

pub(super) async fn run<H: Host>(
    node: Arc<Node<H>>,
    breaker: Breaker<H>,
    claim: watch::Receiver<ClaimState>,
    link: watch::Sender<Connection>,
    outlets: Outlets,
) {
    let host = node.host.clone();
    let mut watcher = DeliveryWatcher::new(node.fleet.clone(), claim, outlets);
    let pause = |most: Duration| host.sleep(read_again_after(host.jitter()).min(most));
    let mut lost_at = host.elapsed();
    let mut attempt = 0;
    loop {
        let error = match watcher.connect().await {
            Ok(watch) => {
                breaker.reset(&node.settings.backend.to_string());
                if matches!(link.send_replace(Connection::Up), Connection::Down(_)) {
                    let after = duration::format_short(host.elapsed().saturating_sub(lost_at));
                    tracing::info!(backend = %node.settings.backend, %after, "connected to the backend again");
                }
                attempt = 0;
                let error = watcher.follow(watch, pause).await;
                lost_at = host.elapsed();
                error
            }
            Err(error) => error,
        };
        match link.send_replace(Connection::Down(error.to_string())) {
            Connection::Up => {
                tracing::warn!(%error, "the connection to the backend is lost; all deliveries are read again after it");
            }
            Connection::NotTried => {
                tracing::warn!(%error, "the backend cannot be watched yet; it is tried again and again");
            }
            Connection::Down(_) => {}
        }
        if watcher.is_closed() {
            return;
        }
        let lost_for = host.elapsed().saturating_sub(lost_at);
        host.sleep(backoff::reconnect(attempt, lost_for, host.jitter())).await;
        attempt += 1;
    }
}
