//! A node that is held starts no run, and holds come from orders that count alone (C13).

use trigger_core::holds::{Demand, HoldNote};
use trigger_core::identity::RunId;
use trigger_core::wire::Stored;

use crate::checker::Noted;
use crate::state_files::HOLD;
use crate::world::World;

impl World {
    /// Checks what a node is about to note of the latest order that it has accepted.
    pub(crate) fn check_hold_noted(&mut self, machine: usize, from: &str, to: &str) {
        if to != HOLD {
            return;
        }
        let text = self.disk(machine).text(from).unwrap_or_default();
        let note = match HoldNote::from_wire(text) {
            Ok(note) => note,
            Err(error) => return self.violate("the note of a hold is whole", format!("m{machine}: {error}")),
        };
        let HoldNote { order, left, .. } = note;
        self.note(format_args!("m{machine} notes the order {} of {}: {left:?} left", order.number, order.by));
        if order.by != self.machines[machine].certname {
            let detail = format!("m{machine} takes an order of {}", order.by);
            self.violate("a node is held by itself alone", detail);
        }
        if self.check.forged_orders.contains(&order.number) {
            self.violate("a forged order does nothing", format!("m{machine} takes {}", order.number));
        }
        let before = self.check.holds.get(&machine).copied();
        if let Some(before) = before.filter(|before| before.number > order.number) {
            let detail = format!("m{machine} takes {} after {}", order.number, before.number);
            self.violate("no order of the past counts", detail);
        }
        let is_new = before.is_none_or(|before| before.number != order.number);
        match &order.demand {
            Demand::Hold { .. } if left.is_zero() => self.count("hold ended by its time"),
            Demand::Hold { .. } if is_new => self.count("node held"),
            Demand::Hold { .. } => self.count("node still held after a start"),
            Demand::Release => self.count("node released"),
        }
        let until = (!left.is_zero()).then(|| self.now + left);
        self.check.holds.insert(machine, Noted { number: order.number, until });
    }

    /// Checks a run that a node begins. A node without room on its disk may have taken an order that it could not note.
    pub(crate) fn check_not_held(&mut self, machine: usize, run: RunId) {
        let noted = self.check.holds.get(&machine).filter(|_| !self.check.were_full.contains(&machine));
        if noted.and_then(|noted| noted.until).is_some_and(|until| until > self.now) {
            self.violate("a held node starts no run", format!("m{machine} starts {run}"));
        }
    }
}
