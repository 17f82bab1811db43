//! Time, which the core only gets as an argument (C14).

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A reading of a wall clock in milliseconds since 1970. It serves display and expiry, never order: order comes from the backend's revisions. Serialised as the number of milliseconds, in fields whose names end in
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

    /// The moment that is `duration` later; saturates in the far future.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Hours, minutes and seconds in UTC, such as `12:00:31`, rounded up to whole seconds: at the time shown, the
    /// moment has come.
    pub fn time_of_day(self) -> String {
        let seconds = self.0.div_ceil(1000);
        format!("{:02}:{:02}:{:02}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
    }

    /// The date and the time in UTC, such as `2026-11-24 18:00:31 UTC`, for people.
    pub fn date_and_time(self) -> String {
        let time = i64::try_from(self.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        let Some(time) = time else { return "a time beyond the year 9999".to_owned() };
        let text = format!("{time:.0}");
        format!("{} UTC", text.trim_end_matches('Z').replace('T', " "))
    }

    /// The time since `earlier`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// A reading of the two clocks that decisions depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The wall clock. It may jump or be wrong, so that only expiry depends on it.
    pub wall: Timestamp,
    /// The time since an arbitrary start on a clock that only goes forward. Runs and retries are timed by it.
    pub elapsed: Duration,
}
