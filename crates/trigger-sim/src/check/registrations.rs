//! A claim changes hands only in ways that keep two from holding it at once, and only by fenced writes.

use std::collections::BTreeMap;
use std::time::Duration;

use trigger_backend::claim::LEASE;
use trigger_core::identity::Certname;
use trigger_core::status::NodeRecord;
use trigger_core::wire::Stored;

use super::{Checker, Registration};
use crate::executor::ProcessId;
use crate::requests::Client;
use crate::world::World;

/// A contender counts from when it asked, which may be this long before what it was told of was written; well
/// within what a holder trusts less than a contender waits.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

impl World {
    /// An agent takes itself for the holder of its certname's claim, or no longer.
    pub(crate) fn check_belief(&mut self, agent: ProcessId, machine: usize, holds: bool) {
        if holds {
            self.check.believers.insert(agent, machine);
        } else {
            self.check.believers.remove(&agent);
        }
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
                if silent_for + ANSWERED_WITHIN < LEASE && !self.is_fresh_rewind() {
                    return self.violate("a claim is taken over after silence only", detail);
                }
            }
        }
        let activity = &record.activity;
        let at_work: Vec<_> = activity
            .running
            .iter()
            .flat_map(|running| &running.causes)
            .chain(activity.retrying.iter().flat_map(|retrying| &retrying.causes))
            .chain(activity.held.iter().map(|held| &held.event))
            .collect();
        listed.retain(|event, _| at_work.contains(&event));
        for event in at_work {
            listed.entry(*event).or_insert(self.now);
        }
        self.check.registrations.insert(
            certname,
            Registration { instance: record.instance, at: self.now, is_released: record.released, listed },
        );
    }

    /// Whether the backend was restored so lately that who held what may have been forgotten.
    pub(super) fn is_fresh_rewind(&self) -> bool {
        self.check.last_rewind.is_some_and(|at| self.now - at < LEASE * 2)
    }
}

impl Checker {
    /// An agent has given itself a name.
    pub(crate) fn instance_started(&mut self, instance: &str, machine: usize, boot: u32) {
        self.instances.insert(instance.to_owned(), (machine, boot));
    }
}
