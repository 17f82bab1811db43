//! How fast runs may follow each other on one node: a spacing, and a limit on the runs of any minute. The
//! limit is the last defence against loops that leave the loop guard's sight, such as a service that a run
//! restarts and that fires an event of its own each time. It delays, and never drops.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::time::{Now, Timestamp};

/// Starts of runs are at least this far apart; a burst shares the second run.
pub const RUN_SPACING: Duration = Duration::from_secs(1);
/// The limit counts the starts of so long.
const WINDOW: Duration = Duration::from_secs(60);

/// How many runs may start on a node in any minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunsPerMinute(u16);

/// A number that is no limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not from {least} to {most} runs", least = RunsPerMinute::LEAST, most = RunsPerMinute::MOST)]
pub struct InvalidLimit(String);

impl RunsPerMinute {
    const LEAST: u16 = 1;
    const MOST: u16 = 600;

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for RunsPerMinute {
    /// Ten: more than any sequence of events that a person waits for, less than what wears a node down.
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
        let number = text.parse().ok().filter(|number| (Self::LEAST..=Self::MOST).contains(number));
        number.map(Self).ok_or_else(|| InvalidLimit(text.to_owned()))
    }
}

/// The latest starts on one node, and when the next may follow.
#[derive(Debug, Clone)]
pub struct RateLimiter {
    limit: RunsPerMinute,
    latest: Option<Duration>,
    /// When each of the latest starts stops to count, on the forward clock; oldest first, at most `limit`.
    /// Not the starts themselves: those of an earlier agent lie before that clock's beginning.
    ends_to_count: Vec<Duration>,
}

impl RateLimiter {
    /// Nothing has started yet.
    pub fn new(limit: RunsPerMinute) -> Self {
        Self { limit, latest: None, ends_to_count: Vec::new() }
    }

    /// The limit.
    pub fn limit(&self) -> RunsPerMinute {
        self.limit
    }

    /// A run starts now.
    pub fn started(&mut self, elapsed: Duration) {
        self.latest = Some(elapsed);
        self.count_until(elapsed + WINDOW);
    }

    /// A run of an earlier agent was found; nothing else starts for a moment.
    pub fn adopted(&mut self, now: Now, started_at: Timestamp) {
        self.latest = Some(now.elapsed);
        self.recall(now, started_at);
    }

    /// A run was started by an earlier agent, by the clock that it had. A start in the future counts as one
    /// of now: whatever the clocks say, nothing is delayed by more than a minute.
    pub fn recall(&mut self, now: Now, started_at: Timestamp) {
        let age = now.wall.since(started_at);
        if age < WINDOW {
            self.count_until(now.elapsed + (WINDOW - age));
        }
    }

    fn count_until(&mut self, end: Duration) {
        self.ends_to_count.push(end);
        self.ends_to_count.sort_unstable();
        let too_many = self.ends_to_count.len().saturating_sub(usize::from(self.limit.0));
        self.ends_to_count.drain(..too_many);
    }

    /// When the next run may start as far as the spacing is concerned.
    pub fn spaced(&self) -> Duration {
        self.latest.map_or(Duration::ZERO, |latest| latest + RUN_SPACING)
    }

    /// When the next run may start as far as the limit is concerned.
    pub fn permitted(&self) -> Duration {
        let is_full = self.ends_to_count.len() >= usize::from(self.limit.0);
        self.ends_to_count.first().copied().filter(|_| is_full).unwrap_or_default()
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
