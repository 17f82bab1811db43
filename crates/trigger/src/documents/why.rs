//! Why a node ran: `trigger why`.

use serde::Serialize;
use trigger_core::event::{FiredBy, Target};
use trigger_core::identity::{Certname, Environment, EventId, GroupName, RunId, Tag, TriggerName};
use trigger_core::lineage::{Chain, Hop};
use trigger_core::run::RunOutcome;
use trigger_core::run::history::{FiredEvent, SuppressedTarget};
use trigger_core::why::{EventStep, Explanation, Question, RunState, RunStep};
use trigger_fleet::status;

use super::event::{EventResource, EventTarget};
use super::text::{Text, Time, texts};
use crate::silence;

/// What `trigger why` prints: the runs and the events that led to a run or to an event. An event leads to the runs
/// that have it among their causes, a run to the events that were fired in it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Why {
    /// The node whose run is explained; null if an event is explained.
    pub(crate) certname: Option<Text<Certname>>,
    /// The run that is explained; null if an event is explained.
    pub(crate) run_id: Option<Text<RunId>>,
    /// The event that is explained; null if a run is explained.
    pub(crate) event_id: Option<Text<EventId>>,
    /// The runs of the chain, nearest to the question first.
    pub(crate) runs: Vec<ChainRun>,
    /// The events of the chain, nearest to the question first.
    pub(crate) events: Vec<ChainEvent>,
    /// The deliveries of the event that is explained; null if a run is explained, or if the backend no longer has
    /// the event.
    pub(crate) targets: Option<Vec<EventTarget>>,
    /// What the reader should know besides.
    pub(crate) warnings: Vec<String>,
}

/// A run of the chain.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ChainRun {
    /// The run's id.
    run_id: Text<RunId>,
    /// The node that ran.
    certname: Text<Certname>,
    /// Whether the run is in progress, has ended, or is no longer on record.
    state: ChainRunState,
    /// How the run ended; null unless it has ended.
    outcome: Option<Text<RunOutcome>>,
    /// Why the run ended so, or that its node is silent.
    reason: Option<String>,
    /// Whether the run was a noop run, which changes only what has `noop => false`; null unless it has ended.
    noop: Option<bool>,
    /// Whether noop, of the run or of resources, left changes pending; null unless the run has ended, and where Puppet's
    /// report does not say.
    noop_pending: Option<bool>,
    /// Whether the run changed something, a noop run included; null unless it has ended, and where Puppet's report does
    /// not say.
    really_changed: Option<bool>,
    /// The tags that the run was limited to, empty for a whole run; null unless it has ended.
    tags: Option<Vec<Text<Tag>>>,
    /// The environment of Puppet's that the run's events asked for; null: the node's own, and unless it has ended.
    environment: Option<Text<Environment>>,
    /// When the run started; null if it is no longer on record.
    started_at: Option<Time>,
    /// When the node last registered; null unless the run is in progress.
    seen_at: Option<Time>,
    /// When the run ended; null unless it has ended.
    finished_at: Option<Time>,
    /// The ids of the events that the run covered.
    causes: Vec<Text<EventId>>,
    /// How many more events the run covered.
    more_causes: usize,
    /// How many earlier events of a backlog were superseded by those that the run covered.
    superseded: usize,
    /// The events that were fired in the run.
    fired: Vec<ChainFire>,
    /// How many more events were fired in the run.
    more_fired: usize,
}

/// What is known of a run.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
enum ChainRunState {
    /// The run is in progress.
    Running,
    /// The run has ended.
    Ended,
    /// The run is no longer on record.
    Gone,
}

/// An event that was fired in a run.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ChainFire {
    /// The event's id.
    event_id: Text<EventId>,
    /// The trigger's name.
    trigger: Text<TriggerName>,
    /// The targets that the loop guard suppressed.
    suppressed: Vec<ChainSuppressed>,
    /// How many more targets the loop guard suppressed.
    more_suppressed: usize,
}

/// A target that the loop guard suppressed: a node or a group.
#[derive(Debug, Serialize)]
#[serde(untagged)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
enum ChainSuppressed {
    /// A node.
    Node {
        /// The node.
        certname: Text<Certname>,
        /// The rule of the loop guard that suppressed it.
        reason: String,
    },
    /// A group.
    Group {
        /// The group.
        group: Text<GroupName>,
        /// The rule of the loop guard that suppressed it.
        reason: String,
    },
}

/// An event of the chain.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ChainEvent {
    /// The event's id.
    event_id: Text<EventId>,
    /// The trigger's name; null if the event has been swept.
    trigger: Option<Text<TriggerName>>,
    /// The node that fired the event; null if the event has been swept.
    origin: Option<Text<Certname>>,
    /// When the event was fired; null if the event has been swept.
    fired_at: Option<Time>,
    /// The run of Trigger that the event was fired in; null if it was fired outside any: on a command line, or in a
    /// Puppet run that Trigger did not start.
    fired_in: Option<Text<RunId>>,
    /// The Puppet resource that fired the event; null if it was fired on a command line, or the event has been swept.
    resource: Option<EventResource>,
    /// The earlier event that it is a retry of; null otherwise.
    retry_of: Option<Text<EventId>>,
    /// Whether a chain begins with this event.
    root: bool,
    /// Whether the chain goes on to what led to this event; the other events are only named.
    followed: bool,
    /// The chains that the event itself carries; null unless the run that it was fired in is no longer on record.
    lineage: Option<Vec<LineageChain>>,
}

