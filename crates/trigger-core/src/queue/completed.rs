//! What the queue remembers of the events that ended here.

use std::collections::HashMap;

use crate::dedup::HonouredEvent;
use crate::identity::EventId;
use crate::time::Timestamp;

/// How many more entries than after the last look may be there before outlived ones are looked for.
const MIN_GROWTH: usize = 1024;

/// Events that ended here and must not run again.
#[derive(Debug, Clone, Default)]
pub(super) struct Completed {
    events: HashMap<EventId, HonouredEvent>,
    /// The number of entries from which on outlived ones are looked for. A look takes a time that grows with their number,
    /// so that there is not one for each entry.
    looks_at: usize,
}

impl Completed {
    pub(super) fn new(events: impl IntoIterator<Item = HonouredEvent>) -> Self {
        let events: HashMap<EventId, HonouredEvent> =
            events.into_iter().map(|event| (event.event, event)).collect();
        Self { looks_at: events.len() + MIN_GROWTH, events }
    }

    pub(super) fn get(&self, event: EventId) -> Option<&HonouredEvent> {
        self.events.get(&event)
    }

    pub(super) fn contains(&self, event: EventId) -> bool {
        self.events.contains_key(&event)
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn remove(&mut self, event: EventId) {
        self.events.remove(&event);
    }

    pub(super) fn insert(&mut self, event: HonouredEvent, now: Timestamp) {
        self.events.insert(event.event, event);
        if self.events.len() >= self.looks_at {
            self.events.retain(|_, event| !event.is_outlived(now));
            self.looks_at = self.events.len() * 2 + MIN_GROWTH;
        }
    }
}
