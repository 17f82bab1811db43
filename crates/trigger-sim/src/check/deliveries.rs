//! Deliveries are written once, after their parts (C1), and deleted only when they have ended (C3).

use std::time::Duration;

use trigger_core::delivery::Delivery as DeliveryForm;
use trigger_core::event::CLOCK_TOLERANCE;
use trigger_core::identity::{Certname, EventId, GroupName, Revision};
use trigger_core::keyspace::{Key, Range};
use trigger_core::node::NodeRecord;
use trigger_core::sweep::EVENT_RETENTION;
use trigger_core::wire::Stored;

use crate::checker::{Delivery, GroupDelivery};
use crate::mail::Client;
use crate::world::{BEGIN, World};

/// The largest difference between two clocks that are right.
const OFF_BY: Duration = Duration::from_secs(10 * 60);

impl World {
    /// Checks a key that is about to be written.
    pub(crate) fn check_put(&mut self, client: Client, key: &str, value: &str) {
        match self.keyspace.parse(key) {
            Some(Key::Node { certname }) => self.check_registration(client, certname, value),
            Some(Key::Outcome { event, certname }) => self.check_outcome(client, event, &certname, value),
            Some(Key::Part { .. }) => self.check_immutable(key, value),
            Some(Key::Delivery { event, .. } | Key::GroupDelivery { event, .. }) => {
                self.check_immutable(key, value);
                // A backend that was restored during the writes may have lost the parts, which were written first.
                let was_there = self.check.last_rewind.is_some() && self.check.parts.contains(&event);
                if !self.has_part(event, value) && !was_there {
                    self.violate("parts come before deliveries", key.to_owned());
                }
            }
            // Members are not immutable: they are read again when an event is published again.
            _ => {}
        }
    }

    fn check_immutable(&mut self, key: &str, value: &str) {
        if self.server.entry(key).is_some_and(|known| known.value != value) {
            self.violate("what was fired is never changed", format!("{key} becomes {value}"));
        }
    }

    /// Returns whether the part that a delivery names is stored.
    pub(crate) fn has_part(&self, event: EventId, delivery: &str) -> bool {
        let form = DeliveryForm::from_wire(delivery);
        form.is_ok_and(|form| {
            self.server.entry(&self.keyspace.key(&Key::Part { event, index: form.part })).is_some()
        })
    }

    /// Records a key that was written.
    pub(crate) fn check_committed(&mut self, key: &str, value: &str, revision: u64) {
        match self.keyspace.parse(key) {
            Some(Key::Part { event, .. }) => drop(self.check.parts.insert(event)),
            Some(Key::Delivery { certname, event }) => {
                let is_whole = self.has_part(event, value);
                self.delivered(event, certname, revision, is_whole);
            }
            Some(Key::GroupDelivery { group, event }) => {
                let is_whole = self.has_part(event, value);
                let delivery = GroupDelivery { committed: self.steps, revision };
                self.check.group_deliveries.entry((event, group.clone())).or_insert(delivery);
                for member in self.members(&group, revision) {
                    self.delivered(event, member, revision, is_whole);
                }
            }
            _ => {}
        }
    }

    /// Returns the nodes that had joined a group before a revision, according to the backend.
    fn members(&self, group: &GroupName, before: u64) -> Vec<Certname> {
        let entries = self.server.entries_below(&self.keyspace.range(&Range::Nodes));
        let member = |entry: trigger_store::store::Entry| {
            let Some(Key::Node { certname }) = self.keyspace.parse(&entry.key) else { return None };
            let record = NodeRecord::from_wire(&entry.value).ok()?;
            let since = *record.groups.get(group)?;
            (since > Revision(0) && since < Revision(before)).then_some(certname)
        };
        entries.into_iter().filter_map(member).collect()
    }

