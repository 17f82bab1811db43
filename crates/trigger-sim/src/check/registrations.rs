//! A claim changes hands only in ways that keep two agents from holding it at once, and only by fenced writes (C11).

use std::collections::BTreeMap;
use std::time::Duration;

use trigger_core::identity::{Certname, EventId};
use trigger_core::node::NodeRecord;
use trigger_core::wire::Stored;
use trigger_fleet::claim::{ClaimState, LEASE};

use super::Registration;
use crate::requests::Client;
use crate::world::{Machine, Socket, World};

/// A contender counts from when it asked, which may be this long before what it was told of was written; well
/// within what a holder trusts less than a contender waits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

impl World {
    /// The machines whose agents take themselves for the holder of their certname's claim.
    pub(super) fn believers(&self) -> impl Iterator<Item = (usize, &Certname)> {
        let believes = |machine: &&Machine| {
            let holds = |socket: &Socket| matches!(*socket.claim.borrow(), ClaimState::Held { .. });
            // Until it ends one that has given its claim up may believe what it likes: it starts nothing.
            machine.socket.as_ref().is_some_and(holds) && !self.check.released.contains(&machine.instance)
        };
        let all = self.machines.iter().enumerate();
        all.filter(move |(_, machine)| believes(machine)).map(|(index, machine)| (index, &machine.certname))
    }

    /// An agent has given itself a name.
    pub(crate) fn instance_started(&mut self, machine: usize, instance: &str) {
        let boot = self.machines[machine].boot;
        self.machines[machine].instance = instance.to_owned();
        self.check.instances.insert(instance.to_owned(), (machine, boot));
    }

    pub(super) fn check_registration(&mut self, client: Client, certname: Certname, value: &str) {
        if !self.swapping {
            self.violate("only fenced writes", format!("the registration of {certname} is overwritten"));
        }
        let Ok(record) = NodeRecord::from_wire(value) else {
            return self
                .violate("stored forms are whole", format!("the registration of {certname}: {value}"));
        };
        let lives = self.check.instances.get(&record.instance).copied();
        if lives.map(|(machine, _)| machine) != Some(client.machine) {
            let detail = format!("m{} writes for {}", client.machine, record.instance);
            self.violate("an agent claims for itself alone", detail);
        }
        if record.released && self.check.in_progress.values().any(|machine| *machine == client.machine) {
            let detail = format!("m{} gives up {certname}", client.machine);
            self.violate("a claim is not given up during a run", detail);
        }
        if record.released {
            self.count("claim released");
            self.check.released.insert(record.instance.clone());
        }
        let mut listed = BTreeMap::new();
        if let Some(before) = self.check.registrations.get(&certname) {
            listed = before.listed.clone();
            let silent_for = self.now.saturating_sub(before.at);
            let may_go_on =
                before.is_released || self.check.instances.get(&before.instance).copied() == lives;
            if before.instance != record.instance && !may_go_on {
                let (heir, holder) = (&record.instance, &before.instance);
                let detail = format!("{heir} takes {certname} from {holder} after {silent_for:?} of silence");
                self.count("claim changed hands");
                if silent_for + ANSWER_TIMEOUT < LEASE {
                    return self.violate("a claim is taken over after silence only", detail);
                }
            }
        }
        self.take_registration(certname, value, self.now, listed);
    }

    /// Remembers a registration, written at that time, and since when it lists what it does.
    pub(super) fn take_registration(
        &mut self,
        certname: Certname,
        value: &str,
        at: Duration,
        mut listed: BTreeMap<EventId, Duration>,
    ) {
        let Ok(record) = NodeRecord::from_wire(value) else { return };
        let activity = &record.activity;
        let at_work: Vec<_> = activity
            .running
            .iter()
            .flat_map(|running| &running.causes)
            .chain(activity.retrying.iter().flat_map(|retrying| &retrying.causes))
            .chain(activity.delayed.iter().flat_map(|delayed| &delayed.causes))
            .chain(activity.held.iter().map(|held| &held.event))
            .collect();
        listed.retain(|event, _| at_work.contains(&event));
        for event in at_work {
            listed.entry(*event).or_insert(self.now);
        }
        let (instance, is_released) = (record.instance, record.released);
        self.check.registrations.insert(certname, Registration { instance, at, is_released, listed });
    }

    /// The machine whose agent holds the claim on a certname, as the backend has it.
    pub(super) fn holder(&self, certname: &Certname) -> Option<usize> {
        let registration = self.check.registrations.get(certname)?;
        self.check.instances.get(&registration.instance).map(|(machine, _)| *machine)
    }
}
