//! Why a node ran: from a run back to the events that it covered, from each event back to the run that fired it, and so
//! on to the root events.
//!
//! [`explain`] reads nothing itself. It takes the facts that are known so far and returns either what to read next or
//! the explanation. So it goes back level by level with few reads, and what it asks for is bounded.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::delivery::DeliveryOutcome;
use crate::event::{Event, Target};
use crate::identity::{Certname, Environment, EventId, RunId, Tag, TriggerName};
use crate::lineage::Lineage;
use crate::node::{NodeRecord, Running};
use crate::run::CompletedRun;
use crate::run::history::{FiredEvent, Kind, PastCause, PastRun, RunHistory, SuppressedTarget, Truncated};
use crate::time::Timestamp;

/// The most causes of one run that are followed back; the others are only named.
pub const MAX_FOLLOWED_PER_RUN: usize = 8;
/// The most events that are followed back for one explanation, nearest first, so that bursts of bursts come to an end.
pub const MAX_FOLLOWED: usize = 200;
/// The most events fired inside one run for which outcomes at members of groups are read.
const MAX_FIRES_LOOKED_UP: usize = 8;

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// What led to a run of this node?
    Run(Certname, Which),
    /// What led to this event?
    Event(EventId),
}

/// Selects a run of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The run that is this many runs back; 0 is the latest, in progress or not.
    Back(usize),
    /// The run with this id.
    Id(RunId),
}

/// Who asks, as far as that decides what is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker {
    /// One who may read all that is stored.
    Reader,
    /// A node, which may have written anything about itself. What it says leads to no other node: an event is followed
    /// only where it is stored, and stored for the node that says that it ran for it.
    Node(Certname),
}

/// The facts that have been read so far, including what was looked up and does not exist.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The facts about each node.
    pub nodes: BTreeMap<Certname, NodeFacts>,
    /// The events that were looked up; absent ones have been removed.
    pub events: BTreeMap<EventId, Option<Event>>,
    /// The outcomes of deliveries that were looked up; absent ones are not stored.
    pub outcomes: BTreeMap<(EventId, Certname), Option<DeliveryOutcome>>,
    /// Whether stored events are for a node: it has fired them, or is one of the targets or members that are stored.
    pub is_for: BTreeMap<(EventId, Certname), bool>,
}

/// The facts about a node.
#[derive(Debug, Clone, Default)]
pub struct NodeFacts {
    /// Its record, if it is registered.
    pub record: Option<NodeRecord>,
    /// The history of its latest runs.
    pub history: RunHistory,
}

/// What has to be read before the explanation can be continued.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the facts")]
pub struct Wanted {
    pub nodes: BTreeSet<Certname>,
    pub events: BTreeSet<EventId>,
    pub outcomes: BTreeSet<(EventId, Certname)>,
    pub is_for: BTreeSet<(EventId, Certname)>,
}

impl Wanted {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The state of an explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// These facts have to be read first.
    Read(Wanted),
    /// The explanation is complete.
    Done(Explanation),
}

/// Why there is nothing to explain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExplainError {
    /// The node is not registered and has no history.
    NoNode,
    /// The node is registered but reports no run.
    NoRun,
    /// The node reports only this many runs.
    TooFewRuns(usize),
    /// The run is not, or no longer, in the node's history.
    NoSuchRun(RunId),
    /// The event is not in the backend.
    NoEvent,
}

/// Runs and events with what led to them: an event leads to the runs that have it among their causes, and a run leads
/// to the events that were fired inside it. Each is listed once; those nearest to the question come first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Explanation {
    /// The runs. If the question was about a run, it is the first.
    pub runs: Vec<RunStep>,
    /// The events. If the question was about an event, it is the first.
    pub events: Vec<EventStep>,
}

impl Explanation {
    /// The run with this id, if it is part of the explanation.
    pub fn run(&self, run: RunId) -> Option<&RunStep> {
        self.runs.iter().find(|step| step.run_id == run)
    }