    /// Records a delivery. One that a restored backend had lost is owed again once it is stored again with its part.
    fn delivered(&mut self, event: EventId, certname: Certname, revision: u64, is_whole: bool) {
        let committed = self.steps;
        let has_ended = self
            .server
            .entry(&self.keyspace.key(&Key::Outcome { event, certname: certname.clone() }))
            .is_some();
        let new = Delivery { committed, revision, has_ended, had_ended: has_ended, is_lost: false };
        let known = self.check.deliveries.entry((event, certname)).or_insert(new);
        if known.is_lost && is_whole {
            known.revision = revision;
        }
        known.is_lost = !is_whole;
        if is_whole {
            self.check.forgotten.remove(&event);
        }
    }

    /// Checks a key that is about to be deleted.
    pub(crate) fn check_delete(&mut self, client: Client, key: &str) {
        let what = || format!("m{} deletes {key}", client.machine);
        match self.keyspace.parse(key) {
            Some(Key::Delivery { certname, event }) => {
                let has_outcome = self
                    .server
                    .entry(&self.keyspace.key(&Key::Outcome { event, certname: certname.clone() }))
                    .is_some();
                let is_attacked = self.check.attacked.contains(&(event, certname.clone()));
                let may_lack_it = is_attacked || self.has_lost_outcome(event, certname);
                if !has_outcome && !may_lack_it && !self.may_go(client, event) {
                    self.violate("an outcome is stored before its delivery is deleted", what());
                }
            }
            Some(
                Key::GroupDelivery { event, .. }
                | Key::Part { event, .. }
                | Key::Members { event, .. }
                | Key::Outcome { event, .. },
            ) if !self.may_go(client, event) || self.is_open(event) => {
                self.violate("nothing is removed that is still needed", what());
            }
            Some(Key::Part { .. }) => self.count("event removed by a sweeper"),
            Some(Key::Node { .. }) => self.violate("only fenced writes", what()),
            _ => {}
        }
    }

    /// Returns whether a delivery once had an outcome that a restored backend has lost.
    fn has_lost_outcome(&self, event: EventId, certname: Certname) -> bool {
        let is_old = |at| self.check.events.get(&event).is_some_and(|fired| fired.at < at);
        self.check.last_rewind.is_some_and(is_old)
            && self.check.deliveries.get(&(event, certname)).is_some_and(|delivery| delivery.had_ended)
    }

    fn is_open(&self, event: EventId) -> bool {
        let mut deliveries = self.check.deliveries.iter().filter(|((id, _), _)| *id == event);
        deliveries.any(|(_, delivery)| !delivery.has_ended && !delivery.is_lost)
    }

    /// Returns whether an event may be removed.
    fn may_go(&self, client: Client, event: EventId) -> bool {
        self.has_expired_since(client, event, EVENT_RETENTION)
    }

    /// Returns whether an event expired at least `patience` ago by the true clock. An event that was fired by a clock
    /// far behind the true one was old from the start; a sweeper whose own clock is wrong uses the quorum's clock
    /// instead, which may be off by some minutes.
    pub(super) fn has_expired_since(&self, client: Client, event: EventId, patience: Duration) -> bool {
        let Some(fired) = self.check.events.get(&event) else { return true };
        let (truth, claimed) = (BEGIN.plus(fired.at), fired.event.fired_at);
        let fired_at = if truth.since(claimed) > OFF_BY { claimed } else { truth };
        let is_wild = self.machines[client.machine].was_wild;
        let patience = if is_wild { patience.saturating_sub(CLOCK_TOLERANCE) } else { patience };
        self.true_time() > fired_at.plus(fired.event.expires_in + patience)
    }

    /// Returns the step at which an event was first committed for a node, directly or through its group.
    pub(super) fn committed(&self, event: EventId, certname: &Certname) -> Option<u64> {
        let own = self.check.deliveries.get(&(event, certname.clone())).map(|delivery| delivery.committed);
        let groups = self.machines.iter().find(|machine| machine.certname == *certname)?.groups.iter();
        let shared = groups.filter_map(|group| self.check.group_deliveries.get(&(event, group.clone())));
        let shared = shared.map(|delivery| delivery.committed);
        own.into_iter().chain(shared).min()
    }
}
