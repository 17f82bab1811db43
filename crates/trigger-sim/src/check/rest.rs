//! When all faults are healed, the fleet comes to rest: no delivery is open, and no file or record is left over.

use trigger_core::identity::Certname;
use trigger_core::keyspace::{Key, Range};

use crate::state_files;
use crate::world::World;

impl World {
    /// Returns the deliveries that have neither run nor ended, for nodes that still exist.
    pub(crate) fn open_deliveries(&self) -> Vec<String> {
        let is_there = |certname: &Certname| {
            self.machines.iter().any(|machine| machine.certname == *certname && !machine.is_gone)
        };
        let open = self.check.deliveries.iter().filter(|((_, certname), delivery)| {
            !delivery.has_ended && !delivery.is_lost && is_there(certname)
        });
        open.map(|((event, certname), _)| format!("{event} at {certname}")).collect()
    }

    /// Returns what the nodes should have cleaned up by now: fires in the outbox, deliveries that have ended, and
    /// records of runs whose outcome is stored.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for (index, machine) in self.machines.iter().enumerate().filter(|(_, machine)| !machine.is_gone) {
            let kept = state_files::spooled(&machine.disk).chain(state_files::open_records(&machine.disk));
            left.extend(kept.map(|path| format!("m{index} {path}")));
            let deliveries =
                self.server.entries_below(&self.keyspace.range(&Range::Deliveries(machine.certname.clone())));
            // A delivery whose part a restored backend has lost is reported and stays.
            let whole = deliveries.into_iter().filter(|entry| self.names_part(&entry.key, &entry.value));
            left.extend(whole.map(|entry| entry.key));
        }
        left
    }

    fn names_part(&self, key: &str, delivery: &str) -> bool {
        match self.keyspace.parse(key) {
            Some(Key::Delivery { event, .. }) => self.has_part(event, delivery),
            // One that came too late goes with its event.
            Some(Key::Cancellation { .. }) => false,
            _ => true,
        }
    }
}
