//! Expiry compares the clocks of two nodes. This names them, and says when they certainly differ.

use std::collections::HashMap;
use std::time::Duration;

use crate::duration;
use crate::event::{CLOCK_TOLERANCE, Event};
use crate::identity::EventId;
use crate::time::{Now, Timestamp};

/// What the arrivals of events say about the clocks of their origins.
#[derive(Debug, Clone, Default)]
pub(super) struct Clocks {
    /// When everything that was there was read, on the clock that only goes forward. What arrived since as news was
    /// committed since.
    read_all_at: Option<Duration>,
    is_news: bool,
    /// Events that had expired by this node's clock when they were committed, and by how much at least. An origin
    /// publishes none that has expired by its own.
    differences: HashMap<EventId, Duration>,
}

impl Clocks {
    pub(super) fn reading_started(&mut self, now: Now, is_whole: bool) {
        self.is_news = !is_whole;
        if is_whole {
            self.read_all_at = Some(now.elapsed);
        }
    }

    /// Notes an event whose origin's clock is certainly behind this one.
    pub(super) fn delivered(&mut self, now: Now, event: &Event) {
        let Some(read_all_at) = self.read_all_at.filter(|_| self.is_news) else { return };
        let committed_within = now.elapsed.saturating_sub(read_all_at);
        // The tolerance again, because the reading itself took time.
        let overdue = now.wall.since(event.expires_at());
        if overdue > committed_within + CLOCK_TOLERANCE {
            self.differences.insert(event.id, overdue - committed_within);
        }
    }

    /// Forgets an event that has ended.
    pub(super) fn ended(&mut self, event: EventId) {
        self.differences.remove(&event);
    }

    /// Says by which clocks an event has expired.
    pub(super) fn explain_expiry(&mut self, now: Timestamp, event: &Event) -> String {
        let (origin, fired_at) = (&event.origin, event.fired_at.date_and_time());
        let lifetime = duration::format_short(event.expires_in);
        let clocks = format!(
            "it was fired at {fired_at} by the clock of {origin}, for {lifetime}, and it was {} by the clock of \
             this node",
            now.date_and_time()
        );
        match self.differences.remove(&event.id) {
            Some(difference) => format!(
                "{clocks}; it had just been committed, so the clock of {origin} is at least {} behind the one of \
                 this node: set the wrong one right",
                duration::format_short(difference)
            ),
            None => clocks,
        }
    }
}
