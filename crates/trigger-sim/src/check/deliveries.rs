//! Every committed delivery has a run that started after it, or a visible end, and keeps it.

use std::time::Duration;

use trigger_core::identity::{Certname, EventId, GroupName, Revision};
use trigger_core::layout::Place;
use trigger_core::lineage::Lineage;
use trigger_core::outcome::{End, EndedRun, Outcome};
use trigger_core::status::NodeRecord;
use trigger_core::sweep::{KEEP_ENDED, SWEEPERS_PATIENCE};
use trigger_core::wire::{Delivery as DeliveryForm, Stored};

use super::Delivery;
use crate::requests::Client;
use crate::world::World;

/// How long a sweeper may take from reading what a node says to speaking for it.
const SWEEPERS_HASTE: Duration = Duration::from_secs(300);

impl World {
    /// A key is about to be written.
    pub(crate) fn check_put(&mut self, client: Client, key: &str, value: &str) {
        match self.layout.place(key) {
            Some(Place::Node { certname }) => self.check_registration(client, certname, value),
            Some(Place::Outcome { event, certname }) => self.check_outcome(client, event, &certname, value),
            Some(Place::HostDelivery { event, .. } | Place::GroupDelivery { event, .. }) => {
                let part = DeliveryForm::from_wire(value).ok().map(|form| self.layout.part(event, form.part));
                let is_there = part.is_some_and(|part| self.server.entry(&part).is_some());
                if !is_there && !self.check.forgotten.contains(&event) {
                    self.violate("parts come before deliveries", key.to_owned());
                }
            }
            _ => {}
        }
    }

    /// A key was written.
    pub(crate) fn check_committed(&mut self, _client: Client, key: &str, revision: u64) {
        match self.layout.place(key) {
            Some(Place::HostDelivery { certname, event }) => self.delivered(event, certname, revision, true),
            Some(Place::GroupDelivery { group, event }) => {
                let step = self.steps;
                self.check.group_deliveries.entry((event, group.clone())).or_insert(step);
                for member in self.members(&group, revision) {
                    self.delivered(event, member, revision, false);
                }
            }
            _ => {}
        }
    }

    /// Who had joined a group before a revision, as far as the backend tells.
    fn members(&self, group: &GroupName, before: u64) -> Vec<Certname> {
        let entries = self.server.folder(&self.layout.nodes());
        let member = |entry: trigger_backend::store::Entry| {
            let Some(Place::Node { certname }) = self.layout.place(&entry.key) else { return None };
            let record = NodeRecord::from_wire(&entry.value).ok()?;
            let since = *record.groups.get(group)?;
            (since > Revision(0) && since < Revision(before)).then_some(certname)
        };
        entries.into_iter().filter_map(member).collect()
    }

    fn delivered(&mut self, event: EventId, certname: Certname, revision: u64, is_to_host: bool) {
        let committed = self.steps;
        let is_lost = self.check.forgotten.contains(&event);
        let has_ended = self.server.entry(&self.layout.outcome(event, &certname)).is_some();
        let known = self.check.deliveries.entry((event, certname)).or_insert(Delivery {
            committed,
            revision,
            is_to_host,
            has_ended,
            is_lost,
        });
        known.is_to_host |= is_to_host;
        known.is_lost = is_lost;
    }

    /// A key is about to be deleted.
    pub(crate) fn check_delete(&mut self, client: Client, key: &str) {
        match self.layout.place(key) {
            Some(Place::HostDelivery { certname, event }) => {
                let has_outcome = self.server.entry(&self.layout.outcome(event, &certname)).is_some();
                if !has_outcome && !self.is_long_over(event) && self.check.last_rewind.is_none() {
                    let detail = format!("m{} deletes {key}", client.machine);
                    self.violate("an outcome is stored before its delivery is deleted", detail);
                }
            }
            Some(Place::Part { event, .. } | Place::Members { event, .. } | Place::Outcome { event, .. })
                if !self.is_long_over(event) =>
            {
                let detail = format!("m{} deletes {key}", client.machine);
                self.violate("nothing is removed that somebody still needs", detail);
            }
            Some(Place::Node { .. }) => {
                self.violate("only fenced writes", format!("m{} deletes {key}", client.machine));
            }
            _ => {}
        }
    }

    /// Whether an event may be removed, by the clock that is right.
    fn is_long_over(&self, event: EventId) -> bool {
        let Some(fired) = self.check.events.get(&event) else { return true };
        self.plan.wild_clocks || self.now > fired.at + fired.event.expires_in + KEEP_ENDED
    }

    fn check_outcome(&mut self, client: Client, event: EventId, certname: &Certname, value: &str) {
        let Ok(end) = End::from_wire(value) else {
            return self.violate("stored forms are whole", format!("the outcome of {event}: {value}"));
        };
        let before = self.server.entry(&self.layout.outcome(event, certname));
        if let Some(Ok(End::Done(done))) = before.map(|entry| End::from_wire(&entry.value))
            && !matches!(end, End::Done(_))
            && self.check.runs.get(&done.run_id).is_none_or(|run| run.machine == client.machine)
        {
            self.violate("done stays done", format!("{event} at {certname} becomes {end:?}"));
        }
        match &end {
            End::Done(run) | End::Failed(run) => self.check_end_by_run(event, certname, run, &end),
            End::Expired => self.check_expired(client, event, certname),
            End::Superseded(by) => self.check_superseded(event, certname, *by),
            End::Refused(_) => {
                let machine = &self.machines[client.machine];
                let noop = self.check.events.get(&event).is_some_and(|fired| fired.event.options.noop);
                if machine.honours_noop || !noop {
                    self.violate("refusals have their reason", format!("{event} at {certname}"));
                }
            }
            End::Suppressed(_) => {}
        }
        self.count(match end {
            End::Done(_) => "ended done",
            End::Failed(_) => "ended failed",
            End::Expired => "ended expired",
            End::Superseded(_) => "ended superseded",
            End::Refused(_) => "ended refused",
            End::Suppressed(_) => "ended suppressed",
        });
        if let Some(delivery) = self.check.deliveries.get_mut(&(event, certname.clone())) {
            delivery.has_ended = true;
        }
    }

