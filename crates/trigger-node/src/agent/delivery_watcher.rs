//! Watches this node's deliveries: connects, and connects again whenever a watch has ended.
//! [`trigger_fleet::delivery_watcher`] decides which deliveries are read, and when.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use trigger_core::{backoff, duration};
use trigger_fleet::claim::ClaimState;
use trigger_fleet::delivery_watcher::{DeliveryWatcher, Outlets, read_again_after};
use trigger_store::store::StoreError;

use super::Node;
use super::connection::Connection;
use crate::host::Host;
use crate::state::Breaker;

/// How many reasons are logged of one interruption.
const MAX_REPORTED: usize = 8;

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
    let mut reported = BTreeSet::new();
    loop {
        let error = match watcher.connect().await {
            Ok(watch) => {
                breaker.reset(&node.settings.backend.to_string());
                if matches!(link.send_replace(Connection::Up), Connection::Down(_)) {
                    let after = duration::format_short(host.elapsed().saturating_sub(lost_at));
                    tracing::info!(backend = %node.settings.backend, %after, "connected to the backend again");
                }
                reported.clear();
                attempt = 0;
                let error = watcher.follow(watch, pause).await;
                lost_at = host.elapsed();
                error
            }
            Err(error) => error,
        };
        report(&mut reported, &link.borrow(), &error);
        link.send_replace(Connection::Down(error.to_string()));
        if watcher.is_closed() {
            return;
        }
        let lost_for = host.elapsed().saturating_sub(lost_at);
        host.sleep(backoff::reconnect(attempt, lost_for, host.jitter())).await;
        attempt += 1;
    }
}

/// Logs why the backend is not watched, each reason once: after the end of a watch, the next attempt may be the one that
/// says why, such as that this node's certificate is revoked.
fn report(reported: &mut BTreeSet<String>, link: &Connection, error: &StoreError) {
    let is_known = reported.contains(&error.to_string());
    match link {
        Connection::Up => {
            tracing::warn!(%error, "the connection to the backend is lost; all deliveries are read again after it");
        }
        Connection::NotTried => {
            tracing::warn!(%error, "the backend cannot be watched yet; it is tried again and again");
        }
        Connection::Down(_) if is_known || reported.len() >= MAX_REPORTED => {}
        Connection::Down(_) => tracing::warn!(%error, "the backend still cannot be watched"),
    }
    if reported.len() < MAX_REPORTED {
        reported.insert(error.to_string());
    }
}
