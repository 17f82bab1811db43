//! What a node has to do: `trigger queue`.

use serde::Serialize;
use trigger_core::time::Timestamp;
use trigger_node::queue_view::QueueView;

use super::hold::Hold;
use super::text::Time;

/// What `trigger queue` prints. Without an agent, only the fields about the outbox have values.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Queue {
    /// Whether an agent runs on this node's state directory and answers; the warnings say if one runs and does not.
    pub(crate) agent_running: bool,
    /// The agent's certname.
    pub(crate) certname: Option<String>,
    /// The URL of the agent's backend.
    pub(crate) backend: Option<String>,
    /// Why the agent does not receive deliveries; null while it watches the backend.
    pub(crate) disconnected: Option<String>,
    /// Why no run may start; null if runs may start.
    pub(crate) blocked: Option<String>,
    /// What keeps runs from starting: `recovering`, `other_certname`, `unknown`, `broken`, `claim`, `disabled`, `hold` or
    /// `settling`; null if runs may start.
    pub(crate) blocked_by: Option<String>,
    /// The hold of this node, even where something else keeps runs from starting as well; null if it is not held.
    pub(crate) hold: Option<Hold>,
    /// The run in progress.
    pub(crate) running: Option<RunningRun>,
    /// The deliveries that wait for a run.
    pub(crate) waiting: Vec<WaitingEvent>,
    /// The deliveries that wait until an operator has done something.
    pub(crate) held: Vec<HeldEvent>,
    /// The deliveries in the backend that this agent cannot read.
    pub(crate) unreadable: Vec<UnreadableKey>,
    /// The events in this node's outbox that the backend has not committed yet.
    pub(crate) spooled: Vec<SpooledEvent>,
    /// The events in this node's outbox that can never be published.
    pub(crate) quarantined: Vec<QuarantinedFile>,
    /// What the reader should know besides.
    pub(crate) warnings: Vec<String>,
}

/// What `trigger outbox list` prints.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct OutboxList {
    /// The events in this node's outbox that the backend has not committed yet.
    pub(crate) spooled: Vec<SpooledEvent>,
    /// The events in this node's outbox that can never be published.
    pub(crate) quarantined: Vec<QuarantinedFile>,
    /// What the reader should know besides.
    pub(crate) warnings: Vec<String>,
}

/// What `trigger outbox readdress` and `trigger outbox drop` print.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct OutboxChange {
    /// What was done to the events: `readdressed` or `dropped`.
    pub(crate) action: &'static str,
    /// The ids of the events.
    pub(crate) events: Vec<String>,
    /// The URL of the backend that they are for now; null if they were dropped.
    pub(crate) backend: Option<String>,
    /// What the reader should know besides.
    pub(crate) warnings: Vec<String>,
}

/// A run in progress.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RunningRun {
    /// The run's id.
    run_id: String,
    /// When it started.
    started_at: Time,
    /// The ids of the events that it covers.
    causes: Vec<String>,
}

/// A delivery that waits for a run.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct WaitingEvent {
    /// The event's id.
    event_id: String,
    /// The trigger's name.
    trigger: String,
    /// The node that fired the event.
    origin: String,
    /// The tags that its run is limited to; empty for a whole run.
    tags: Vec<String>,
    /// Whether its run only reports what it would change.
    noop: bool,
    /// The environment of Puppet's that its run is to happen in; null: the node's own.
    environment: Option<String>,
    /// When its run is tried again; null unless a run has come to nothing.
    retry_at: Option<Time>,
    /// Why that run came to nothing, or why no run may start yet.
    reason: Option<String>,
}

/// A delivery that waits until an operator has done something.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct HeldEvent {
    /// The event's id.
    event_id: String,
    /// The trigger's name; null if this version of the agent cannot read the event.
    trigger: Option<String>,
    /// The node that fired the event; null if this version of the agent cannot read the event.
    origin: Option<String>,
    /// Why the delivery is held.
    reason: String,
}

/// A delivery in the backend that the agent cannot read, and leaves there.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct UnreadableKey {
    /// Its key in the backend.
    key: String,
    /// What is wrong with it.
    reason: String,
}

/// An event in the outbox that the backend has not committed yet.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct SpooledEvent {
    /// The event's id.
    pub(crate) event_id: String,
    /// The trigger's name; `(unreadable)` if the file cannot be read.
    pub(crate) trigger: String,
    /// The URL of the backend that the event is for. Empty, or the bare name of a kind, if the event was fired before this
    /// node had a configuration: it is then for the backend that the node gets configured.
    pub(crate) backend: String,
    /// When the event was fired, since when it waits; null if the file cannot be read.
    pub(crate) fired_at: Option<Time>,
    /// Whether the event is for a backend that this node's configuration does not name.
    pub(crate) is_elsewhere: bool,
    /// How many nodes and groups the event is fired at.
    pub(crate) targets: usize,
    /// Why it waits: what its last try came to, or that it waits for its turn.
    pub(crate) reason: String,
}

/// A file of the outbox that was moved aside.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct QuarantinedFile {
    /// The file's path.
    pub(crate) file: String,
    /// Why it can never be published.
    pub(crate) reason: String,
}

impl Queue {
    pub(crate) fn of(
        agent: Option<QueueView>,
        spooled: Vec<SpooledEvent>,
        quarantined: Vec<QuarantinedFile>,
        warnings: Vec<String>,
    ) -> Self {
        let outbox = Self { spooled, quarantined, warnings, ..Self::default() };
        let Some(agent) = agent else { return outbox };
        Self {
            agent_running: true,
            certname: Some(agent.certname),
            backend: Some(agent.backend),
            disconnected: agent.disconnected,
            blocked: agent.blocked,
            blocked_by: agent.blocked_by,
            hold: agent.hold.map(|hold| Hold {
                until: time(hold.until_unix_ms),
                by: hold.by,
                reason: hold.reason,
            }),
            running: agent.running.map(|run| RunningRun {
                run_id: run.run_id,
                started_at: time(run.started_at_unix_ms),
                causes: run.causes,
            }),
            waiting: list(agent.waiting, |event| WaitingEvent {
                event_id: event.event_id,
                trigger: event.trigger,
                origin: event.origin,
                tags: event.tags,
                noop: event.noop,
                environment: event.environment,
                retry_at: event.retry_at_unix_ms.map(time),
                reason: event.reason,
            }),
            held: list(agent.held, |event| HeldEvent {
                event_id: event.event_id,
                trigger: event.trigger,
                origin: event.origin,
                reason: event.reason,
            }),
            unreadable: list(agent.unreadable, |entry| UnreadableKey {
                key: entry.key,
                reason: entry.reason,
            }),
            ..outbox
        }
    }
}

fn time(unix_ms: u64) -> Time {
    Time(Timestamp::from_unix_ms(unix_ms))
}

fn list<T, D>(views: Vec<T>, document: impl Fn(T) -> D) -> Vec<D> {
    views.into_iter().map(document).collect()
}
