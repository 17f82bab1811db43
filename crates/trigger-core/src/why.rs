//! Why a node ran: from a run back to the events it covered, from each event back to the run that fired it,
//! and so on to the roots.
//!
//! [`explain`] reads nothing itself: it is given what is known so far, and answers with what to read next or
//! with the whole. So it goes back level by level, whatever lies in between, and what it asks for is bounded.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::delivery::DeliveryOutcome;
use crate::event::{Event, Target};
use crate::identity::{Certname, EventId, RunId, Tag, TriggerName};
use crate::lineage::Lineage;
use crate::node::{NodeRecord, Running};
use crate::run::CompletedRun;
use crate::run::history::{FiredEvent, Kind, PastCause, PastRun, RunHistory, SuppressedTarget, Truncated};
use crate::time::Timestamp;

/// Causes of one run that are followed to where they came from; the others are only named.
pub const MAX_FOLLOWED_PER_RUN: usize = 8;
/// Events that are followed for one answer, nearest first: a burst of bursts has an end.
pub const MAX_FOLLOWED: usize = 200;
/// Events fired by one run whose members are asked what they made of it.
const FIRES_LOOKED_AT: usize = 8;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// What led to a run of this node.
    Run(Certname, Which),
    /// What led to this event.
    Event(EventId),
}

/// Which run of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// So many runs back; the latest is 0, in progress or not.
    Back(usize),
    /// This one.
    Id(RunId),
}

/// What was read so far. What was looked for and is not there is known too.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Of each node what it says of itself.
    pub nodes: BTreeMap<Certname, NodeFacts>,
    /// Events that are there, and those that are not any more.
    pub events: BTreeMap<EventId, Option<Event>>,
    /// How events ended at nodes, where they have.
    pub ends: BTreeMap<(EventId, Certname), Option<DeliveryOutcome>>,
}

/// What a node says of itself.
#[derive(Debug, Clone, Default)]
pub struct NodeFacts {
    /// Its registration.
    pub record: Option<NodeRecord>,
    /// Its latest runs.
    pub history: RunHistory,
}

/// What to read before it can go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the facts")]
pub struct Wanted {
    pub nodes: BTreeSet<Certname>,
    pub events: BTreeSet<EventId>,
    pub ends: BTreeSet<(EventId, Certname)>,
}

impl Wanted {
    fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.events.is_empty() && self.ends.is_empty()
    }
}

/// How far an explanation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// This has to be read first.
    Read(Wanted),
    /// This is it.
    Done(Explanation),
}

/// Why there is nothing to explain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExplainError {
    /// Nobody registered under this certname, and no run of it is told.
    NoNode,
    /// It is registered, but tells of no run.
    NoRun,
    /// It tells of this many runs only.
    OnlySoMany(usize),
    /// It does not tell of this run, or not any more.
    NoSuchRun(RunId),
    /// This event is not in the backend.
    NoEvent,
}

/// Runs and events with what led to them: an event leads to the runs that have it among their causes, a run
/// to the events that were fired in it. Each once, nearest to the question first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Explanation {
    /// The first is the run that was asked for, if a run was.
    pub runs: Vec<RunStep>,
    /// The first is the event that was asked for, if an event was.
    pub events: Vec<EventStep>,
}

impl Explanation {
    /// The run with this id, if it is part of the chain.
    pub fn run(&self, run: RunId) -> Option<&RunStep> {
        self.runs.iter().find(|step| step.run_id == run)
    }

    /// The causes of a run that are not followed, by kind with how many there are of each, the most first; and
    /// how many are not even named.
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

    /// The event with this id, if it is part of the chain.
    pub fn event(&self, event: EventId) -> Option<&EventStep> {
        self.events.iter().find(|step| step.id == event)
    }
}

/// A run on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStep {
    /// Where.
    pub certname: Certname,
    /// Which.
    pub run_id: RunId,
    /// What is known of it.
    pub state: RunState,
    /// What it covered, each among the events.
    pub causes: Truncated<EventId>,
    /// Earlier events of a backlog that one of the causes stands for.
    pub superseded: usize,
    /// What was fired inside it.
    pub fired: Truncated<FiredEvent>,
}

