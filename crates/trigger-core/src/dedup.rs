//! The deduplication log: which events this node has honoured, so that none of them runs again.

use std::time::Duration;

use crate::identity::EventId;
use crate::time::Timestamp;

/// How long an ended event is remembered: the longest life of an event, and two days for clocks that
/// disagree and for the sweepers' patience.
pub const DEDUP_RETENTION: Duration = Duration::from_secs(9 * 24 * 60 * 60);

/// A line of the file that remembers which events ended on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HonouredEvent {
    /// Which event.
    pub event: EventId,
    /// When, by this node's clock.
    pub ended_at: Timestamp,
}

impl HonouredEvent {
    /// Whether nothing can come of it any more: it ended long ago, and was fired long ago. By its end alone, one that
    /// ended while this node's clock was years behind would be forgotten as soon as the clock is right, and run again
    /// if it is published again.
    pub fn is_outlived(self, now: Timestamp) -> bool {
        let is_long_ago = |at: Timestamp| now.since(at) >= DEDUP_RETENTION;
        is_long_ago(self.ended_at) && self.event.made_at().is_none_or(is_long_ago)
    }
}