    /// The causes of a run that are not followed: the number of each kind, most frequent first, and the number of those
    /// that are not even named.
    pub fn merged(&self, run: &RunStep) -> (Vec<(Kind, usize)>, usize) {
        let mut kinds: BTreeMap<Kind, usize> = BTreeMap::new();
        let mut unnamed = run.causes.more;
        for step in run.causes.listed.iter().filter_map(|&cause| self.event(cause)) {
            match &step.what {
                _ if step.is_followed => {}
                Some(what) => *kinds.entry(what.kind()).or_default() += 1,
                None => unnamed += 1,
            }
        }
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by_key(|(_, count)| Reverse(*count));
        (kinds, unnamed)
    }

    /// The event with this id, if it is part of the explanation.
    pub fn event(&self, event: EventId) -> Option<&EventStep> {
        self.events.iter().find(|step| step.id == event)
    }
}

/// A run in an explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStep {
    /// The node of the run.
    pub certname: Certname,
    /// The run's id.
    pub run_id: RunId,
    /// What is known of it.
    pub state: RunState,
    /// The events that it covered, each of which is among the events of the explanation.
    pub causes: Truncated<EventId>,
    /// How many earlier events of a backlog were superseded by one of the causes.
    pub superseded: usize,
    /// The events that were fired inside it.
    pub fired: Truncated<FiredEvent>,
}

/// What is known of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    /// The run is in progress.
    Running {
        /// When it started, by its node's clock.
        started_at: Timestamp,
        /// When its node last renewed its record, by the same clock. The record of a node that is gone stays as it was.
        seen_at: Timestamp,
    },
    /// The run is over.
    Ended {
        /// The run with its result.
        run: CompletedRun,
        /// The tags to which it was limited; empty means the whole catalog.
        tags: BTreeSet<Tag>,
        /// The environment of Puppet's that its events asked for; absent: the node's own.
        environment: Option<Environment>,
    },
    /// The run is no longer in its node's history.
    Gone,
}

/// An event in an explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventStep {
    /// The event's id.
    pub id: EventId,
    /// What is known of the event; absent if it has been removed and no history mentions it.
    pub what: Option<PastCause>,
    /// The event's lineage, while the event is in the backend.
    pub lineage: Option<Lineage>,
    /// Whether the event was followed back; otherwise it is only named.
    pub is_followed: bool,
}

impl EventStep {
    /// Whether the event is known to be a root event.
    pub fn is_root(&self) -> bool {
        self.what.as_ref().is_some_and(|what| what.fired_in.is_none())
            && self.lineage.as_ref().is_none_or(Lineage::is_root)
    }

    /// The trigger that fired it, as far as known.
    pub fn trigger(&self) -> Option<&TriggerName> {
        self.what.as_ref().map(|what| &what.trigger)
    }
}

/// Explains to `asker` as far as the facts allow. That a node may ask the question at all is for the caller to decide.
///
/// # Errors
///
/// If the run or event in question does not exist.
pub fn explain(question: &Question, asker: &Asker, facts: &Facts) -> Result<Progress, ExplainError> {
    let mut walk =
        Walk { asker, facts, ahead: VecDeque::new(), wanted: Wanted::default(), found: Default::default() };
    match question {
        Question::Run(certname, which) => match facts.nodes.get(certname) {
            None => drop(walk.wanted.nodes.insert(certname.clone())),
            Some(node) => walk.ahead.push_back(Visit::Run(certname.clone(), node.pick(*which)?)),
        },
        Question::Event(event) => match facts.events.get(event) {
            Some(None) => return Err(ExplainError::NoEvent),
            None => drop(walk.wanted.events.insert(*event)),
            Some(Some(stored)) => walk.ahead.push_back(match asker {
                Asker::Reader => Visit::Event(*event, None),
                Asker::Node(certname) => Visit::Cause(*event, Some(PastCause::of(stored)), certname.clone()),
            }),
        },
    }
    while let Some(visit) = walk.ahead.pop_front() {
        match visit {
            Visit::Run(certname, run) => walk.visit_run(certname, run),
            Visit::Event(event, known) => walk.visit_event(event, known),
            Visit::Cause(event, known, certname) => match walk.is_for(event, &certname) {
                Some(true) => walk.visit_event(event, known),
                Some(false) => walk.name_only(event, known),
                None => {}
            },
        }
    }
    if walk.wanted.is_empty() {
        walk.look_up_members();
    }
    Ok(if walk.wanted.is_empty() { Progress::Done(walk.found) } else { Progress::Read(walk.wanted) })
}

