//! The chain that a `trigger fire` inside a run continues, and what the loop guard suppresses because of it (C7).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trigger_core::event::{Event, FiredBy, RunOptions, Target, Targets};
use trigger_core::identity::{CatalogUuid, Certname, EventId, RunId, TriggerName};
use trigger_core::lineage::{Chain, Lineage, Loops};
use trigger_core::loop_guard::{self, Rule, is_suppressed};
use trigger_core::publication::Publication;
use trigger_core::run::history::FiredEvent;
use trigger_core::run::record::RunRecord;
use trigger_core::time::Timestamp;

use crate::host::Host;
use crate::state::{Fires, Runs, StateDir};
use trigger_core::suppressed;

/// Returns the record of the run that this command is part of. The environment only `names` the run; its record has
/// to be locked by a live supervisor (C7). A daemon that a run started and left behind is not part of that run.
pub fn parent_run<H: Host>(
    names: Option<RunId>,
    state: Option<&StateDir<H>>,
    warnings: &mut Vec<String>,
) -> Option<RunRecord> {
    let run = names?;
    match Runs::open(state?).and_then(|runs| runs.live_record(run)) {
        Ok(record) => record,
        Err(error) => {
            warnings.push(format!("the loop guard does not know what led to this event: {error}"));
            None
        }
    }
}

/// Returns the chains that an event fired inside this run continues, one for each cause and each of its chains.
pub fn chains(parent: &RunRecord) -> Vec<Chain> {
    loop_guard::chains_through(&parent.certname, parent.causes.iter().map(|cause| &cause.event))
}

/// What is to be fired.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the fields are the event's")]
pub struct FireRequest {
    pub trigger: TriggerName,
    pub origin: Certname,
    pub targets: Targets,
    pub options: RunOptions,
    pub fired_by: Option<FiredBy>,
    pub catalog: Option<CatalogUuid>,
    pub loops: Loops,
    pub expires_in: Duration,
}

impl FireRequest {
    /// The event, fired at `fired_at`; inside a run it continues the chains that led to the run.
    pub fn into_event(self, id: EventId, parent: Option<&RunRecord>, fired_at: Timestamp) -> Event {
        let Self { trigger, origin, targets, options, fired_by, catalog, loops, expires_in } = self;
        let lineage = parent.map_or_else(|| Lineage::root(id), |parent| Lineage { chains: chains(parent) });
        let fired_in = parent.map(|parent| parent.run_id);
        Event {
            id,
            trigger,
            origin,
            targets,
            options,
            lineage,
            fired_in,
            fired_by,
            catalog,
            loops,
            fired_at,
            expires_in,
        }
    }
}

/// A command inside a run may not wait for an event's outcomes.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The event is for a group, whose members are not known before the event is committed.
    #[error(
        "inside a run, --wait cannot tell whether a group holds a node of this run's own chain, and could deadlock: \
         name hosts, or fire without --wait"
    )]
    GroupInsideRun,
    /// The node may itself wait for this run.
    #[error(
        "{certname} is part of the chain that led to this run, so waiting for it could deadlock: fire without --wait"
    )]
    PartOfChain {
        /// The node.
        certname: Certname,
    },
}

/// Refuses to wait inside a run for nodes that may wait for this run, because neither run would ever end.
pub fn refuse_waiting_for_own_chain(event: &Event, parent: &RunRecord) -> Result<(), WaitError> {
    if !event.targets.groups.is_empty() {
        return Err(WaitError::GroupInsideRun);
    }
    let chains = chains(parent);
    let mut before = chains.iter().flat_map(|chain| &chain.hops).map(|hop| &hop.certname);
    match before.find(|certname| event.targets.hosts.contains(*certname)) {
        Some(certname) => Err(WaitError::PartOfChain { certname: certname.clone() }),
        None => Ok(()),
    }
}

/// What the loop guard made of an event.
#[derive(Debug, Default)]
pub struct Guarded {
    /// How many targets each rule suppressed.
    by_rule: BTreeMap<Rule, usize>,
    /// The root events for which this fire was counted.
    noted: BTreeSet<EventId>,
}

/// Suppresses the targets that would continue a loop, and counts the fire for the budget of its root events. Both
/// happen under one lock, because several fires of a run at the same time would each be counted as the third. A fire
/// of which every target is suppressed is not counted.
pub fn guard_against_loops<H: Host>(
    publication: &mut Publication,
    ttl: u32,
    parent: &RunRecord,
    state: &StateDir<H>,
    warnings: &mut Vec<String>,
) -> Guarded {
    let mut guarded = Guarded::default();
    let fires = match Fires::lock(state) {
        Ok(fires) => Some(fires),
        Err(error) => {
            // The other rules still end a loop, whereas an event that is not fired cannot be recovered.
            warnings.push(format!("the loop guard cannot count how often this trigger fired: {error}"));
            None
        }
    };
    let counts = fires.as_ref().map(|fires| fires.of(&publication.event.trigger)).unwrap_or_default();
    let fires_for = |root: EventId| counts.get(&root).copied().unwrap_or_default();
    let suppressed = loop_guard::suppress(publication, ttl, chains(parent), fires_for);
    for (_, suppression) in &suppressed {
        *guarded.by_rule.entry(suppression.rule()).or_default() += 1;
    }
    warnings.extend(suppressed::sentences(
        suppressed.iter().map(|(target, why)| (name(target), why.to_string())),
    ));
    if let Some(fires) = fires
        && !is_suppressed(publication)
    {
        let event = &publication.event;
        // A root counts once, however many chains lead back to it.
        guarded.noted = event.lineage.chains.iter().map(|chain| chain.root).collect();
        if let Err(error) = fires.note(&event.trigger, &guarded.noted, state.host().wall()) {
            warnings.push(format!("this fire is not counted by the loop guard: {error}"));
        }
    }
    guarded
}

fn name(target: &Target) -> String {
    match target {
        Target::Node(host) => host.to_string(),
        Target::Group(group) => format!("the group {group}"),
    }
}

/// Notes an event that a run fired, even if all of its targets were suppressed. `trigger why` shows the note, and the
/// agent logs and counts the suppressed targets at the run's end.
pub fn note_fired<H: Host>(
    state: &StateDir<H>,
    parent: &RunRecord,
    publication: &Publication,
    guarded: &Guarded,
    warnings: &mut Vec<String>,
) {
    let fired = FiredEvent::of(publication, guarded.by_rule.clone());
    if let Err(error) = Runs::open(state).and_then(|runs| runs.note_fired(parent.run_id, &fired)) {
        let event = fired.event;
        warnings.push(format!("neither 'trigger why' nor the agent's log will show {event}: {error}"));
    }
}

/// Takes back the count of a fire that failed, because its event is not stored and reaches no target.
pub fn take_back<H: Host>(state: &StateDir<H>, guarded: &Guarded, event: &Event, warnings: &mut Vec<String>) {
    if guarded.noted.is_empty() {
        return;
    }
    let taken = Fires::lock(state)
        .and_then(|fires| fires.take_back(&event.trigger, &guarded.noted, state.host().wall()));
    if let Err(error) = taken {
        warnings.push(format!("the loop guard goes on counting this fire, which failed: {error}"));
    }
}
