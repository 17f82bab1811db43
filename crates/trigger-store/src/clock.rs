//! How far this machine's clock is from that of a backend, from what the backend says of its own.

use std::time::Duration;

/// Bounds of the difference between two clocks: this one less the backend's, in milliseconds. They are true however long
/// an answer took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockDifference {
    least_ms: i64,
    most_ms: i64,
}

impl ClockDifference {
    /// From one answer: this clock's readings before the request and after the answer, and the earliest and latest
    /// moments by the backend's clock at which it may have answered. All in milliseconds since 1970.
    pub fn observed(asked_at: u64, answered_at: u64, earliest: u64, latest: u64) -> Option<Self> {
        let signed = |ms: u64| i64::try_from(ms).ok();
        let least_ms = signed(asked_at)? - signed(latest)?;
        let most_ms = signed(answered_at)? - signed(earliest)?;
        // This clock was set while the answer was on its way.
        (asked_at <= answered_at && least_ms <= most_ms).then_some(Self { least_ms, most_ms })
    }

    /// By how much this clock is ahead at least; zero if it need not be.
    pub fn ahead(self) -> Duration {
        Duration::from_millis(self.least_ms.max(0).unsigned_abs())
    }

    /// By how much this clock is behind at least; zero if it need not be.
    pub fn behind(self) -> Duration {
        Duration::from_millis(self.most_ms.min(0).unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The backend's clock shows 100 s, to the second.
    fn check(asked_at: u64, answered_at: u64, ahead_ms: u64, behind_ms: u64) {
        let difference = ClockDifference::observed(asked_at, answered_at, 100_000, 101_000).unwrap();
        let expected = (Duration::from_millis(ahead_ms), Duration::from_millis(behind_ms));
        assert_eq!((difference.ahead(), difference.behind()), expected, "{asked_at} to {answered_at}");
    }

    #[test]
    fn only_what_latency_and_rounding_cannot_explain_is_a_difference() {
        check(100_500, 100_510, 0, 0);
        check(101_900, 101_910, 900, 0);
        check(90_000, 99_000, 0, 1_000);
        // An answer that took a minute proves nothing about a minute.
        check(50_000, 110_000, 0, 0);
        assert_eq!(ClockDifference::observed(100_500, 90_000, 100_000, 101_000), None, "the clock was set");
    }
}
