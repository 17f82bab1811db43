//! Empties the outbox: when the backend is reachable again, after an event was spooled, and periodically for the events
//! that another process spooled.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use trigger_core::backoff;

use super::connection::Connection;
use crate::firing::{Drained, Publisher};
use crate::host::Host;

/// How often the outbox is read without a notification, with jitter across the fleet.
const POLL_INTERVAL: Duration = Duration::from_secs(30);

pub(super) async fn run<H: Host>(
    host: H,
    publisher: Arc<Publisher<H>>,
    mut link: watch::Receiver<Connection>,
) {
    let mut attempt = 0;
    let mut failing_since = host.elapsed();
    loop {
        // The state of this agent's own link and claim does not matter: events may be for another backend.
        link.mark_unchanged();
        match publisher.drain(false).await {
            Ok(drained) => {
                log(&drained);
                attempt = if drained.left > 0 { attempt + 1 } else { 0 };
            }
            Err(error) => tracing::error!(%error, "the outbox cannot be emptied"),
        }
        if attempt == 0 {
            failing_since = host.elapsed();
        }
        let pause = match attempt {
            0 => POLL_INTERVAL.mul_f64(0.5 + host.jitter()),
            _ => {
                let failing_for = host.elapsed().saturating_sub(failing_since);
                backoff::reconnect(attempt, failing_for, host.jitter())
            }
        };
        tokio::select! {
            biased;
            () = host.sleep(pause) => {}
            // A failed publish need not close the watch's connection, and then `link` does not change.
            () = publisher.has_spooled(), if attempt == 0 => attempt = 1,
            changed = link.changed() => if changed.is_err() { return },
        }
    }
}

fn log(drained: &Drained) {
    if drained.published > 0 {
        tracing::info!(events = drained.published, "the outbox was published");
    }
    for file in &drained.quarantined {
        tracing::error!(path = %file.path.display(), reason = file.reason, "a spooled event is quarantined");
    }
}
