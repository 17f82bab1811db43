//! How much one node may store in a time. What a node stores stays for up to three weeks, until a sweep removes it, so
//! that without a quota one node could fill the store for all.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::identity::EventId;
use crate::keyspace::Key;
use crate::token_bucket::{Rate, TokenBucket};

/// The events that one node may store: bursts of a thousand, and on average two each second. A node that runs Puppet as
/// often as it may fires less.
const EVENTS: Rate = Rate { burst: 1000, per_second: 2 };
/// The bytes of events, deliveries and outcomes that one node may store: an event for the most targets that an event may
/// have and half of another, and on average what a delivery to 25 nodes each second takes.
const BYTES: Rate = Rate { burst: 192 * 1024 * 1024, per_second: 32 * 1024 };
/// What a stored entry takes besides its key and its value.
const ENTRY_OVERHEAD_BYTES: usize = 64;
/// What a sweep stores of each target that has not ended: its outcome `expired`, signed by the hub.
const EXPIRED_BYTES: usize = 1024;

/// What a request adds to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// How many events it begins or continues to store.
    pub events: u32,
    /// The size of the entries that stay until a sweep removes them, in bytes.
    pub bytes: u32,
}

impl Cost {
    /// The cost of writing entries: each is a key, the size of key and value in bytes, and the number of the targets that
    /// the value names, of each of which a sweep may store an outcome. A node's registration and its run history are one entry each,
    /// however often it writes them, and cost nothing here; nor do its certificates, of which there are as many as its CA has
    /// signed.
    pub fn of<'a>(entries: impl IntoIterator<Item = (&'a Key, usize, usize)>) -> Self {
        let mut events: BTreeSet<EventId> = BTreeSet::new();
        let mut bytes = 0_usize;
        for (key, size, targets) in entries {
            match key {
                Key::Part { event, .. } => drop(events.insert(*event)),
                Key::Members { .. }
                | Key::Settled { .. }
                | Key::Delivery { .. }
                | Key::GroupDelivery { .. }
                | Key::LogRequest { .. }
                | Key::LogAnswer { .. }
                | Key::Cancellation { .. }
                | Key::GroupCancellation { .. }
                | Key::Hold { .. }
                | Key::Outcome { .. } => {}
                Key::Node { .. } | Key::RunHistory { .. } | Key::Certificate { .. } | Key::Sweep => continue,
            }
            bytes = bytes.saturating_add(size + ENTRY_OVERHEAD_BYTES + targets * EXPIRED_BYTES);
        }
        let bounded = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Self { events: bounded(events.len()), bytes: bounded(bytes) }
    }

    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self == Self::default()
    }
}

/// What one node may still store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    events: TokenBucket,
    bytes: TokenBucket,
}

impl Quota {
    /// Whether nothing of it is used, so that it need not be kept.
    pub fn is_whole(self, now: Duration) -> bool {
        self.events.is_full(now) && self.bytes.is_full(now)
    }

    /// Takes `cost` from the quota. `now` is on any clock that only goes forward.
    ///
    /// # Errors
    /// How long it takes until the same call succeeds, if the quota does not have it. Nothing was taken then.
    pub fn take(&mut self, now: Duration, cost: Cost) -> Result<(), Duration> {
        let mut left = *self;
        let events = left.events.take(now, EVENTS, cost.events, Duration::ZERO);
        let bytes = left.bytes.take(now, BYTES, cost.bytes, Duration::ZERO);
        match (events, bytes) {
            (Ok(_), Ok(_)) => {
                *self = left;
                Ok(())
            }
            (events, bytes) => Err(events.err().max(bytes.err()).unwrap_or_default()),
        }
    }
}