/// A chain that an event carries.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct LineageChain {
    /// The root event.
    root: Text<EventId>,
    /// The hops from the root event to the event that carries the chain.
    hops: Vec<LineageHop>,
}

/// One hop of a chain.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct LineageHop {
    /// The trigger that was fired.
    trigger: Text<TriggerName>,
    /// The node that ran for it.
    certname: Text<Certname>,
}

impl Why {
    pub(crate) fn of(
        question: &Question,
        explanation: &Explanation,
        status: Option<&status::EventStatus>,
        warnings: Vec<String>,
    ) -> Self {
        let (certname, run_id, event_id) = match question {
            Question::Run(certname, _) => {
                let run = explanation.runs.first().map(|run| Text(run.run_id));
                (Some(Text(certname.clone())), run, None)
            }
            Question::Event(event) => (None, None, Some(Text(*event))),
        };
        Self {
            certname,
            run_id,
            event_id,
            runs: explanation.runs.iter().map(ChainRun::of).collect(),
            events: explanation.events.iter().map(ChainEvent::of).collect(),
            targets: status.map(EventTarget::list),
            warnings,
        }
    }
}

impl ChainRun {
    fn of(step: &RunStep) -> Self {
        let known = Self {
            run_id: Text(step.run_id),
            certname: Text(step.certname.clone()),
            state: ChainRunState::Gone,
            outcome: None,
            reason: None,
            noop: None,
            noop_pending: None,
            really_changed: None,
            tags: None,
            environment: None,
            started_at: None,
            seen_at: None,
            finished_at: None,
            causes: texts(&step.causes.listed),
            more_causes: step.causes.more,
            superseded: step.superseded,
            fired: step.fired.listed.iter().map(ChainFire::of).collect(),
            more_fired: step.fired.more,
        };
        match &step.state {
            RunState::Running { started_at, seen_at } => Self {
                state: ChainRunState::Running,
                reason: silence::sentence(*seen_at),
                started_at: Some(Time(*started_at)),
                seen_at: Some(Time(*seen_at)),
                ..known
            },
            RunState::Ended { run, tags, environment } => Self {
                state: ChainRunState::Ended,
                outcome: Some(Text(run.result.outcome)),
                reason: run.result.reason.clone(),
                noop: Some(run.noop),
                noop_pending: run.result.drift.noop_pending,
                really_changed: run.result.drift.really_changed,
                tags: Some(texts(tags)),
                environment: environment.clone().map(Text),
                started_at: Some(Time(run.result.started_at)),
                finished_at: Some(Time(run.result.finished_at)),
                ..known
            },
            RunState::Gone => known,
        }
    }
}

impl ChainFire {
    fn of(fired: &FiredEvent) -> Self {
        Self {
            event_id: Text(fired.event),
            trigger: Text(fired.trigger.clone()),
            suppressed: fired.suppressed.listed.iter().map(ChainSuppressed::of).collect(),
            more_suppressed: fired.suppressed.more,
        }
    }
}

impl ChainSuppressed {
    fn of(suppressed: &SuppressedTarget) -> Self {
        let reason = suppressed.reason.clone();
        match &suppressed.target {
            Target::Node(certname) => Self::Node { certname: Text(certname.clone()), reason },
            Target::Group(group) => Self::Group { group: Text(group.clone()), reason },
        }
    }
}

impl ChainEvent {
    fn of(step: &EventStep) -> Self {
        let what = step.what.as_ref();
        let fired_by = what.and_then(|what| what.fired_by.as_ref());
        Self {
            event_id: Text(step.id),
            trigger: what.map(|what| Text(what.trigger.clone())),
            origin: what.map(|what| Text(what.origin.clone())),
            fired_at: what.map(|what| Time(what.fired_at)),
            fired_in: what.and_then(|what| what.fired_in).map(Text),
            resource: fired_by.and_then(FiredBy::resource).map(EventResource::of),
            retry_of: fired_by.and_then(FiredBy::retried).map(Text),
            root: step.is_root(),
            followed: step.is_followed,
            lineage: step
                .lineage
                .as_ref()
                .map(|lineage| lineage.chains.iter().map(LineageChain::of).collect()),
        }
    }
}

impl LineageChain {
    fn of(chain: &Chain) -> Self {
        let hop = |hop: &Hop| LineageHop {
            trigger: Text(hop.trigger.clone()),
            certname: Text(hop.certname.clone()),
        };
        Self { root: Text(chain.root), hops: chain.hops.iter().map(hop).collect() }
    }
}
