//! How fast runs may follow each other on one node (C5): a minimal spacing, and a limit on the runs of any minute.
//! The limit is the last defence against loops that the loop guard cannot see, such as a service that a run restarts
//! and that fires an event of its own each time. It delays runs and never drops one.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::time::{Now, Timestamp};

/// The shortest time between the starts of two runs. The events of a burst share the second run.
pub const RUN_SPACING: Duration = Duration::from_secs(1);
/// The period over which the limit counts starts.
const WINDOW: Duration = Duration::from_secs(60);

/// How many runs may start on a node in any minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunsPerMinute(u16);

/// The text is not a number of runs that can be a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not from {least} to {most} runs", least = RunsPerMinute::MIN, most = RunsPerMinute::MAX)]
pub struct InvalidLimit(String);

impl RunsPerMinute {
    const MIN: u16 = 1;
    const MAX: u16 = 600;

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for RunsPerMinute {
    /// Ten runs: more than any sequence of events that an operator waits for, and few enough to do a node no harm.
    fn default() -> Self {
        Self(10)
    }
}

impl fmt::Display for RunsPerMinute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RunsPerMinute {
    type Err = InvalidLimit;

    fn from_str(text: &str) -> Result<Self, InvalidLimit> {
        let number = text.parse().ok().filter(|number| (Self::MIN..=Self::MAX).contains(number));
        number.map(Self).ok_or_else(|| InvalidLimit(text.to_owned()))
    }
}

/// The latest starts of runs on one node, and the earliest time of the next one.
#[derive(Debug, Clone)]
pub struct RateLimiter {
    limit: RunsPerMinute,
    latest: Option<Duration>,
    /// When each of the latest starts leaves the window, on the forward clock; oldest first, at most `limit`.
    /// The starts themselves are not kept: those of an earlier agent may lie before the beginning of that clock.
    leaves_window_at: Vec<Duration>,
}

impl RateLimiter {
    /// A limiter that knows of no starts.
    pub fn new(limit: RunsPerMinute) -> Self {
        Self { limit, latest: None, leaves_window_at: Vec::new() }
    }

    /// The limit.
    pub fn limit(&self) -> RunsPerMinute {
        self.limit
    }

    /// Counts a run that starts now, `elapsed` on the forward clock.
    pub fn started(&mut self, elapsed: Duration) {
        self.latest = Some(elapsed);
        self.count_until(elapsed + WINDOW);
    }

    /// Counts a run of an earlier agent that was found. The next run keeps its distance from now.
    pub fn adopted(&mut self, now: Now, started_at: Timestamp) {
        self.latest = Some(now.elapsed);
        self.recall(now, started_at);
    }

    /// Counts a run that an earlier agent started, at a time by the wall clock of then. A start in the future counts
    /// as one of now, so that wrong clocks never delay a run by more than a minute.
    pub fn recall(&mut self, now: Now, started_at: Timestamp) {
        let age = now.wall.since(started_at);
        if age < WINDOW {
            self.count_until(now.elapsed + (WINDOW - age));
        }
    }

    fn count_until(&mut self, end: Duration) {
        self.leaves_window_at.push(end);
        self.leaves_window_at.sort_unstable();
        let too_many = self.leaves_window_at.len().saturating_sub(usize::from(self.limit.0));
        self.leaves_window_at.drain(..too_many);
    }

    /// When the spacing lets the next run start, on the forward clock.
    pub fn spaced(&self) -> Duration {
        self.latest.map_or(Duration::ZERO, |latest| latest + RUN_SPACING)
    }

    /// When the limit lets the next run start, on the forward clock.
    pub fn permitted(&self) -> Duration {
        let is_full = self.leaves_window_at.len() >= usize::from(self.limit.0);
        self.leaves_window_at.first().copied().filter(|_| is_full).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(seconds: u64) -> Now {
        Now {
            wall: Timestamp::from_unix_ms(1_763_812_800_000 + seconds * 1000),
            elapsed: Duration::from_secs(seconds),
        }
    }

    fn rate_limiter(limit: &str) -> RateLimiter {
        RateLimiter::new(limit.parse().unwrap())
    }

    #[test]
    fn a_limit_is_a_number_from_1_to_600() {
        assert_eq!(RunsPerMinute::default().to_string(), "10");
        for good in ["1", "600"] {
            assert_eq!(good.parse::<RunsPerMinute>().unwrap().to_string(), good);
        }
        for bad in ["0", "601", "-1", "", "ten", "1.5", "99999999999"] {
            let error = bad.parse::<RunsPerMinute>().unwrap_err();
            assert_eq!(error.to_string(), format!("'{bad}' is not from 1 to 600 runs"));
        }
    }

    #[test]
    fn the_oldest_of_as_many_starts_as_the_limit_has_to_be_a_minute_ago() {
        let mut rate_limiter = rate_limiter("2");
        rate_limiter.started(Duration::from_secs(5));
        assert_eq!(rate_limiter.permitted(), Duration::ZERO);
        rate_limiter.started(Duration::from_secs(8));
        assert_eq!(rate_limiter.permitted(), Duration::from_secs(65));
        rate_limiter.started(Duration::from_secs(65));
        assert_eq!(rate_limiter.permitted(), Duration::from_secs(68));
        assert_eq!(rate_limiter.spaced(), Duration::from_secs(66));
    }

    #[test]
    fn starts_of_an_earlier_agent_count_as_long_as_they_would_have() {
        let mut rate_limiter = rate_limiter("2");
        let start = |age: u64| Timestamp::from_unix_ms(now(100).wall.as_unix_ms() - age * 1000);
        for age in [20, 61, 50, 60] {
            rate_limiter.recall(now(100), start(age));
        }
        assert_eq!(rate_limiter.permitted(), Duration::from_secs(110), "those 20 and 50 seconds ago");
        assert_eq!(rate_limiter.spaced(), Duration::ZERO, "they are over");
    }

    /// Proves C12.
    #[test]
    fn clocks_that_went_back_delay_by_a_minute_and_no_more() {
        let mut rate_limiter = rate_limiter("10");
        for _ in 0..100 {
            rate_limiter.recall(now(1), now(1_000_000).wall);
        }
        assert_eq!(rate_limiter.permitted(), Duration::from_secs(61));
    }
}