    fn check_end_by_run(&mut self, event: EventId, certname: &Certname, ended: &EndedRun, end: &End) {
        let (Some(fired), Some(run), Some(committed)) = (
            self.check.events.get(&event),
            self.check.runs.get(&ended.run_id),
            self.committed(event, certname),
        ) else {
            let detail = format!("{event} at {certname} was ended by {}", ended.run_id);
            return self.violate("outcomes speak of what was", detail);
        };
        let wanted = &fired.event.options;
        let covers_tags =
            !run.options.is_tagged() || (wanted.is_tagged() && wanted.tags.is_subset(&run.options.tags));
        let starts_later = run.started.is_none_or(|started| started > committed);
        let is_done = matches!(end, End::Done(_));
        let went_well = matches!(run.outcome, Some(Outcome::Changed | Outcome::Unchanged));
        let problem = if run.certname != *certname {
            "the run was another node's"
        } else if !run.causes.contains(&event) {
            "the run's record does not list it"
        } else if wanted.noop != run.options.noop {
            "noop and real are no substitute for each other"
        } else if !covers_tags {
            "the run left out some of its tags"
        } else if !starts_later {
            "the run started before the commit"
        } else if is_done && !(went_well && run.started.is_some()) {
            "the run did not end well"
        } else {
            return;
        };
        let detail = format!("{event} at {certname}, run {}: {problem}", ended.run_id);
        self.violate("a run that started after the commit covers it", detail);
    }

    /// The step at which an event was first committed for a node, itself or its group.
    pub(super) fn committed(&self, event: EventId, certname: &Certname) -> Option<u64> {
        let own = self.check.deliveries.get(&(event, certname.clone())).map(|delivery| delivery.committed);
        let groups = self.machines.iter().find(|machine| machine.certname == *certname)?.groups.iter();
        let shared =
            groups.filter_map(|group| self.check.group_deliveries.get(&(event, group.clone())).copied());
        own.into_iter().chain(shared).min()
    }

    fn check_expired(&mut self, client: Client, event: EventId, certname: &Certname) {
        let Some(fired) = self.check.events.get(&event) else { return };
        let by_target = self.machines[client.machine].certname == *certname;
        let patience = if by_target { Duration::ZERO } else { SWEEPERS_PATIENCE };
        let is_over = self.now > fired.at + fired.event.expires_in + patience;
        if !is_over && !self.plan.wild_clocks {
            let detail = format!("{event} at {certname} by m{}", client.machine);
            return self.violate("nothing expires early", detail);
        }
        let listed = self.check.registrations.get(certname).and_then(|node| node.listed.get(&event));
        if !by_target && listed.is_some_and(|since| self.now - *since > SWEEPERS_HASTE) {
            let detail = format!("m{} expires {event} at {certname}, which is at work on it", client.machine);
            self.violate("nothing is removed that somebody still needs", detail);
        }
    }

    fn check_superseded(&mut self, event: EventId, certname: &Certname, by: EventId) {
        let delivered = self.committed(by, certname).is_some();
        let (Some(earlier), Some(later)) = (self.check.events.get(&event), self.check.events.get(&by)) else {
            return self.violate("a successor stands for its predecessor", format!("{by} is unknown"));
        };
        let (earlier, later) = (&earlier.event, &later.event);
        let past = |lineage: &Lineage| {
            if lineage.is_root() { Vec::new() } else { lineage.chains.clone() }
        };
        let same = earlier.trigger == later.trigger
            && earlier.origin == later.origin
            && earlier.options == later.options
            && past(&earlier.lineage) == past(&later.lineage)
            && later.expires_at() >= earlier.expires_at();
        if !same || !delivered {
            self.violate("a successor stands for its predecessor", format!("{by} for {event} at {certname}"));
        }
    }

    /// The backend went back to what it was at a revision.
    pub(crate) fn check_rewound(&mut self, to: u64) {
        self.check.last_rewind = Some(self.now);
        let mut forgotten = Vec::new();
        for ((event, certname), delivery) in &mut self.check.deliveries {
            if delivery.revision > to {
                delivery.is_lost = true;
                forgotten.push(*event);
            } else if self.server.entry(&self.layout.part(*event, 0)).is_some() {
                delivery.has_ended = self.server.entry(&self.layout.outcome(*event, certname)).is_some();
            } // Else it had ended and was swept before the backup was made.
        }
        let unfinished = self
            .check
            .events
            .keys()
            .filter(|event| self.server.entry(&self.layout.part(**event, 0)).is_none());
        forgotten.extend(unfinished);
        self.check.forgotten.extend(forgotten);
        self.check.registrations.clear();
    }

    /// Deliveries that have neither run nor ended, of nodes that are there.
    pub(crate) fn open_deliveries(&self) -> Vec<String> {
        let is_there = |certname: &Certname| {
            self.machines.iter().any(|machine| machine.certname == *certname && !machine.is_gone)
        };
        let open = self.check.deliveries.iter().filter(|((_, certname), delivery)| {
            !delivery.has_ended && !delivery.is_lost && is_there(certname)
        });
        open.map(|((event, certname), _)| format!("{event} at {certname}")).collect()
    }
}
