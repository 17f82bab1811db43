//! What the hub remembers of each client: how much it has stored lately, and how much was logged of it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use trigger_core::authorization::{Actor, Cost, Quota};
use trigger_core::duration;
use trigger_core::identity::Certname;
use trigger_core::token_bucket::{Rate, TokenBucket};

use crate::server::refusal::Refusal;

/// The denied requests of one client that are logged: what a mistake causes, and little of what an attack does.
const LOGGED: Rate = Rate { burst: 20, per_second: 1 };
/// From how many clients on those are forgotten that have been quiet.
const MANY_CLIENTS: usize = 1024;

#[derive(Debug)]
pub(super) struct Clients {
    began: Instant,
    known: Mutex<HashMap<Certname, Known>>,
}

#[derive(Debug, Default)]
struct Known {
    quota: Quota,
    log: TokenBucket,
    unlogged: u64,
}

impl Default for Clients {
    fn default() -> Self {
        Self { began: Instant::now(), known: Mutex::default() }
    }
}

impl Clients {
    /// Counts what a client stores.
    ///
    /// # Errors
    /// 429 where it has stored more than its share. It may store the same later.
    pub(super) fn charge(&self, actor: &Actor, cost: Cost) -> Result<(), Refusal> {
        if cost.is_zero() {
            return Ok(());
        }
        let now = self.began.elapsed();
        let mut clients = self.clients(now);
        let known = clients.entry(actor.certname.clone()).or_default();
        known.quota.take(now, cost).map_err(|wait| {
            let shown = duration::format(Duration::from_secs(wait.as_secs() + 1));
            let sentence = format!("{actor} has stored as much as one node may in a time: more in {shown}");
            Refusal::too_many(sentence, wait)
        })
    }

    /// Whether to log that a request of this client was denied, and how many have not been logged since the last one
    /// that was.
    pub(super) fn may_log(&self, actor: &Actor) -> Option<u64> {
        let now = self.began.elapsed();
        let mut clients = self.clients(now);
        let known = clients.entry(actor.certname.clone()).or_default();
        if known.log.take(now, LOGGED, 1, Duration::ZERO).is_ok() {
            return Some(std::mem::take(&mut known.unlogged));
        }
        known.unlogged += 1;
        None
    }

    fn clients(&self, now: Duration) -> MutexGuard<'_, HashMap<Certname, Known>> {
        let mut clients = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MANY_CLIENTS && clients.len() == clients.capacity() {
            clients.retain(|_, known| !known.quota.is_whole(now) || !known.log.is_full(now));
        }
        clients
    }
}