/// What is known of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    /// It is in progress.
    Running {
        /// Since when, by its node's clock.
        started_at: Timestamp,
        /// When its node last said so, by the same clock: a node that is gone says so for ever.
        seen_at: Timestamp,
    },
    /// It is over.
    Ended {
        /// How it ended.
        run: CompletedRun,
        /// What it was limited to.
        tags: BTreeSet<Tag>,
    },
    /// Its node does not tell of it any more.
    Gone,
}

/// An event on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventStep {
    /// Which.
    pub id: EventId,
    /// What it was; nothing for one that is gone and of which no run tells.
    pub what: Option<PastCause>,
    /// What the event itself says of its past, while it is in the backend.
    pub lineage: Option<Lineage>,
    /// Whether it was asked where it came from; else it is only named.
    pub is_followed: bool,
}

impl EventStep {
    /// Whether it is known that no run led to it.
    pub fn is_root(&self) -> bool {
        self.what.as_ref().is_some_and(|what| what.fired_in.is_none())
            && self.lineage.as_ref().is_none_or(Lineage::is_root)
    }

    /// What fired it.
    pub fn trigger(&self) -> Option<&TriggerName> {
        self.what.as_ref().map(|what| &what.trigger)
    }
}

/// Explains as far as the facts go.
pub fn explain(question: &Question, facts: &Facts) -> Result<Progress, ExplainError> {
    let mut walk =
        Walk { facts, ahead: VecDeque::new(), wanted: Wanted::default(), found: Default::default() };
    match question {
        Question::Run(certname, which) => match facts.nodes.get(certname) {
            None => drop(walk.wanted.nodes.insert(certname.clone())),
            Some(node) => walk.ahead.push_back(Visit::Run(certname.clone(), node.pick(*which)?)),
        },
        Question::Event(event) => match facts.events.get(event) {
            Some(None) => return Err(ExplainError::NoEvent),
            _ => walk.ahead.push_back(Visit::Event(*event, None)),
        },
    }
    while let Some(visit) = walk.ahead.pop_front() {
        match visit {
            Visit::Run(certname, run) => walk.visit_run(certname, run),
            Visit::Event(event, told) => walk.visit_event(event, told),
        }
    }
    if walk.wanted.is_empty() {
        walk.ask_members();
    }
    Ok(if walk.wanted.is_empty() { Progress::Done(walk.found) } else { Progress::Read(walk.wanted) })
}

impl NodeFacts {
    /// The run in progress, and when its node last said so.
    fn running(&self) -> Option<(&Running, Timestamp)> {
        let record = self.record.as_ref()?;
        let running = record.activity.running.as_ref()?;
        // The registration is renewed a moment after the run is told of.
        self.history.run(running.run_id).is_none().then_some((running, record.seen_at))
    }

    fn pick(&self, which: Which) -> Result<RunId, ExplainError> {
        let ended = self.history.runs.iter().map(|past| past.run.run_id);
        let told: Vec<RunId> =
            self.running().map(|(running, _)| running.run_id).into_iter().chain(ended).collect();
        let found = match which {
            Which::Back(back) => told.get(back).copied(),
            Which::Id(run) => told.contains(&run).then_some(run),
        };
        found.ok_or(match which {
            _ if told.is_empty() && self.record.is_none() => ExplainError::NoNode,
            _ if told.is_empty() => ExplainError::NoRun,
            Which::Back(_) => ExplainError::OnlySoMany(told.len()),
            Which::Id(run) => ExplainError::NoSuchRun(run),
        })
    }
}

enum Visit {
    Run(Certname, RunId),
    Event(EventId, Option<PastCause>),
}

