//! Deliveries that this version cannot read, and those whose event cannot be verified now. They wait in the backend, which
//! is read again and again; here is only what is shown of them.

use std::collections::BTreeMap;

use crate::identity::EventId;
use crate::node::HeldDelivery;

/// Deliveries of each state that a node's record lists, so that a backend accepts the record however many there are.
/// Status shows the others as pending.
pub const MAX_LISTED: usize = 1000;

/// What is shown of the deliveries that cannot be used now: of so many at most, since anyone who can write to the backend
/// can put as many there as it takes.
#[derive(Debug, Clone, Default)]
pub(super) struct Unusable {
    events: BTreeMap<EventId, Held>,
    /// Counts the readings of everything that is there.
    readings: u64,
    is_reading_all: bool,
}

#[derive(Debug, Clone)]
struct Held {
    reason: String,
    /// During which reading the delivery was seen last.
    seen_in: u64,
}

impl Unusable {
    pub(super) fn hold(&mut self, HeldDelivery { event, reason }: HeldDelivery) {
        let has_room = self.events.len() < MAX_LISTED;
        if has_room || self.events.contains_key(&event) {
            self.events.insert(event, Held { reason, seen_in: self.readings });
        }
    }

    pub(super) fn remove(&mut self, event: EventId) {
        self.events.remove(&event);
    }

    /// A portion of everything that is there is read, perhaps the first.
    pub(super) fn reading_all(&mut self) {
        self.readings += u64::from(!self.is_reading_all);
        self.is_reading_all = true;
    }

    /// A reading has ended. If it was of everything that is there, what was not seen in it is there no longer.
    pub(super) fn reading_ended(&mut self, is_whole: bool) {
        self.is_reading_all = false;
        if is_whole {
            self.events.retain(|_, held| held.seen_in == self.readings);
        }
    }

    pub(super) fn reason(&self, event: EventId) -> Option<&str> {
        self.events.get(&event).map(|held| held.reason.as_str())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (EventId, &str)> {
        self.events.iter().map(|(event, held)| (*event, held.reason.as_str()))
    }
}
