//! The one place that reads the clocks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use trigger_core::time::{Now, Timestamp};

/// The wall clock.
pub fn wall() -> Timestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
}

/// A clock that only goes forward, from its making; also while the machine is suspended, since others go on
/// meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Duration,
}

impl Clock {
    pub fn start() -> Self {
        Self { start: since_boot() }
    }

    pub fn now(self) -> Now {
        Now { wall: wall(), elapsed: since_boot().saturating_sub(self.start) }
    }

    /// The instant at which [`Now::elapsed`] is `elapsed`.
    pub fn instant(self, elapsed: Duration) -> tokio::time::Instant {
        tokio::time::Instant::now() + elapsed.saturating_sub(self.now().elapsed)
    }
}

fn since_boot() -> Duration {
    clock_gettime(ClockId::Boottime).try_into().unwrap_or_default()
}

/// From 0.0 up to 1.0, to spread what many nodes do. Not for secrets.
pub fn jitter() -> f64 {
    // The random bits of a fresh UUIDv4; a crate for one number would be too much.
    let bits = uuid::Uuid::new_v4().as_u128() as u32;
    f64::from(bits) / f64::from(u32::MAX)
}