struct Walk<'a> {
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
            self.causes_told(past);
            RunStep {
                certname,
                run_id,
                state: RunState::Ended { run: past.run.clone(), tags: past.tags.clone() },
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
            // Of the others nothing is known but their ids.
            let causes = Truncated::of(running.causes.iter().copied(), MAX_FOLLOWED_PER_RUN);
            self.ahead.extend(causes.listed.iter().map(|&event| Visit::Event(event, None)));
            let state = RunState::Running { started_at: running.started_at, seen_at };
            RunStep { certname, run_id, state, causes, superseded: 0, fired: Truncated::default() }
        } else {
            let (causes, fired) = (Truncated::default(), Truncated::default());
            RunStep { certname, run_id, state: RunState::Gone, causes, superseded: 0, fired }
        };
        self.found.runs.push(step);
    }

    fn causes_told(&mut self, past: &PastRun) {
        let mut kinds = BTreeSet::new();
        for cause in &past.causes.listed {
            // The others of a kind have the same past.
            if kinds.insert(cause.kind()) && kinds.len() <= MAX_FOLLOWED_PER_RUN {
                self.ahead.push_back(Visit::Event(cause.event, Some(cause.clone())));
            } else if self.found.event(cause.event).is_none() {
                self.name_only(cause.event, Some(cause.clone()));
            }
        }
    }

    fn name_only(&mut self, id: EventId, what: Option<PastCause>) {
        self.found.events.push(EventStep { id, what, lineage: None, is_followed: false });
    }

    fn visit_event(&mut self, id: EventId, told: Option<PastCause>) {
        match self.found.events.iter().position(|step| step.id == id) {
            Some(known) if self.found.events[known].is_followed => return,
            // It was only named where it was met first.
            Some(known) => drop(self.found.events.remove(known)),
            None => {}
        }
        let followed = self.found.events.iter().filter(|step| step.is_followed).count();
        if followed + self.wanted.events.len() >= MAX_FOLLOWED {
            return self.name_only(id, told);
        }
        let Some(event) = self.facts.events.get(&id) else {
            self.wanted.events.insert(id);
            return;
        };
        let what = event.as_ref().map(PastCause::of).or(told);
        let lineage = event.as_ref().map(|event| event.lineage.clone());
        if let Some(PastCause { origin, fired_in: Some(run), .. }) = &what {
            self.want_chain(origin, lineage.as_ref());
            self.ahead.push_back(Visit::Run(origin.clone(), *run));
        }
        self.found.events.push(EventStep { id, what, lineage, is_followed: true });
    }

    /// Asks for all nodes of the shortest chain at once, which saves a round trip for each of its hops.
    fn want_chain(&mut self, origin: &Certname, lineage: Option<&Lineage>) {
        if self.facts.nodes.contains_key(origin) {
            return;
        }
        let hops = lineage.and_then(|lineage| lineage.chains.first()).map_or(&[][..], |chain| &chain.hops);
        let unknown =
            hops.iter().map(|hop| &hop.certname).filter(|node| !self.facts.nodes.contains_key(*node));
        self.wanted.nodes.extend(unknown.take(MAX_FOLLOWED_PER_RUN).cloned());
    }

    /// Members of a group look for loops themselves, when the event has reached them. Whom they can find in
    /// its chain is a node of this one.
    fn ask_members(&mut self) {
        let mut asked = self.facts.ends.len();
        let nodes: BTreeSet<Certname> = self.found.runs.iter().map(|step| step.certname.clone()).collect();
        let on_the_way = self.found.events.iter().filter_map(EventStep::trigger);
        let on_the_way: BTreeSet<TriggerName> = on_the_way.cloned().collect();
        for step in &mut self.found.runs {
            let mut to_groups: Vec<&mut FiredEvent> =
                step.fired.listed.iter_mut().filter(|fired| fired.to_groups).collect();
            // A member finds a trigger that has made it run before.
            to_groups.sort_by_key(|fired| !on_the_way.contains(&fired.trigger));
            for fired in to_groups.into_iter().take(FIRES_LOOKED_AT) {
                for node in &nodes {
                    let target = Target::Node(node.clone());
                    if fired.suppressed.listed.iter().any(|suppressed| suppressed.target == target) {
                        continue;
                    }
                    match self.facts.ends.get(&(fired.event, node.clone())) {
                        None if asked < MAX_FOLLOWED => {
                            asked += 1;
                            self.wanted.ends.insert((fired.event, node.clone()));
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