impl NodeFacts {
    /// The run in progress, and when its node last renewed its record.
    fn running(&self) -> Option<(&Running, Timestamp)> {
        let record = self.record.as_ref()?;
        let running = record.activity.running.as_ref()?;
        // When a run ends, its entry in the history is written a moment before the record is renewed.
        self.history.run(running.run_id).is_none().then_some((running, record.seen_at))
    }

    fn pick(&self, which: Which) -> Result<RunId, ExplainError> {
        let ended = self.history.runs.iter().map(|past| past.run.run_id);
        let known: Vec<RunId> =
            self.running().map(|(running, _)| running.run_id).into_iter().chain(ended).collect();
        let found = match which {
            Which::Back(back) => known.get(back).copied(),
            Which::Id(run) => known.contains(&run).then_some(run),
        };
        found.ok_or(match which {
            _ if known.is_empty() && self.record.is_none() => ExplainError::NoNode,
            _ if known.is_empty() => ExplainError::NoRun,
            Which::Back(_) => ExplainError::TooFewRuns(known.len()),
            Which::Id(run) => ExplainError::NoSuchRun(run),
        })
    }
}

enum Visit {
    Run(Certname, RunId),
    /// An event, with what is known of it.
    Event(EventId, Option<PastCause>),
    /// An event that a node says that it ran for.
    Cause(EventId, Option<PastCause>, Certname),
}

struct Walk<'a> {
    asker: &'a Asker,
    facts: &'a Facts,
    ahead: VecDeque<Visit>,
    wanted: Wanted,
    found: Explanation,
}

