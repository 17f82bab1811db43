//! An attacker who may write anything to the backend (C13): puts back what has ended, and copies events to other targets
//! and under other ids. None of it may make a node run, and nothing else may be lost by it. What merely hides values is no
//! attack here, because a backend that loses them does the same.

use std::time::Duration;

use trigger_core::cancellation::Cancellation;
use trigger_core::holds::{Demand, HoldOrder};
use trigger_core::identity::{Certname, EventId};
use trigger_core::keyspace::Key;
use trigger_core::wire::Stored;
use uuid::Builder;

use crate::world::World;

/// A delivery that is or was stored, of an event whose part is there.
struct Seen {
    event: EventId,
    certname: Certname,
    value: String,
    is_there: bool,
}

impl World {
    pub(crate) fn attack(&mut self) {
        match self.rng.u8(..6) {
            0 => self.put_back(),
            1 => self.forge_cancellation(),
            2 => self.move_to_another(),
            3 => self.put_back_order(),
            4 => self.forge_order(),
            _ => self.copy_under_another_id(),
        }
    }

    fn seen(&self) -> Vec<Seen> {
        let seen = |key: &String| {
            let Some(Key::Delivery { certname, event }) = self.keyspace.parse(key) else { return None };
            let versions = &self.server.keys[key];
            let value = versions.iter().rev().find_map(|version| version.value.clone())?;
            let is_there = self.server.entry(key).is_some();
            let is_genuine = self.check.events.contains_key(&event)
                && !self.check.attacked.contains(&(event, certname.clone()))
                && self.has_part(event, &value);
            is_genuine.then_some(Seen { event, certname, value, is_there })
        };
        self.server.keys.keys().filter_map(seen).collect()
    }

    /// Puts back the delivery of an event for which a node has run, and takes its outcome away.
    fn put_back(&mut self) {
        let mut seen = self.seen();
        seen.retain(|seen| !seen.is_there && self.has_run(seen.event, &seen.certname));
        let Some(Seen { event, certname, value, .. }) = self.choose(seen) else { return };
        self.fault("delivery put back", format_args!("{event} at {certname}"));
        self.check.attacked.insert((event, certname.clone()));
        let outcome = self.keyspace.key(&Key::Outcome { event, certname: certname.clone() });
        self.delete(&outcome);
        let key = self.keyspace.key(&Key::Delivery { certname, event });
        self.commit(&key, Some(&value));
    }

    /// Asks for the end of a delivery in the name of the event's origin, whose key it does not have.
    fn forge_cancellation(&mut self) {
        let mut seen = self.seen();
        seen.retain(|seen| seen.is_there);
        let Some(Seen { event, certname, .. }) = self.choose(seen) else { return };
        let origin = self.check.events[&event].event.origin.clone();
        self.fault("cancellation forged", format_args!("{event} at {certname}"));
        let forged = Cancellation::new(0, origin, self.true_time(), None);
        let key = self.keyspace.key(&Key::Cancellation { certname, event });
        self.commit(&key, Some(&forged.to_wire()));
    }

    /// Puts back an order of the past in the place of the latest one.
    fn put_back_order(&mut self) {
        let node = self.rng.usize(..self.plan.nodes);
        let certname = self.machines[node].certname.clone();
        let key = self.keyspace.key(&Key::Hold { certname: certname.clone() });
        let Some(versions) = self.server.keys.get(&key) else { return };
        let values: Vec<String> = versions.iter().filter_map(|version| version.value.clone()).collect();
        let Some((_, earlier)) = values.split_last() else { return };
        let Some(value) = earlier.get(self.rng.usize(..earlier.len().max(1))).cloned() else { return };
        self.fault("order put back", format_args!("to {certname}"));
        self.commit(&key, Some(&value));
    }

    /// Holds a node in its own name, without its key.
    fn forge_order(&mut self) {
        let node = self.rng.usize(..self.plan.nodes);
        let certname = self.machines[node].certname.clone();
        let at = self.true_time();
        let number = at.as_unix_ms() + self.rng.u64(1..1_000_000_000);
        self.fault("order forged", format_args!("{number} to {certname}"));
        self.check.forged_orders.insert(number);
        let demand = Demand::hold(Duration::from_secs(3600), None);
        let forged = HoldOrder { number, by: certname.clone(), at, demand };
        self.commit(&self.keyspace.key(&Key::Hold { certname }), Some(&forged.to_wire()));
    }

    /// Addresses an event to a node that is none of its targets.
    fn move_to_another(&mut self) {
        let node = self.rng.usize(..self.plan.nodes);
        let certname = self.machines[node].certname.clone();
        let mut seen = self.seen();
        // As a member of a group, a node may be a target after all.
        seen.retain(|seen| {
            let fired = &self.check.events[&seen.event];
            let targets = &fired.event.targets;
            targets.groups.is_empty()
                && fired.suppressed_groups.is_empty()
                && !targets.hosts.contains(&certname)
                && !fired.suppressed.contains(&certname)
        });
        let Some(Seen { event, value, .. }) = self.choose(seen) else { return };
        self.fault("delivery moved", format_args!("{event} to {certname}"));
        self.check.attacked.insert((event, certname.clone()));
        let key = self.keyspace.key(&Key::Delivery { certname, event });
        self.commit(&key, Some(&value));
    }

    /// Copies an event under an id that nothing has had, and says so in it.
    fn copy_under_another_id(&mut self) {
        let mut seen = self.seen();
        seen.retain(|seen| seen.value.contains("\"part\":0"));
        let Some(Seen { event, certname, value, .. }) = self.choose(seen) else { return };
        let Some(part) = self.server.entry(&self.keyspace.key(&Key::Part { event, index: 0 })) else {
            return;
        };
        let random = self.rng.u128(..).to_be_bytes();
        let random = std::array::from_fn(|index| random[index]);
        let made_at = self.true_time().as_unix_ms();
        let id = EventId::from_uuid(Builder::from_unix_timestamp_millis(made_at, &random).into_uuid());
        self.fault("event copied", format_args!("{event} at {certname} as {id}"));
        self.check.attacked.insert((id, certname.clone()));
        let copy = part.value.replace(&event.to_string(), &id.to_string());
        let at = self.keyspace.key(&Key::Part { event: id, index: 0 });
        self.commit(&at, Some(&copy));
        let key = self.keyspace.key(&Key::Delivery { certname, event: id });
        self.commit(&key, Some(&value));
    }

    fn choose(&mut self, mut seen: Vec<Seen>) -> Option<Seen> {
        (!seen.is_empty()).then(|| seen.swap_remove(self.rng.usize(..seen.len())))
    }

    /// Whether a run that a node remembers has ended for an event. A disk without room may have kept it from noting that.
    fn has_run(&self, event: EventId, certname: &Certname) -> bool {
        let covers = |run: &&crate::checker::Run| run.certname == *certname && run.causes.contains(&event);
        let runs = self.check.runs.values().filter(covers);
        let remembers =
            |machine: usize| !self.machines[machine].is_gone && !self.check.were_full.contains(&machine);
        let mut ended = runs.filter(|run| run.is_result_synced && run.is_terminal());
        ended.any(|run| remembers(run.machine))
    }
}
