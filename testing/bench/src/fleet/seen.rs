//! What all agents of the fleet saw.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use trigger_core::identity::{Certname, EventId};

/// By event and certname.
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

    /// For the first time or again.
    pub(super) fn arrived(&mut self, certname: &Certname, event: EventId) {
        self.arrived.entry(event).or_default().entry(certname.clone()).or_insert_with(Instant::now);
    }

    /// Its outcome is stored.
    pub(super) fn finished(&mut self, certname: &Certname, event: EventId) {
        self.finished.entry(event).or_default().insert(certname.clone());
    }
}
