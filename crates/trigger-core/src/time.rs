//! Time as the core sees it: always an argument.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A wall-clock reading in milliseconds since 1970. Used for people and for expiry, never for order:
/// order comes from the backend's revisions. Serialised as the number of milliseconds, in fields whose names end in
/// `_unix_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// A timestamp from milliseconds since 1970.
    pub const fn from_unix_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since 1970.
    pub const fn as_unix_ms(self) -> u64 {
        self.0
    }

    /// This moment and `duration` more; the far future stays representable.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Hours, minutes and seconds in UTC, such as `12:00:31`; the last second begun counts as over, so that
    /// what is to come has come by then.
    pub fn time_of_day(self) -> String {
        let seconds = self.0.div_ceil(1000);
        format!("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
    }

    /// How long after `earlier` this is; zero when it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// The two clocks a decision may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The wall clock: may jump, may be wrong; judges expiry only.
    pub wall: Timestamp,
    /// A clock that only goes forward, from an arbitrary start; spaces runs and retries.
    pub elapsed: Duration,
}
