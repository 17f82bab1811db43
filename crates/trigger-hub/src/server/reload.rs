//! Keeps the TLS files up to date, and closes the connections of those who are no longer trusted.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use trigger_pki::Untrusted;

use super::clock::now;
use super::connection_audit;
use super::handshake_error::untrusted_label;
use super::metrics::Metrics;
use super::shares::{LiveConnection, Shares};
use super::tls::Tls;

/// How often the hub looks whether its files have changed. It is a few calls to the system.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Reads changed files and closes connections, for as long as it is polled.
pub(super) async fn keep_up_to_date(tls: Arc<Tls>, shares: Arc<Shares>, metrics: Arc<Metrics>) {
    let mut checks = interval(CHECK_INTERVAL);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut reported, mut problems) = (None, BTreeSet::new());
    loop {
        checks.tick().await;
        let reloading = Arc::clone(&tls);
        // Some problems come with time alone.
        let look = move || (reloading.reload(), reloading.problems(now()));
        let (reloaded, present) = match spawn_blocking(look).await {
            Ok(looked) => looked,
            Err(panicked) => {
                tracing::error!(%panicked, "the TLS files could not be checked");
                continue;
            }
        };
        let has_changed = match reloaded {
            Ok(has_changed) => {
                if has_changed {
                    metrics.reloaded("ok");
                    tracing::info!("certificates and revocation lists were read again after a change");
                }
                reported = None;
                has_changed
            }
            Err(error) => {
                let sentence = error.to_string();
                if reported.as_ref() != Some(&sentence) {
                    metrics.reloaded("failed");
                    tracing::warn!("changed TLS files are not used, those of before stay in use: {sentence}");
                    reported = Some(sentence);
                }
                false
            }
        };
        report_new(&mut problems, present);
        let connections = shares.connections();
        metrics.tls_connections(connections.len());
        let refused = if has_changed {
            let tls = Arc::clone(&tls);
            // A fleet's certificates take a while to verify.
            spawn_blocking(move || untrusted(&tls, connections, |_| true)).await.unwrap_or_default()
        } else {
            // Without a change only time passes.
            untrusted(&tls, connections, |live| live.presented.peer.not_after < now())
        };
        for (live, reason) in refused {
            let certname = live.presented.peer.certname.as_str();
            metrics.closed(untrusted_label(&reason));
            tracing::warn!(certname, peer = %live.address, "a connection is closed: {reason}");
            connection_audit::closed(&live, &reason.to_string());
            live.close();
        }
        shares.clean_up();
    }
}

/// Logs the problems that are not `known`, which are the present ones afterwards.
fn report_new(known: &mut BTreeSet<String>, present: BTreeSet<String>) {
    for problem in present.difference(known) {
        tracing::warn!("{problem}");
    }
    *known = present;
}

/// Those of some connections whose certificate is not trusted any more, with the reason. Each certificate is verified once.
fn untrusted(
    tls: &Tls,
    connections: Vec<Arc<LiveConnection>>,
    needs_check: impl Fn(&LiveConnection) -> bool,
) -> Vec<(Arc<LiveConnection>, Untrusted)> {
    let mut known = HashMap::new();
    let mut refused = Vec::new();
    for live in connections {
        if !needs_check(&live) {
            continue;
        }
        let verdict =
            known.entry(Arc::as_ptr(&live.presented)).or_insert_with(|| tls.verify(&live.presented).err());
        if let Some(reason) = verdict.clone() {
            refused.push((live, reason));
        }
    }
    refused
}
