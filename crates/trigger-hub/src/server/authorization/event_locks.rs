//! Keeps a decision about an event true until the write that it allows is stored: while one request begins an event or
//! says which of its targets are suppressed, no other does, and no target stores its outcome.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use trigger_core::identity::{Certname, EventId};
use trigger_core::keyspace::Key;

/// How many locks there are for all events. Requests about different events rarely share one.
const LOCKS: usize = 256;

#[derive(Debug)]
pub(super) struct EventLocks {
    locks: Vec<Arc<RwLock<()>>>,
    /// Random, so that no client can choose ids that share the lock of another's event.
    places: RandomState,
}

/// The locks that a request holds until they are dropped.
pub(in crate::server) type Guards = Vec<Guard>;

/// A lock that a request holds.
#[derive(Debug)]
pub(in crate::server) enum Guard {
    Shared { _guard: OwnedRwLockReadGuard<()> },
    Exclusive { _guard: OwnedRwLockWriteGuard<()> },
}

impl Default for EventLocks {
    fn default() -> Self {
        Self { locks: (0..LOCKS).map(|_| Arc::default()).collect(), places: RandomState::new() }
    }
}

impl EventLocks {
    /// Takes the locks that a write of `keys` by `writer` needs.
    pub(super) async fn acquire(&self, writer: &Certname, keys: &[Key]) -> Guards {
        // In one order for all requests, so that none waits for another that waits for it.
        let mut wanted: BTreeMap<usize, bool> = BTreeMap::new();
        for key in keys {
            let (event, is_exclusive) = match key {
                Key::Part { event, .. } | Key::Members { event, .. } => (event, true),
                Key::Outcome { event, certname } => (event, certname != writer),
                _ => continue,
            };
            *wanted.entry(self.place(*event)).or_default() |= is_exclusive;
        }
        let mut guards = Vec::with_capacity(wanted.len());
        for (place, is_exclusive) in wanted {
            let lock = Arc::clone(&self.locks[place]);
            guards.push(if is_exclusive {
                Guard::Exclusive { _guard: lock.write_owned().await }
            } else {
                Guard::Shared { _guard: lock.read_owned().await }
            });
        }
        guards
    }

    fn place(&self, event: EventId) -> usize {
        usize::try_from(self.places.hash_one(event) % LOCKS as u64).unwrap_or(0)
    }
}
