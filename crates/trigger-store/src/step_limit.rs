//! How long one step of a conversation with a server may take: the lookup of its name, the connection, an answer.
//!
//! Each step has a limit of its own, so that a slow step does not use up the time of the next. A limit that ran out is
//! doubled for the next attempt, and stays longer while the step is slow: a server behind a slow line is reached after a
//! few attempts and from then on at once, and one that is gone is given up early.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};

/// The limit of one step, with what earlier attempts have shown.
#[derive(Debug)]
pub(crate) struct StepLimit {
    first: Duration,
    most: Duration,
    doublings: AtomicU32,
}

impl StepLimit {
    /// A limit of `first`, which grows up to `most`.
    pub(crate) const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, doublings: AtomicU32::new(0) }
    }

    /// The limit of the next attempt.
    pub(crate) fn current(&self) -> Duration {
        self.after(self.doublings.load(Ordering::Relaxed))
    }

    /// The step was given up after `limit`. Of several attempts side by side, only one makes the limit grow.
    pub(crate) fn ran_out(&self, limit: Duration) {
        let doublings = self.doublings.load(Ordering::Relaxed);
        if limit >= self.after(doublings) && limit < self.most {
            let grown = doublings + 1;
            let _ = self.doublings.compare_exchange(doublings, grown, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// The step was done in `took`. The limit shrinks once half of it would have been plenty.
    pub(crate) fn sufficed(&self, took: Duration) {
        let doublings = self.doublings.load(Ordering::Relaxed);
        if let Some(fewer) = doublings.checked_sub(1)
            && took.saturating_mul(2) < self.after(fewer)
        {
            let _ = self.doublings.compare_exchange(doublings, fewer, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Waits for a step, and learns from it.
    ///
    /// # Errors
    /// The limit, if it ran out.
    pub(crate) async fn bound<T>(&self, step: impl Future<Output = T>) -> Result<T, Duration> {
        self.bound_with(Duration::ZERO, step).await
    }

    /// The same of a step that has `extra` time besides.
    ///
    /// # Errors
    /// All the time that it had, if that ran out.
    pub(crate) async fn bound_with<T>(
        &self,
        extra: Duration,
        step: impl Future<Output = T>,
    ) -> Result<T, Duration> {
        let (limit, begun) = (self.current(), Instant::now());
        match timeout(limit + extra, step).await {
            Ok(done) => {
                self.sufficed(begun.elapsed());
                Ok(done)
            }
            Err(_) => {
                self.ran_out(limit);
                Err(limit + extra)
            }
        }
    }

    fn after(&self, doublings: u32) -> Duration {
        self.first.saturating_mul(2_u32.saturating_pow(doublings)).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_limit_grows_until_the_step_fits_and_stays_while_the_step_is_slow() {
        let limit = StepLimit::new(Duration::from_secs(1), Duration::from_secs(6));
        let step = |ms: u64| limit.bound(tokio::time::sleep(Duration::from_millis(ms)));
        let seconds = |result: Result<(), Duration>| result.map_err(|limit| limit.as_secs());
        let mut seen = Vec::new();
        for took in [2_400, 2_400, 2_400, 2_400, 9_000, 9_000, 9_000, 5_000, 100, 100, 100, 900] {
            seen.push(seconds(step(took).await));
        }
        let (fits, out) = (Ok(()), Err::<(), u64>);
        // 1 s and 2 s are too short; 4 s fits, and goes on to. 6 s is the most.
        let slow = [out(1), out(2), fits, fits, out(4), out(6), out(6), fits];
        assert_eq!(seen, [&slow[..], &[fits; 4]].concat());
        assert_eq!(limit.current(), Duration::from_secs(1), "a fast line needs no long limit");
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_side_by_side_double_a_limit_once() {
        let limit = StepLimit::new(Duration::from_secs(1), Duration::from_secs(60));
        let never = || limit.bound(std::future::pending::<()>());
        let _ = tokio::join!(never(), never(), never());
        assert_eq!(limit.current(), Duration::from_secs(2));
    }
}
