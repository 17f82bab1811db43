//! The health of the store, as `/healthz` reports it. A check writes to the disk, so requests share its answer.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::refusal::Refusal;
use crate::served_store::ServedStore;

/// How long a check waits for the store.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer counts. However often the hub is asked, its disk is written once in this time.
const HEALTH_LIFETIME: Duration = Duration::from_secs(1);

/// The latest answer of a store, or the sentence that says what it lacks.
type Answer = Result<(), String>;

/// Asks a store how it is.
#[derive(Debug, Default)]
pub(super) struct HealthCheck {
    latest: Mutex<Option<(Instant, Answer)>>,
}

impl HealthCheck {
    /// Returns the store's health, which is at most [`HEALTH_LIFETIME`] old. Requests that come during a check wait for
    /// it.
    pub(super) async fn check(&self, store: &dyn ServedStore) -> Answer {
        let mut latest = self.latest.lock().await;
        if let Some((at, answer)) = &*latest
            && at.elapsed() < HEALTH_LIFETIME
        {
            return answer.clone();
        }
        let answer = match timeout(HEALTH_TIMEOUT, store.check_health()).await {
            Ok(answer) => answer.map_err(|error| Refusal::from(error).sentence),
            Err(_) => Err(format!("the hub's store has not answered for {} s", HEALTH_TIMEOUT.as_secs())),
        };
        *latest = Some((Instant::now(), answer.clone()));
        answer
    }
}
