//! Which events a node has honoured, so that none of them runs again (C3).

use std::time::Duration;

use crate::identity::EventId;
use crate::time::Timestamp;

/// How long a honoured event is remembered: the longest lifetime of an event, and two days for clocks that disagree
/// and for the grace period of sweepers.
pub const DEDUP_RETENTION: Duration = Duration::from_secs(9 * 24 * 60 * 60);

/// An entry of the deduplication log: a run on this node has honoured the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HonouredEvent {
    /// The event.
    pub event: EventId,
    /// When its delivery ended, by this node's clock.
    pub ended_at: Timestamp,
}

impl HonouredEvent {
    /// Whether the entry can be forgotten, because both the end of the delivery and the firing of the event are longer
    /// ago than [`DEDUP_RETENTION`]. The end alone would not do: if this node's clock had been years behind, the entry
    /// would be forgotten as soon as the clock is right, and the event would run again if it is published again.
    pub fn is_outlived(self, now: Timestamp) -> bool {
        let is_long_ago = |at: Timestamp| now.since(at) >= DEDUP_RETENTION;
        is_long_ago(self.ended_at) && self.event.made_at().is_none_or(is_long_ago)
    }
}
