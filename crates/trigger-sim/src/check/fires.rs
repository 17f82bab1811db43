//! What was fired is durable before it is answered, and chains end.

use std::collections::BTreeSet;

use trigger_core::guard::is_suppressed;
use trigger_core::identity::EventId;
use trigger_core::lineage::{Loops, MAX_FIRES_PER_ROOT};
use trigger_core::wire::Publication;

use super::{Checker, Fired};
use crate::executor::ProcessId;
use crate::firing::Answer;
use crate::world::World;

impl World {
    /// An event was made, and the loop guard has spoken.
    pub(crate) fn check_fired(&mut self, machine: usize, publication: &Publication, ttl: u32) {
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
        self.check.events.insert(
            event.id,
            Fired {
                event: event.clone(),
                machine,
                suppressed: publication.suppressed.keys().cloned().collect(),
                at: self.now,
                answer: None,
            },
        );
        if !is_suppressed(publication) && !event.lineage.is_root() {
            self.check_chains(machine, publication, ttl);
        }
    }

    fn check_chains(&mut self, machine: usize, publication: &Publication, ttl: u32) {
        let event = &publication.event;
        if let Some(chain) = event.lineage.chains.iter().find(|chain| chain.hops.len() > ttl as usize) {
            self.violate("chains are bounded", format!("{} has {} hops", event.id, chain.hops.len()));
        }
        for host in event.targets.hosts.iter().filter(|host| !publication.suppressed.contains_key(*host)) {
            let repeats = event.loops == Loops::Avoid
                && event.lineage.chains.iter().all(|chain| {
                    chain.hops.iter().any(|hop| hop.trigger == event.trigger && hop.certname == *host)
                });
            if repeats {
                self.violate("no pair twice in a chain", format!("{} at {host}", event.id));
            }
        }
        let roots: BTreeSet<EventId> = event.lineage.chains.iter().map(|chain| chain.root).collect();
        let uncounted = self.check.uncounted.get(&machine).copied().unwrap_or_default();
        for root in roots {
            let fires = self.check.fires.entry((event.trigger.clone(), machine, root)).or_default();
            *fires += 1;
            if *fires > MAX_FIRES_PER_ROOT + uncounted {
                let detail = format!("'{}' on m{machine} for {root}: {fires} times", event.trigger);
                self.violate("at most three fires of a trigger on a node for a root", detail);
            }
        }
    }

    /// `trigger fire` is about to say what became of an event.
    pub(crate) fn check_fire_answered(&mut self, machine: usize, event: EventId, answer: &Answer) {
        self.note(format_args!("fire {event} answered {answer:?}"));
        let path = format!("outbox/{event}.json");
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
            }
            Answer::Spooled => {
                self.count("fire spooled");
                if !self.machines[machine].disk.is_synced(&path) && !self.missing_deliveries(event).is_empty()
                {
                    self.violate("durable before answered", format!("{event} is not in the outbox"));
                }
            }
            Answer::Failed(_) => self.count("fire failed"),
        }
        if let Some(fired) = self.check.events.get_mut(&event) {
            fired.answer = Some(answer.clone());
        }
    }

    /// Targets of an event that have never had a delivery; what a restored backend forgot counts as there.
    fn missing_deliveries(&self, event: EventId) -> String {
        let Some(fired) = self.check.events.get(&event) else { return "anybody".to_owned() };
        if self.check.forgotten.contains(&event) {
            return String::new();
        }
        let hosts = fired.event.targets.hosts.iter().filter(|host| !fired.suppressed.contains(*host));
        let missing: Vec<&str> = hosts
            .filter(|host| !self.check.deliveries.contains_key(&(event, (*host).clone())))
            .map(|host| host.as_str())
            .collect();
        missing.join(" ")
    }

    /// At the end: what was answered well reached its targets, or lies on the disk where it was fired.
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
            let is_on_disk = [format!("outbox/{event}.json"), format!("outbox/set-aside/{event}.json")]
                .iter()
                .any(|path| machine.disk.read(path).is_some());
            if !missing.is_empty() && !machine.is_gone && !is_on_disk {
                self.violate("no fire is lost", format!("{event} never reached {missing}"));
            }
        }
    }
}

impl Checker {
    /// A process ended or was killed.
    pub(crate) fn process_ended(&mut self, process: ProcessId) {
        self.believers.remove(&process);
    }

    /// What this machine had counted may have been lost with its power.
    pub(crate) fn may_miss_counts(&mut self, machine: usize, how_many: u32) {
        *self.uncounted.entry(machine).or_default() += how_many;
    }
}
