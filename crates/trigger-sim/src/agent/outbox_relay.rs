//! Empties the outbox, as in the `trigger` crate's `agent/drainer.rs`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use trigger_core::backoff;

use crate::firing;
use crate::process::Proc;

const POLL_INTERVAL: Duration = Duration::from_secs(30);

pub(super) async fn run(own: Proc, spooled: Arc<Notify>, mut link: watch::Receiver<bool>) {
    let mut attempt = 0;
    let mut failing_since = own.sim.now();
    loop {
        link.mark_unchanged();
        let left = firing::drain(&own, false).await;
        attempt = if left > 0 { attempt + 1 } else { 0 };
        if attempt == 0 {
            failing_since = own.sim.now();
        }
        let pause = match attempt {
            0 => POLL_INTERVAL.mul_f64(0.5 + own.jitter()),
            _ => backoff::reconnect(attempt, own.sim.now() - failing_since, own.jitter()),
        };
        tokio::select! {
            biased;
            () = own.sim.sleep(pause) => {}
            () = spooled.notified(), if attempt == 0 => attempt = 1,
            changed = link.changed() => if changed.is_err() { return },
        }
    }
}
