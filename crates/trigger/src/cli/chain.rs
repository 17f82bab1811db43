//! The chain that a `trigger fire` inside a run continues, and what the loop guard makes of it (contract 7).

use std::collections::BTreeSet;

use trigger_core::event::Event;
use trigger_core::identity::{EventId, RunId};
use trigger_core::lineage::{self, Chain, Lineage};
use trigger_core::wire::{Publication, RunRecord};

use crate::exit::Failure;
use crate::state::{Runs, StateDir};

/// The run that this command is part of. The environment only names it; what counts is that its record is
/// locked by a live supervisor (contract 7). A daemon that a run left behind is no part of it.
pub(super) fn parent_run(state: Option<&StateDir>, warnings: &mut Vec<String>) -> Option<RunRecord> {
    let run: RunId = std::env::var("TRIGGER_RUN_ID").ok()?.parse().ok()?;
    match Runs::open(state?).and_then(|runs| runs.live_record(run)) {
        Ok(record) => record,
        Err(error) => {
            warnings.push(format!("the loop guard cannot tell what led to this event: {error}"));
            None
        }
    }
}

pub(super) fn chains(parent: &RunRecord) -> Vec<Chain> {
    let causes = parent.causes.iter().map(|cause| (&cause.event.trigger, &cause.event.lineage));
    lineage::chains_through(&parent.certname, causes)
}

/// Two nodes that wait for each other's runs would wait for ever.
pub(super) fn refuse_waiting_for_own_chain(event: &Event, parent: &RunRecord) -> Result<(), Failure> {
    if !event.targets.groups.is_empty() {
        return Err(Failure::failed(
            "inside a run, --wait cannot tell whether a group holds a node of this run's own chain, and could \
             deadlock: name hosts, or fire without --wait",
        ));
    }
    let chains = chains(parent);
    let mut before = chains.iter().flat_map(|chain| &chain.hops).map(|hop| &hop.certname);
    match before.find(|certname| event.targets.hosts.contains(*certname)) {
        Some(certname) => Err(Failure::failed(format!(
            "{certname} is part of the chain that led to this run, so waiting for it could deadlock: fire without --wait"
        ))),
        None => Ok(()),
    }
}

/// Leaves out what the loop guard suppresses; a sentence for each.
pub(super) fn guard_against_loops(
    publication: &mut Publication,
    ttl: u32,
    parent: &RunRecord,
    state: Option<&StateDir>,
) -> Result<Vec<String>, Failure> {
    let all = chains(parent);
    let event = &mut publication.event;
    let fired = match state {
        Some(state) => Runs::open(state)?.fires(&event.trigger)?,
        None => Default::default(),
    };
    let fires = |root: EventId| fired.get(&root).copied().unwrap_or_default();
    let mut permitted: BTreeSet<Chain> = BTreeSet::new();
    let mut warnings = Vec::new();
    for host in &event.targets.hosts {
        match lineage::judge(&event.trigger, Some(host), &all, ttl, fires) {
            Ok(chains) => permitted.extend(chains),
            Err(suppression) => {
                warnings.push(format!("not fired at {host}: {suppression}"));
                publication.suppressed.insert(host.clone(), suppression.to_string());
            }
        }
    }
    if !event.targets.groups.is_empty() {
        match lineage::judge(&event.trigger, None, &all, ttl, fires) {
            Ok(chains) => permitted.extend(chains),
            Err(suppression) => {
                for group in std::mem::take(&mut event.targets.groups) {
                    warnings.push(format!("not fired at the group {group}: {suppression}"));
                    publication.suppressed_groups.insert(group, suppression.to_string());
                }
            }
        }
    }
    let mut chains: Vec<Chain> = if permitted.is_empty() { all } else { permitted.into_iter().collect() };
    chains.sort_by_key(|chain| chain.hops.len());
    chains.truncate(lineage::MAX_CHAINS);
    event.lineage = Lineage { chains };
    Ok(warnings)
}

/// Counts a fire for the budget of its root events; one that was suppressed never happened.
pub(super) fn note_fire(state: &StateDir, parent: &RunRecord, publication: &Publication) {
    if is_suppressed(publication) {
        return;
    }
    // Once for each root, however many chains lead back to it.
    let roots: BTreeSet<EventId> = publication.event.lineage.chains.iter().map(|chain| chain.root).collect();
    let noted =
        Runs::open(state).and_then(|runs| runs.note_fire(parent.run_id, &publication.event.trigger, &roots));
    if let Err(error) = noted {
        tracing::warn!("this fire is not counted by the loop guard: {error}");
    }
}

/// Whether the loop guard left out every target.
pub(super) fn is_suppressed(publication: &Publication) -> bool {
    let targets = &publication.event.targets;
    targets.groups.is_empty() && targets.hosts.len() == publication.suppressed.len()
}
