//! Chains are true and end (C7): an event's lineage is what really led to it, the loop guard suppresses every target
//! that its rules forbid, and it suppresses no other.

use std::collections::BTreeSet;

use trigger_core::event::Event;
use trigger_core::identity::{Certname, EventId, RunId, TriggerName};
use trigger_core::lineage::{Chain, Hop, Loops};
use trigger_core::loop_guard::{MAX_FIRES_PER_ROOT, is_suppressed};
use trigger_core::publication::Publication;

use crate::checker::Checker;
use crate::state_files::{Counts, noted_fires};
use crate::wanted::Wanted;
use crate::world::{Kind, World};

/// A fire that is compared with the rules of the loop guard.
struct Question<'a> {
    machine: usize,
    event: &'a Event,
    ttl: u32,
}

impl World {
    /// Checks the lineage of an event that was really fired in `wanted.run`, if that run is still in progress.
    pub(super) fn check_lineage(&mut self, machine: usize, publication: &Publication, wanted: &Wanted) {
        let event = &publication.event;
        let puppet = wanted.run.filter(|run| self.check.in_progress.contains_key(run));
        let Some(run) = wanted.run.filter(|run| puppet.is_some() || self.is_supervised(*run)) else {
            if !event.lineage.is_root() || event.fired_in.is_some() {
                self.violate("chains are true", format!("{} continues none", event.id));
            }
            return;
        };
        if event.fired_in.is_none() && puppet.is_none() {
            // The run's supervisor is about to end.
            return;
        }
        let chains = self.chains_through(machine, run);
        let untrue = event.lineage.chains.iter().find(|chain| !chains.contains(*chain));
        if event.fired_in != Some(run) || event.lineage.chains.is_empty() || untrue.is_some() {
            let detail = format!("{} was fired in {run} and says {untrue:?}", event.id);
            return self.violate("chains are true", detail);
        }
        let question = Question { machine, event, ttl: wanted.ttl };
        self.check_suppressed_targets(publication, &question, &chains);
        if !is_suppressed(publication) {
            self.check_let_through(publication, &question);
        }
    }

    fn is_supervised(&self, run: RunId) -> bool {
        self.processes.values().any(|process| process.kind == Kind::Supervisor(run))
    }

    /// Returns each chain that led from a root to a run, taken from the run's causes as they were fired.
    fn chains_through(&self, machine: usize, run: RunId) -> BTreeSet<Chain> {
        let mut chains = BTreeSet::new();
        let causes = self.check.runs.get(&run).map_or(&[][..], |run| &run.causes);
        for cause in causes.iter().filter_map(|cause| self.check.events.get(cause)) {
            let certname = self.machines[machine].certname.clone();
            let here = Hop { trigger: cause.event.trigger.clone(), certname };
            for chain in &cause.event.lineage.chains {
                // A chain that already holds this hop led to other targets of the cause.
                if cause.event.loops == Loops::Allow || !chain.hops.contains(&here) {
                    let hops = chain.hops.iter().chain([&here]).cloned().collect();
                    chains.insert(Chain { root: chain.root, hops });
                }
            }
        }
        chains
    }

    fn check_suppressed_targets(
        &mut self,
        publication: &Publication,
        question: &Question<'_>,
        chains: &BTreeSet<Chain>,
    ) {
        let targets = publication.suppressed.keys().map(Some);
        let targets = targets.chain(publication.suppressed_groups.keys().map(|_| None));
        for target in targets {
            let permitting = chains.iter().find(|chain| self.objection(question, target, chain).is_none());
            if let Some(chain) = permitting {
                let detail = format!("{} at {target:?} by {chain:?}", question.event.id);
                return self.violate("every suppression has its reason", detail);
            }
        }
    }

    fn check_let_through(&mut self, publication: &Publication, question: &Question<'_>) {
        let event = question.event;
        for host in event.targets.hosts.iter().filter(|host| !publication.suppressed.contains_key(*host)) {
            let objections: Option<Vec<&'static str>> = event
                .lineage
                .chains
                .iter()
                .map(|chain| self.objection(question, Some(host), chain))
                .collect();
            if let Some(objection) = objections.and_then(|all| all.first().copied()) {
                return self.violate(objection, format!("{} at {host}", event.id));
            }
        }
        let objection = event.lineage.chains.iter().find_map(|chain| self.objection(question, None, chain));
        if let Some(objection) = objection {
            let detail = format!("'{}' on m{}: {}", event.trigger, question.machine, event.id);
            return self.violate(objection, detail);
        }
        for root in roots(event) {
            *self.check.fires.entry((event.trigger.clone(), question.machine, root)).or_default() += 1;
        }
        self.recount_if_full(question.machine);
    }

