//! A token bucket: how much of something a client may use, at a steady rate with bursts. Time is an argument, on any clock
//! that only goes forward.

use std::time::Duration;

/// The size of a bucket, and how fast it fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// The most tokens that a client can save up.
    pub burst: u32,
    /// The tokens that are added each second; at least one.
    pub per_second: u32,
}

impl Rate {
    /// How long it takes to add so many tokens.
    fn time_for(self, tokens: u32) -> Duration {
        Duration::from_secs(u64::from(tokens)) / self.per_second.max(1)
    }
}

/// The tokens of one client. It may go into debt, which the bucket's filling pays.
///
/// It is stored as the time at which it is full again, which is all that a bucket consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenBucket {
    full_at: Duration,
}

impl TokenBucket {
    /// A bucket that is full.
    pub fn full() -> Self {
        Self::default()
    }

    /// Returns whether the bucket is full, so that it needs not be kept.
    pub fn is_full(self, now: Duration) -> bool {
        self.full_at <= now
    }

    /// Takes tokens, if the bucket has them or will have them within `patience`. Returns how long the client has to wait
    /// before it uses them. A client that asks for more than a whole bucket gets it from a full one.
    ///
    /// # Errors
    /// How long it takes until the same call succeeds. No token was taken.
    pub fn take(
        &mut self,
        now: Duration,
        rate: Rate,
        tokens: u32,
        patience: Duration,
    ) -> Result<Duration, Duration> {
        let missing = self.full_at.saturating_sub(now);
        let available_after =
            (missing + rate.time_for(tokens.min(rate.burst))).saturating_sub(rate.time_for(rate.burst));
        if available_after > patience {
            return Err(available_after - patience);
        }
        self.charge(now, rate, tokens);
        Ok(available_after)
    }

    /// Takes tokens whether or not the bucket has them, for a cost that is known only afterwards.
    pub fn charge(&mut self, now: Duration, rate: Rate, tokens: u32) {
        self.full_at = self.full_at.max(now) + rate.time_for(tokens);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { burst: 4, per_second: 2 };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Takes tokens, each step `TIME:TOKENS`, with a patience of 1 s. Returns what each had to wait, `!` before what a
    /// refused one would have.
    fn check(steps: &str, expected: &str) {
        let mut bucket = TokenBucket::full();
        let answers = steps.split_whitespace().map(|step| {
            let (at, tokens) = step.split_once(':').unwrap();
            let (at, tokens) = (ms(at.parse().unwrap()), tokens.parse().unwrap());
            match bucket.take(at, RATE, tokens, ms(1000)) {
                Ok(wait) => wait.as_millis().to_string(),
                Err(wait) => format!("!{}", wait.as_millis()),
            }
        });
        assert_eq!(answers.collect::<Vec<_>>().join(" "), expected, "{steps}");
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_counts() {
        check("0:1 0:1 0:1 0:1 0:1 0:1 0:1 0:1", "0 0 0 0 500 1000 !500 !500");
    }

    #[test]
    fn a_pause_refills_no_more_than_the_burst() {
        check("0:4 60000:4 60000:2", "0 0 1000");
    }

    #[test]
    fn one_that_waits_as_long_as_it_was_told_is_served() {
        check("0:4 0:2 0:1 500:1", "0 1000 !500 1000");
    }

    #[test]
    fn more_than_a_whole_bucket_is_paid_afterwards() {
        check("0:8 0:1 1500:1", "0 !1500 1000");
    }

    #[test]
    fn what_was_charged_afterwards_counts() {
        let mut bucket = TokenBucket::full();
        bucket.charge(ms(0), RATE, 6);
        assert_eq!(bucket.take(ms(0), RATE, 1, ms(1500)), Ok(ms(1500)));
        assert!(!bucket.is_full(ms(3000)) && bucket.is_full(ms(3500)));
    }

    proptest! {
        /// However a client asks, it gets no more than the burst and the rate allow, counted when it may use the tokens.
        #[test]
        fn no_client_gets_more_than_its_rate(steps in prop::collection::vec((0_u64..700, 0_u32..5), 1..60)) {
            let (mut bucket, mut now, mut taken, mut latest) = (TokenBucket::full(), ms(0), 0, ms(0));
            for (pause, tokens) in steps {
                now += ms(pause);
                if let Ok(wait) = bucket.take(now, RATE, tokens, ms(1000)) {
                    taken += u64::from(tokens);
                    latest = latest.max(now + wait);
                    prop_assert!(taken * 1000 <= 4000 + u64::try_from(latest.as_millis()).unwrap() * 2);
                }
            }
        }
    }
}
