//! Which events have ended on a node, so that none of them runs again (C4, C13).

use std::time::Duration;

use crate::delivery::DeliveryOutcome;
use crate::identity::EventId;
use crate::time::Timestamp;

/// How long an event that ended is remembered: the longest lifetime of an event, and two days for clocks that disagree
/// and for the grace period of sweepers.
pub const DEDUP_RETENTION: Duration = Duration::from_secs(9 * 24 * 60 * 60);

/// An entry of the deduplication log: the event has ended on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HonouredEvent {
    /// The event.
    pub event: EventId,
    /// When its delivery ended, by this node's clock; later for an event that can run for longer than
    /// [`DEDUP_RETENTION`] from then on.
    pub ended_at: Timestamp,
    /// The outcome, where no run produced it. It is stored again when the delivery is read again without an outcome: after
    /// a crash, from a backend that was restored from a backup, or because it was put back. The outcome of a run is in the
    /// run's record.
    pub without_run: Option<DeliveryOutcome>,
}

impl HonouredEvent {
    /// The entry for an event that a run has ended `now` and that could run until `expires_at`. The origin's clock may be wrong, or its
    /// node may lie (C12), so that no time of the event's own may make this node forget it while it could run: the time
    /// counts from as late as needed for that.
    pub fn new(event: EventId, now: Timestamp, expires_at: Timestamp) -> Self {
        // It may still run at the very moment.
        let excess = expires_at.plus(Duration::from_millis(1)).since(now.plus(DEDUP_RETENTION));
        Self { event, ended_at: now.plus(excess), without_run: None }
    }

    /// Whether the entry can be forgotten, because both the end of the delivery and the firing of the event are longer
    /// ago than [`DEDUP_RETENTION`]. The end alone would not do: if this node's clock had been years behind, the entry
    /// would be forgotten as soon as the clock is right, and the event would run again if it is published again.
    pub fn is_outlived(&self, now: Timestamp) -> bool {
        is_outlived(self.event, self.ended_at, now)
    }
}

/// As [`HonouredEvent::is_outlived`], of what is known of an entry.
pub(crate) fn is_outlived(event: EventId, ended_at: Timestamp, now: Timestamp) -> bool {
    let is_long_ago = |at: Timestamp| now.since(at) >= DEDUP_RETENTION;
    is_long_ago(ended_at) && event.made_at().is_none_or(is_long_ago)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{CLOCK_TOLERANCE, MAX_LIFETIME, samples};

    /// Proves C13: what an attacker puts back later has expired, or is remembered.
    #[test]
    fn no_event_is_forgotten_while_it_can_run_whatever_its_origins_clock_said() {
        let now = Timestamp::from_unix_ms(1_763_812_800_000);
        const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        for ahead in [Duration::ZERO, CLOCK_TOLERANCE, MAX_LIFETIME, YEAR * 20] {
            let mut event = samples::event(1, "t");
            event.expires_in = MAX_LIFETIME;
            event.fired_at = now.plus(ahead);
            let honoured = HonouredEvent::new(event.id, now, event.expires_at());
            assert!(!honoured.is_outlived(event.expires_at()), "{ahead:?}");
            assert!(honoured.is_outlived(event.expires_at().plus(DEDUP_RETENTION * 2)), "{ahead:?}");
        }
        let usual = HonouredEvent::new(samples::event_id(1), now, now.plus(MAX_LIFETIME));
        assert_eq!(usual.ended_at, now);
    }
}
