//! The one place that reads the clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use trigger_core::time::{Now, Timestamp};

/// The wall clock.
pub(crate) fn wall() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
}

/// A clock that only goes forward, from its making.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now(self) -> Now {
        Now { wall: wall(), elapsed: self.start.elapsed() }
    }

    /// The instant at which [`Now::elapsed`] is `elapsed`.
    pub(crate) fn instant(self, elapsed: Duration) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.start) + elapsed
    }
}

/// From 0.0 up to 1.0, to spread what many nodes do. Not for secrets.
pub(crate) fn jitter() -> f64 {
    // The random bits of a fresh UUIDv4; a crate for one number would be too much.
    let bits = uuid::Uuid::new_v4().as_u128() as u32;
    f64::from(bits) / f64::from(u32::MAX)
}
