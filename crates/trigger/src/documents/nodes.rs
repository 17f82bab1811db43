//! The fleet at a glance: `trigger nodes` and `trigger node`.

use std::collections::BTreeSet;

use serde::Serialize;
use trigger_core::delivery::DeliveryState;
use trigger_core::identity::{Certname, Environment, EventId, GroupName, RunId, TriggerName};
use trigger_core::node::{NodeRecord, Presence};
use trigger_core::run::RunOutcome;
use trigger_core::run::history::PastRun;
use trigger_core::status::delivery_status;
use trigger_core::time::Timestamp;
use trigger_fleet::forgetting::Forgotten;
use trigger_fleet::overview::{NodeOverview, Overview};

use super::hold::{Hold, RefusedOrder};
use super::text::{Text, Time};

/// What `trigger nodes` prints.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Nodes {
    /// The nodes that have registered, by certname.
    pub(crate) nodes: Vec<RegisteredNode>,
    /// The nodes whose registration this version of Trigger cannot read.
    pub(crate) unreadable: Vec<UnreadableNode>,
    /// Whether the latest runs of other nodes are shown: a hub with TLS shows them to operators only.
    pub(crate) shows_all_runs: bool,
    /// What the reader should know besides.
    pub(crate) warnings: Vec<String>,
}

/// What `trigger node forget` prints.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ForgottenNode {
    /// The node.
    certname: Text<Certname>,
    /// Whether it was registered.
    was_registered: bool,
    /// The events whose deliveries to it have expired by this.
    expired: Vec<Text<EventId>>,
    /// What the reader should know besides.
    warnings: Vec<String>,
}

impl ForgottenNode {
    pub(crate) fn of(certname: &Certname, forgotten: &Forgotten, warnings: Vec<String>) -> Self {
        Self {
            certname: Text(certname.clone()),
            was_registered: forgotten.was_registered,
            expired: forgotten.expired.iter().copied().map(Text).collect(),
            warnings,
        }
    }
}

/// A node that has registered.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RegisteredNode {
    /// The node.
    pub(crate) certname: Text<Certname>,
    /// Whether its agent is there.
    pub(crate) agent: AgentPresence,
    /// When its agent last renewed its registration.
    pub(crate) seen_at: Time,
    /// The version of its agent.
    pub(crate) version: String,
    /// Where its agent runs.
    pub(crate) location: String,
    /// Its groups.
    pub(crate) groups: Vec<Text<GroupName>>,
    /// The hold that keeps it from starting runs; null if it is not held.
    pub(crate) hold: Option<Hold>,
    /// The latest order to hold or release it that it does not take; null if there is none since one that it has taken.
    pub(crate) refused_order: Option<RefusedOrder>,
    /// The deliveries that it works on, or that wait there for more than their turn.
    pub(crate) deliveries: Vec<OpenDelivery>,
    /// Its latest run that has ended; null if it has reported none, or if the backend does not show it.
    pub(crate) last_run: Option<LastRun>,
}

/// Whether an agent is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) enum AgentPresence {
    /// It has renewed its registration within the last 90 seconds.
    Alive,
    /// It was stopped, and has given its certname up.
    Stopped,
    /// It was not stopped and has not renewed its registration for 90 seconds or more: it was killed, is cut off, or its
    /// clock is behind.
    Silent,
}

/// A delivery that has not ended, as its node has reported it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct OpenDelivery {
    /// The event.
    pub(crate) event_id: Text<EventId>,
    /// The state of the delivery.
    pub(crate) state: Text<DeliveryState>,
    /// Why it is in this state.
    pub(crate) reason: Option<String>,
}

/// The latest run of a node that has ended.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct LastRun {
    /// The run's id, for `trigger why`.
    run_id: Text<RunId>,
    /// How it ended.
    outcome: Text<RunOutcome>,
    /// Why it ended so.
    reason: Option<String>,
    /// Whether it was a noop run.
    noop: bool,
    /// The environment of Puppet's that its events asked for; null: the node's own.
    environment: Option<Text<Environment>>,
    /// When it started.
    started_at: Time,
    /// When it ended.
    finished_at: Time,
    /// The events that it covered; of many, some of each kind.
    causes: Vec<RunCause>,
    /// How many more events it covered.
    more_causes: usize,
}

/// An event that a run covered.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RunCause {
    /// The event.
    event_id: Text<EventId>,
    /// The trigger's name.
    trigger: Text<TriggerName>,
    /// The node that fired it.
    origin: Text<Certname>,
}

/// A registration that this version of Trigger cannot read.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct UnreadableNode {
    /// The node.
    certname: Text<Certname>,
    /// What is wrong with it.
    reason: String,
}

impl Nodes {
    pub(crate) fn of(overview: &Overview, now: Timestamp, warnings: Vec<String>) -> Self {
        let node = |(certname, node)| RegisteredNode::of(certname, node, now);
        let unreadable = |(certname, reason): (&Certname, &String)| UnreadableNode {
            certname: Text(certname.clone()),
            reason: reason.clone(),
        };
        Self {
            nodes: overview.nodes.iter().map(node).collect(),
            unreadable: overview.unreadable.iter().map(unreadable).collect(),
            shows_all_runs: overview.runs_denied.is_none(),
            warnings,
        }
    }
}

impl RegisteredNode {
    fn of(certname: &Certname, NodeOverview { record, last_run }: &NodeOverview, now: Timestamp) -> Self {
        let hold = record.activity.hold.as_ref();
        Self {
            certname: Text(certname.clone()),
            agent: match record.presence(now) {
                Presence::Alive => AgentPresence::Alive,
                Presence::Stopped => AgentPresence::Stopped,
                Presence::Silent(_) => AgentPresence::Silent,
            },
            seen_at: Time(record.seen_at),
            version: record.version.clone(),
            location: record.location.clone(),
            groups: record.groups.keys().cloned().map(Text).collect(),
            hold: hold.and_then(|report| report.held.as_ref()).map(Hold::of),
            refused_order: RefusedOrder::of(hold),
            deliveries: OpenDelivery::list(record),
            last_run: last_run.as_ref().map(LastRun::of),
        }
    }
}

impl OpenDelivery {
    /// The deliveries that a node has reported, in the order of their events.
    pub(crate) fn list(record: &NodeRecord) -> Vec<Self> {
        let events: BTreeSet<EventId> = record.activity.events().collect();
        let delivery = |event| {
            let status = delivery_status(event, None, Some(record));
            Self { event_id: Text(event), state: Text(status.state), reason: status.reason }
        };
        events.into_iter().map(delivery).collect()
    }
}

impl LastRun {
    fn of(past: &PastRun) -> Self {
        let result = &past.run.result;
        let causes = past.causes.listed.iter().map(|cause| RunCause {
            event_id: Text(cause.event),
            trigger: Text(cause.trigger.clone()),
            origin: Text(cause.origin.clone()),
        });
        Self {
            run_id: Text(past.run.run_id),
            outcome: Text(result.outcome),
            reason: result.reason.clone(),
            noop: past.run.noop,
            environment: past.environment.clone().map(Text),
            started_at: Time(result.started_at),
            finished_at: Time(result.finished_at),
            causes: causes.collect(),
            more_causes: past.causes.more,
        }
    }
}
