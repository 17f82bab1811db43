//! A claim changes hands only in ways that keep two agents from holding it at once, and only by fenced writes (C11).

use std::collections::BTreeMap;
use std::time::Duration;

use trigger_core::identity::{Certname, EventId};
use trigger_core::node::NodeRecord;
use trigger_core::wire::Stored;
use trigger_fleet::claim::{ClaimState, LEASE, TRUST_PERIOD};

use crate::checker::{LockName, Registration};
use crate::mail::Client;
use crate::world::{Machine, Socket, World};

/// A contender counts the holder's silence from its own request, which may precede the write that it read by this
/// long. The value is well below the margin between the time for which a holder trusts its claim and the time for
/// which a contender waits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

impl World {
    /// Returns the machines whose agents believe that they hold their certname's claim.
    pub(super) fn believers(&self) -> impl Iterator<Item = (usize, &Certname)> {
        let believes = |machine: &&Machine| {
            let holds = |socket: &Socket| matches!(*socket.claim.borrow(), ClaimState::Held { .. });
            // An agent that has given up its claim may believe so until it ends: it starts no run.
            machine.socket.as_ref().is_some_and(holds)
        };
        let all = self.machines.iter().enumerate().filter(move |(_, machine)| believes(machine));
        let all = all.filter(|(on, machine)| !self.check.released.contains(&(*on, machine.instance.clone())));
        all.map(|(on, machine)| (on, &machine.certname))
    }

    /// Records the instance name that an agent has chosen.
    pub(crate) fn instance_started(&mut self, machine: usize, instance: &str) {
        let lock = self.lock_name(machine);
        self.machines[machine].instance = instance.to_owned();
        self.check.instances.entry(instance.to_owned()).or_default().push((machine, lock));
    }

    /// Records that the agent of a machine has ended because it was asked to: it writes nothing more.
    pub(crate) fn agent_ended_in_order(&mut self, machine: usize) {
        self.check.ended_in_order.insert((machine, self.machines[machine].instance.clone()));
    }

    fn places_of(&self, instance: &str) -> &[(usize, LockName)] {
        self.check.instances.get(instance).map_or(&[], Vec::as_slice)
    }

    /// Returns whether an instance holds the lock that another instance held. The other one is then dead, or was
    /// copied with its memory.
    fn has_lock_of(&self, holder: &str, heir: &str) -> bool {
        let mut locks = self.places_of(holder).iter().map(|(_, lock)| lock);
        locks.any(|lock| self.places_of(heir).iter().any(|(_, own)| own == lock))
    }

    fn lock_name(&self, machine: usize) -> LockName {
        (self.machines[machine].boot, self.machines[machine].identity)
    }

    /// Returns whether a machine and its copy, which has the same memory, may both take a claim for their own: the agent
    /// of one of them started again and took it over from the other, since their locks have one name. The other
    /// trusts the claim until it finds that out, for [`TRUST_PERIOD`] at most.
    pub(super) fn is_duel(&self, machine: usize) -> bool {
        let (lock, certname) = (self.lock_name(machine), &self.machines[machine].certname);
        let twins = (0..self.machines.len()).filter(|twin| self.lock_name(*twin) == lock);
        let inherited = self.check.inherited.get(certname);
        twins.count() > 1 && inherited.is_some_and(|at| self.now - *at <= TRUST_PERIOD)
    }

    pub(super) fn check_registration(&mut self, client: Client, certname: Certname, value: &str) {
        if !self.swapping {
            self.violate("only fenced writes", format!("the registration of {certname} is overwritten"));
        }
        let Ok(record) = NodeRecord::from_wire(value) else {
            return self
                .violate("stored forms are whole", format!("the registration of {certname}: {value}"));
        };
        if !self.places_of(&record.instance).iter().any(|(on, _)| *on == client.machine) {
            let detail = format!("m{} writes for {}", client.machine, record.instance);
            self.violate("an agent claims for itself alone", detail);
        }
        if record.released && self.check.in_progress.values().any(|machine| *machine == client.machine) {
            let detail = format!("m{} gives up {certname}", client.machine);
            self.violate("a claim is not given up during a run", detail);
        }
        if record.released {
            self.count("claim released");
            self.check.released.insert((client.machine, record.instance.clone()));
        }
        let mut listed = BTreeMap::new();
        if let Some(before) = self.check.registrations.get(&certname) {
            listed = before.listed.clone();
            let silent_for = self.now.saturating_sub(before.at);
            let is_same = before.instance == record.instance
                && before.machine.is_none_or(|machine| machine == client.machine);
            // The name of an instance is not enough: a copy with its memory has it too.
            let is_inherited =
                before.instance != record.instance && self.has_lock_of(&before.instance, &record.instance);
            // A copy with its memory, which may go on, is another machine.
            let has_ended = before
                .machine
                .is_some_and(|on| self.check.ended_in_order.contains(&(on, before.instance.clone())));
            if !is_same && !before.is_released && !is_inherited && has_ended {
                self.count("claim taken over after an orderly end");
            } else if !is_same && !before.is_released && is_inherited {
                self.check.inherited.insert(certname.clone(), self.now);
            } else if !is_same && !before.is_released {
                let (heir, holder) = (&record.instance, &before.instance);
                let detail = format!("{heir} takes {certname} from {holder} after {silent_for:?} of silence");
                self.count("claim changed hands");
                if silent_for + ANSWER_TIMEOUT < LEASE {
                    return self.violate("a claim is taken over after silence only", detail);
                }
            }
        }
        self.take_registration(certname, value, Some(client.machine), self.now, listed);
    }

    /// Records a registration with the time at which it was written, and for each event in its activity since when it
    /// is listed.
    pub(super) fn take_registration(
        &mut self,
        certname: Certname,
        value: &str,
        machine: Option<usize>,
        at: Duration,
        mut listed: BTreeMap<EventId, Duration>,
    ) {
        let Ok(record) = NodeRecord::from_wire(value) else { return };
        let at_work: Vec<EventId> = record.activity.events().collect();
        listed.retain(|event, _| at_work.contains(event));
        for event in at_work {
            listed.entry(event).or_insert(self.now);
        }
        let (instance, is_released) = (record.instance, record.released);
        self.check
            .registrations
            .insert(certname, Registration { instance, machine, at, is_released, listed });
    }

    /// Returns whether another machine's agent holds the claim on a machine's certname, according to the backend.
    pub(super) fn is_held_elsewhere(&self, machine: usize) -> bool {
        let Some(registration) = self.check.registrations.get(&self.machines[machine].certname) else {
            return false;
        };
        if let Some(holder) = registration.machine {
            return holder != machine;
        }
        let places = self.places_of(&registration.instance);
        !places.is_empty() && places.iter().all(|(on, _)| *on != machine)
    }
}