impl Walk<'_> {
    fn visit_run(&mut self, certname: Certname, run_id: RunId) {
        let Some(node) = self.facts.nodes.get(&certname) else {
            self.wanted.nodes.insert(certname);
            return;
        };
        if self.found.run(run_id).is_some() {
            return;
        }
        let step = if let Some(past) = node.history.run(run_id) {
            self.visit_causes(&certname, past);
            RunStep {
                certname,
                run_id,
                state: RunState::Ended {
                    run: past.run.clone(),
                    tags: past.tags.clone(),
                    environment: past.environment.clone(),
                },
                causes: Truncated {
                    listed: past.causes.listed.iter().map(|cause| cause.event).collect(),
                    more: past.causes.more,
                },
                superseded: past.superseded,
                fired: past.fired.clone(),
            }
        } else if let Some((running, seen_at)) =
            node.running().filter(|(running, _)| running.run_id == run_id)
        {
            // Only the ids of the other causes are known.
            let causes = Truncated::of(running.causes.iter().copied(), MAX_FOLLOWED_PER_RUN);
            let cause = |&event| Visit::Cause(event, None, certname.clone());
            self.ahead.extend(causes.listed.iter().map(cause));
            let state = RunState::Running { started_at: running.started_at, seen_at };
            RunStep { certname, run_id, state, causes, superseded: 0, fired: Truncated::default() }
        } else {
            let (causes, fired) = (Truncated::default(), Truncated::default());
            RunStep { certname, run_id, state: RunState::Gone, causes, superseded: 0, fired }
        };
        self.found.runs.push(step);
    }

    fn visit_causes(&mut self, certname: &Certname, past: &PastRun) {
        let mut kinds = BTreeSet::new();
        for cause in &past.causes.listed {
            // Events of one kind have the same past, so one of them is enough.
            if kinds.insert(cause.kind()) && kinds.len() <= MAX_FOLLOWED_PER_RUN {
                self.ahead.push_back(Visit::Cause(cause.event, Some(cause.clone()), certname.clone()));
            } else {
                self.name_only(cause.event, Some(cause.clone()));
            }
        }
    }

    fn name_only(&mut self, id: EventId, what: Option<PastCause>) {
        if self.found.event(id).is_none() {
            self.found.events.push(EventStep { id, what, lineage: None, is_followed: false });
        }
    }

    /// Whether an event counts as one that is for a node; `None` if that has to be read first.
    fn is_for(&mut self, event: EventId, certname: &Certname) -> Option<bool> {
        if *self.asker == Asker::Reader {
            return Some(true);
        }
        let key = (event, certname.clone());
        if let Some(&is_for) = self.facts.is_for.get(&key) {
            return Some(is_for);
        }
        if self.facts.is_for.len() + self.wanted.is_for.len() >= MAX_FOLLOWED {
            return Some(false);
        }
        self.wanted.is_for.insert(key);
        None
    }

    fn visit_event(&mut self, id: EventId, known: Option<PastCause>) {
        match self.found.events.iter().position(|step| step.id == id) {
            Some(at) if self.found.events[at].is_followed => return,
            // Another run has only named it.
            Some(at) => drop(self.found.events.remove(at)),
            None => {}
        }
        let followed = self.found.events.iter().filter(|step| step.is_followed).count();
        if followed + self.wanted.events.len() >= MAX_FOLLOWED {
            return self.name_only(id, known);
        }
        let Some(event) = self.facts.events.get(&id) else {
            self.wanted.events.insert(id);
            return;
        };
        // Where the event is gone, a node's own word for it remains.
        let is_believed = event.is_some() || *self.asker == Asker::Reader;
        let what = event.as_ref().map(PastCause::of).or(known);
        let lineage = event.as_ref().map(|event| event.lineage.clone());
        if let Some(PastCause { origin, fired_in: Some(run), .. }) = &what
            && is_believed
        {
            self.want_chain(origin, lineage.as_ref());
            self.ahead.push_back(Visit::Run(origin.clone(), *run));
        }
        self.found.events.push(EventStep { id, what, lineage, is_followed: true });
    }

    /// Requests the facts about all nodes of the shortest chain at once, which saves a read for each hop.
    fn want_chain(&mut self, origin: &Certname, lineage: Option<&Lineage>) {
        if self.facts.nodes.contains_key(origin) || *self.asker != Asker::Reader {
            return;
        }
        let hops = lineage.and_then(|lineage| lineage.chains.first()).map_or(&[][..], |chain| &chain.hops);
        let unknown =
            hops.iter().map(|hop| &hop.certname).filter(|node| !self.facts.nodes.contains_key(*node));
        self.wanted.nodes.extend(unknown.take(MAX_FOLLOWED_PER_RUN).cloned());
    }

    /// Looks up at which members of a group an event was suppressed. The members look for loops themselves when the event
    /// reaches them, so the run that fired the event does not know. Only nodes of this explanation can be in its chain.
    fn look_up_members(&mut self) {
        let mut looked_up = self.facts.outcomes.len();
        let nodes: BTreeSet<Certname> = self.found.runs.iter().map(|step| step.certname.clone()).collect();
        let triggers = self.found.events.iter().filter_map(EventStep::trigger);
        let triggers: BTreeSet<TriggerName> = triggers.cloned().collect();
        for step in &mut self.found.runs {
            let mut to_groups: Vec<&mut FiredEvent> =
                step.fired.listed.iter_mut().filter(|fired| fired.to_groups).collect();
            // A member suppresses the events of a trigger that made it run before.
            to_groups.sort_by_key(|fired| !triggers.contains(&fired.trigger));
            for fired in to_groups.into_iter().take(MAX_FIRES_LOOKED_UP) {
                for node in &nodes {
                    let target = Target::Node(node.clone());
                    if fired.suppressed.listed.iter().any(|suppressed| suppressed.target == target) {
                        continue;
                    }
                    match self.facts.outcomes.get(&(fired.event, node.clone())) {
                        None if looked_up < MAX_FOLLOWED => {
                            looked_up += 1;
                            self.wanted.outcomes.insert((fired.event, node.clone()));
                        }
                        Some(Some(DeliveryOutcome::Suppressed(reason))) => {
                            fired.suppressed.listed.push(SuppressedTarget { target, reason: reason.clone() });
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
