//! Adjusts the checker's knowledge after the backend was restored from a backup: it drops what the backend has lost,
//! and nothing else.

use std::collections::BTreeMap;

use trigger_core::keyspace::{Key, Range};
use trigger_fleet::claim::LEASE;

use crate::world::World;

impl World {
    /// Records that the backend went back to its state at a revision.
    pub(crate) fn check_rewound(&mut self, to: u64) {
        self.check.last_rewind = Some(self.now);
        let mut forgotten = Vec::new();
        for ((event, certname), delivery) in &mut self.check.deliveries {
            if delivery.revision > to {
                delivery.is_lost = true;
                forgotten.push(*event);
            } else if self.server.entry(&self.keyspace.key(&Key::Part { event: *event, index: 0 })).is_some()
            {
                let was_put_back = self.check.attacked.contains(&(*event, certname.clone()));
                delivery.has_ended = was_put_back
                    || self
                        .server
                        .entry(
                            &self.keyspace.key(&Key::Outcome { event: *event, certname: certname.clone() }),
                        )
                        .is_some();
            } // Else it had ended and was swept before the backup was made.
        }
        let groups = self.check.group_deliveries.iter().filter(|(_, delivery)| delivery.revision > to);
        forgotten.extend(groups.map(|((event, _), _)| *event));
        self.check.forgotten.extend(forgotten);
        self.restore_registrations();
    }

    /// Sets the registrations back to their state in the backup, with the age that they then have.
    fn restore_registrations(&mut self) {
        self.check.registrations.clear();
        for entry in self.server.entries_below(&self.keyspace.range(&Range::Nodes)) {
            if let Some(Key::Node { certname }) = self.keyspace.parse(&entry.key) {
                let at = self.server.time_of(entry.revision.0);
                self.take_registration(certname, &entry.value, None, at, BTreeMap::new());
            }
        }
    }

    /// Returns whether the backend was restored so recently that it may not know the holders of the claims.
    pub(super) fn is_fresh_rewind(&self) -> bool {
        self.check.last_rewind.is_some_and(|at| self.now - at < LEASE * 2)
    }
}
