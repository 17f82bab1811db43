//! The events that all agents of the fleet have seen.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use trigger_core::identity::{Certname, EventId};

/// The agents that watch, and the arrivals and outcomes by event and certname.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) watching: BTreeSet<Certname>,
    pub(super) arrived: BTreeMap<EventId, BTreeMap<Certname, Instant>>,
    pub(super) finished: BTreeMap<EventId, BTreeSet<Certname>>,
}

impl Seen {
    pub(super) fn watches(&mut self, certname: &Certname, is_up: bool) {
        if is_up {
            self.watching.insert(certname.clone());
        } else {
            self.watching.remove(certname);
        }
    }

    /// Records that an event arrived, for the first time or again.
    pub(super) fn arrived(&mut self, certname: &Certname, event: EventId) {
        self.arrived.entry(event).or_default().entry(certname.clone()).or_insert_with(Instant::now);
    }

    /// Records that an event's outcome is stored.
    pub(super) fn finished(&mut self, certname: &Certname, event: EventId) {
        self.finished.entry(event).or_default().insert(certname.clone());
    }
}