    /// Takes back the count of a fire that failed, since its event does not exist.
    pub(super) fn take_back_fires(&mut self, machine: usize, publication: &Publication) {
        let event = &publication.event;
        if event.fired_in.is_none() || is_suppressed(publication) {
            return;
        }
        for root in roots(event) {
            if let Some(fires) = self.check.fires.get_mut(&(event.trigger.clone(), machine, root)) {
                *fires = fires.saturating_sub(1);
            }
        }
        self.recount_if_full(machine);
    }

    /// Drops the fires that a full disk could not record: they are not counted, and the command reports that to the
    /// user.
    fn recount_if_full(&mut self, machine: usize) {
        if self.machines[machine].is_full {
            let noted = noted_fires(&self.machines[machine].disk);
            self.check.fires.retain(|(_, on, _), _| *on != machine);
            let noted = noted.into_iter().map(|((trigger, root), count)| ((trigger, machine, root), count));
            self.check.fires.extend(noted);
        }
    }

    /// Returns the rule, if any, that forbids an event to extend a chain to a node, or to a group where `to` is
    /// absent.
    fn objection(
        &self,
        question: &Question<'_>,
        to: Option<&Certname>,
        chain: &Chain,
    ) -> Option<&'static str> {
        let Question { machine, event, ttl } = question;
        let is_pair = |to: &Certname| has_pair(chain, &event.trigger, to);
        if event.loops == Loops::Avoid && to.is_some_and(is_pair) {
            return Some("no pair twice in a chain");
        }
        if chain.hops.len() >= *ttl as usize {
            return Some("chains are bounded");
        }
        let fires = self.check.fires.get(&(event.trigger.clone(), *machine, chain.root));
        let is_spent = fires.is_some_and(|fires| *fires >= MAX_FIRES_PER_ROOT);
        is_spent.then_some("at most three fires of a trigger on a node for a root")
    }

    /// Checks a `suppressed` outcome: either the fire recorded it for the target or its group, or the target found
    /// itself in each chain.
    pub(super) fn check_suppressed(&mut self, event: EventId, certname: &Certname) {
        let Some(fired) = self.check.events.get(&event) else { return };
        let mut machines = self.machines.iter().filter(|machine| machine.certname == *certname);
        let is_member =
            machines.any(|m| m.groups.iter().any(|group| fired.suppressed_groups.contains(group)));
        let has_met = |chain: &Chain| has_pair(chain, &fired.event.trigger, certname);
        let repeats = fired.event.loops == Loops::Avoid && fired.event.lineage.chains.iter().all(has_met);
        if !fired.suppressed.contains(certname) && !is_member && !repeats {
            self.violate("every suppression has its reason", format!("{event} at {certname}"));
        }
    }
}

fn roots(event: &Event) -> BTreeSet<EventId> {
    event.lineage.chains.iter().map(|chain| chain.root).collect()
}

fn has_pair(chain: &Chain, trigger: &TriggerName, node: &Certname) -> bool {
    chain.hops.iter().any(|hop| hop.trigger == *trigger && hop.certname == *node)
}

impl Checker {
    /// Drops the counts that a machine lost with its power, as far as its notes of them were lost.
    pub(crate) fn forget_fires(&mut self, machine: usize, noted: &Counts, left: &Counts) {
        for ((trigger, root), count) in noted {
            let left = left.get(&(trigger.clone(), *root)).copied().unwrap_or_default();
            if let Some(fires) = self.fires.get_mut(&(trigger.clone(), machine, *root)) {
                *fires = fires.saturating_sub(count.saturating_sub(left));
            }
        }
    }

    /// Copies the counts to a copy of a machine, since the copy has the notes too.
    pub(crate) fn copy_fires(&mut self, of: usize, copy: usize) {
        let original = self.fires.iter().filter(|((_, machine, _), _)| *machine == of);
        let copied: Vec<_> =
            original.map(|((trigger, _, root), count)| ((trigger.clone(), copy, *root), *count)).collect();
        self.fires.extend(copied);
    }
}
