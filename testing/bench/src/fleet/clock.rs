//! The time, and a deterministic replacement for randomness.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use trigger_core::time::Timestamp;

/// Returns the time of the wall clock.
pub(super) fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(u64::try_from(since.as_millis()).unwrap_or_default())
}

/// A source of numbers from 0.0 up to 1.0 in place of random ones, so that two runs of the bench are alike.
pub(super) struct Jitter {
    /// A value that differs for each agent.
    spread: f64,
    draws: AtomicU32,
}

impl Jitter {
    pub(super) fn new(spread: f64) -> Self {
        Self { spread, draws: AtomicU32::default() }
    }

    /// Returns the agent's own value.
    pub(super) fn spread(&self) -> f64 {
        self.spread
    }

    pub(super) fn next(&self) -> f64 {
        let draws = f64::from(self.draws.fetch_add(1, Ordering::Relaxed));
        (self.spread * 7919.0 + draws * 0.618).fract()
    }
}
