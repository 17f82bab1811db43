//! Empties the outbox: when the backend comes back, and now and then for what another process left there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::intake::Link;
use crate::clock::jitter;
use crate::firing::Publisher;

/// How often the outbox is looked at without a reason, spread over the fleet.
const LOOK_EVERY: Duration = Duration::from_secs(30);

pub(super) async fn run(publisher: Arc<Publisher>, mut link: watch::Receiver<Link>) {
    loop {
        if *link.borrow_and_update() == Link::Up {
            match publisher.drain().await {
                Ok((published, set_aside)) => {
                    if published > 0 {
                        tracing::info!("published {published} spooled events");
                    }
                    for aside in set_aside {
                        tracing::error!(
                            "a spooled event is set aside in {}: {}",
                            aside.path.display(),
                            aside.reason
                        );
                    }
                }
                Err(failure) => tracing::error!("the outbox cannot be emptied: {}", failure.message),
            }
        }
        let pause = LOOK_EVERY.mul_f64(0.5 + jitter());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = link.changed() => if changed.is_err() { return },
        }
    }
}
