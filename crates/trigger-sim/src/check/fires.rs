//! A fired event is durable before the fire is answered, and is never lost (C1).

use trigger_core::identity::EventId;
use trigger_core::keyspace::Key;
use trigger_core::publication::Publication;

use crate::checker::{Checker, Fired};
use crate::state_files::{outbox_file, quarantined_file};
use crate::wanted::{Answer, Wanted};
use crate::world::World;

impl World {
    /// Records an event that was made, after the loop guard's decision.
    pub(crate) fn check_fired(&mut self, machine: usize, publication: &Publication, wanted: &Wanted) {
        let event = &publication.event;
        self.note(format_args!(
            "m{machine} fires {} '{}' at {:?} {:?} suppressed {:?} lineage {:?}",
            event.id,
            event.trigger,
            event.targets.hosts,
            event.targets.groups,
            publication.suppressed.keys(),
            event.lineage.chains,
        ));
        self.count("event fired");
        if !publication.suppressed.is_empty() || !publication.suppressed_groups.is_empty() {
            self.count("fire suppressed");
        }
        self.check_lineage(machine, publication, wanted);
        let fired = Fired {
            event: event.clone(),
            machine,
            suppressed: publication.suppressed.keys().cloned().collect(),
            suppressed_groups: publication.suppressed_groups.keys().cloned().collect(),
            at: self.now,
            answer: None,
        };
        self.check.events.insert(event.id, fired);
    }

    /// Checks the answer that `trigger fire` is about to give.
    pub(crate) fn check_fire_answered(&mut self, machine: usize, publication: &Publication, answer: &Answer) {
        let event = publication.event.id;
        self.note(format_args!("fire {event} answered {answer:?}"));
        let path = outbox_file(event);
        match answer {
            Answer::Committed => {
                self.count("fire committed");
                let missing = self.missing_deliveries(event);
                if !missing.is_empty() {
                    self.violate(
                        "durable before answered",
                        format!("{event} is not committed for {missing}"),
                    );
                }
                if self.is_pointless(event) {
                    self.violate("durable before answered", format!("{event} has lost a part of it"));
                }
            }
            Answer::Spooled => {
                self.count("fire spooled");
                // Where the clock was set meanwhile, the agent may already have quarantined it as expired.
                let disk = &self.machines[machine].disk;
                if !disk.is_durable(&path)
                    && !disk.is_durable(&quarantined_file(event))
                    && !self.missing_deliveries(event).is_empty()
                {
                    self.violate("durable before answered", format!("{event} is not in the outbox"));
                }
            }
            Answer::Failed(_) => {
                self.count("fire failed");
                self.take_back_fires(machine, publication);
            }
        }
        if let Some(fired) = self.check.events.get_mut(&event) {
            fired.answer = Some(answer.clone());
        }
    }

    /// Returns whether a delivery of an event names a part that is not stored, unless a restored backend has lost the
    /// event since.
    fn is_pointless(&self, event: EventId) -> bool {
        let Some(fired) = self.check.events.get(&event) else { return false };
        let hosts = fired
            .event
            .targets
            .hosts
            .iter()
            .map(|host| self.keyspace.key(&Key::Delivery { certname: host.clone(), event }));
        let groups = fired
            .event
            .targets
            .groups
            .iter()
            .map(|group| self.keyspace.key(&Key::GroupDelivery { group: group.clone(), event }));
        let mut there = hosts.chain(groups).filter_map(|key| self.server.entry(&key));
        !self.check.forgotten.contains(&event) && there.any(|entry| !self.has_part(event, &entry.value))
    }

    /// Returns the targets of an event that never had a delivery. A delivery that a restored backend lost counts as
    /// one.
    fn missing_deliveries(&self, event: EventId) -> String {
        let Some(fired) = self.check.events.get(&event) else { return "anybody".to_owned() };
        let targets = &fired.event.targets;
        let hosts = targets.hosts.iter().filter(|host| {
            !fired.suppressed.contains(*host)
                && !self.check.deliveries.contains_key(&(event, (*host).clone()))
        });
        let groups = targets
            .groups
            .iter()
            .filter(|group| !self.check.group_deliveries.contains_key(&(event, (*group).clone())));
        let missing: Vec<&str> =
            hosts.map(|host| host.as_str()).chain(groups.map(|group| group.as_str())).collect();
        missing.join(" ")
    }

    /// Checks, at the end, that each event whose fire succeeded reached its targets or lies in the origin's outbox.
    pub(crate) fn check_fires_kept(&mut self) {
        let promised: Vec<(EventId, usize)> = self
            .check
            .events
            .iter()
            .filter(|(_, fired)| matches!(fired.answer, Some(Answer::Committed | Answer::Spooled)))
            .map(|(id, fired)| (*id, fired.machine))
            .collect();
        for (event, machine) in promised {
            let missing = self.missing_deliveries(event);
            let machine = &self.machines[machine];
            let is_on_disk = [outbox_file(event), quarantined_file(event)]
                .iter()
                .any(|path| machine.disk.read(path).is_some());
            if !missing.is_empty() && !machine.is_gone && !is_on_disk {
                self.violate("no fire is lost", format!("{event} never reached {missing}"));
            }
        }
    }
}

impl Checker {
    /// Returns whether a fire reported that the event lies in the outbox.
    pub(super) fn was_spooled(&self, event: EventId) -> bool {
        self.events.get(&event).is_some_and(|fired| fired.answer == Some(Answer::Spooled))
    }
}
