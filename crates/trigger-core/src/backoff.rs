//! How long to wait before trying again. Jitter is an argument: 0.0 up to, not including, 1.0.

use std::time::Duration;

/// The longest wait before a reconnect while the loss is fresh, so that a fleet is back within seconds of its backend.
/// An attempt in progress begins its connection again every second, so that every agent is back within three.
const FRESH_CAP: Duration = Duration::from_millis(1500);
/// How long a loss counts as fresh.
const FRESH_FOR: Duration = Duration::from_secs(5 * 60);
/// The longest wait before a reconnect once the loss is old.
const OLD_CAP: Duration = Duration::from_secs(30);
/// The longest wait before the first reconnect; it doubles with each attempt.
const FIRST_RECONNECT: Duration = Duration::from_millis(100);

/// The wait before reconnect number `attempt` (from 0), `lost_for` after the connection was lost.
/// The jitter is full (the wait is anything between zero and the cap), so that ten thousand agents do not return in
/// one moment.
pub fn reconnect(attempt: u32, lost_for: Duration, jitter: f64) -> Duration {
    let cap = if lost_for < FRESH_FOR { FRESH_CAP } else { OLD_CAP };
    exponential(FIRST_RECONNECT, attempt, cap).mul_f64(jitter.clamp(0.0, 1.0))
}

/// The longest wait after the first run that could not happen; it doubles with each attempt.
const FIRST_RETRY: Duration = Duration::from_secs(10);
/// The longest wait after a run that could not happen.
const RETRY_CAP: Duration = Duration::from_secs(5 * 60);

/// The wait after try number `attempt` (from 0) of a run that could not happen. Half of it is fixed and half is
/// jitter, since every try costs the Puppet server a compilation.
pub fn retry_run(attempt: u32, jitter: f64) -> Duration {
    let full = exponential(FIRST_RETRY, attempt, RETRY_CAP);
    full / 2 + (full / 2).mul_f64(jitter.clamp(0.0, 1.0))
}

fn exponential(first: Duration, attempt: u32, cap: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(attempt)).min(cap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_loss_is_retried_soon_an_old_one_within_thirty_seconds() {
        assert_eq!(reconnect(40, Duration::from_secs(299), 1.0), FRESH_CAP);
        assert_eq!(reconnect(40, Duration::from_secs(301), 1.0), Duration::from_secs(30));
        assert_eq!(reconnect(40, Duration::from_secs(301), 0.0), Duration::ZERO);
    }

    #[test]
    fn a_run_that_could_not_happen_waits_longer_each_time_up_to_five_minutes() {
        let waits: Vec<u64> = (0..7).map(|attempt| retry_run(attempt, 1.0).as_secs()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(retry_run(0, 0.0), Duration::from_secs(5));
    }
}
