//! Events and their deliveries: `trigger fire` and `trigger status`.

use std::collections::BTreeMap;

use serde::Serialize;
use trigger_core::delivery::DeliveryState;
use trigger_core::event::{FiredBy, FiringResource};
use trigger_core::identity::{Certname, Environment, EventId, GroupName, RunId, Tag, TriggerName};
use trigger_core::run::RunOutcome;
use trigger_core::status::{DeliveryRun, DeliveryStatus};
use trigger_fleet::status;

use super::text::{Text, Time, texts};
use crate::silence;

/// What `trigger fire` prints.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Fired {
    /// The event's id, for `trigger status` and `trigger why`; null if nothing was fired.
    pub(crate) event_id: Option<Text<EventId>>,
    /// The trigger's name.
    pub(crate) trigger: Text<TriggerName>,
    /// What became of the event as a whole.
    pub(crate) state: FireState,
    /// The backend's revision of the event; null unless the backend has committed it.
    pub(crate) revision: Option<u64>,
    /// The earlier event that `--retry` named; null otherwise.
    pub(crate) retry_of: Option<Text<EventId>>,
    /// The nodes that the event was fired at by name.
    pub(crate) targets: Vec<FireTarget>,
    /// The groups that the event was fired at, without those that the loop guard suppressed.
    pub(crate) groups: Vec<Text<GroupName>>,
    /// The groups that the loop guard suppressed.
    pub(crate) suppressed_groups: Vec<SuppressedGroup>,
    /// What the caller should know besides, for example that no agent runs on this node.
    pub(crate) warnings: Vec<String>,
}

/// What became of a fired event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) enum FireState {
    /// The backend has the event.
    Committed,
    /// The event is in this node's outbox, and the backend does not have it yet.
    Spooled,
    /// The loop guard suppressed the event at all its targets.
    Suppressed,
    /// Nothing was fired, because PuppetDB found no node for `--query`, and no other target was named.
    NoTargets,
}

/// A node that an event was fired at.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct FireTarget {
    /// The node.
    pub(crate) certname: Text<Certname>,
    /// What became of the event for this node.
    pub(crate) state: FireState,
}

/// A group that the loop guard suppressed.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct SuppressedGroup {
    /// The group.
    pub(crate) group: Text<GroupName>,
    /// The rule of the loop guard that suppressed it.
    pub(crate) reason: String,
}

impl SuppressedGroup {
    /// The groups with their reasons.
    pub(crate) fn list(groups: &BTreeMap<GroupName, String>) -> Vec<Self> {
        let group = |(group, reason): (&GroupName, &String)| Self {
            group: Text(group.clone()),
            reason: reason.clone(),
        };
        groups.iter().map(group).collect()
    }
}

/// What `trigger fire --wait` prints: what became of the event, and its deliveries when the waiting ended.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct FollowedEvent {
    /// The event and its deliveries.
    #[serde(flatten)]
    pub(crate) event: Event,
    /// What became of the event as a whole when it was fired.
    pub(crate) state: FireState,
    /// The backend's revision of the event; null if the event was spooled when it was fired.
    pub(crate) revision: Option<u64>,
    /// The groups that the loop guard suppressed.
    pub(crate) suppressed_groups: Vec<SuppressedGroup>,
    /// Whether the time to wait was over before every delivery had ended.
    pub(crate) timed_out: bool,
    /// What the caller should know besides.
    pub(crate) warnings: Vec<String>,
}

/// An event that only this node's outbox has.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct SpooledEvent {
    /// `spooled`, or `refused` or `expired` if it is quarantined.
    pub(crate) state: Text<DeliveryState>,
    /// Why the event is in that state.
    pub(crate) reason: String,
    /// The groups that the loop guard suppressed.
    pub(crate) suppressed_groups: Vec<SuppressedGroup>,
}

/// What `trigger status EVENT` prints.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct EventStatus {
    /// The event and its deliveries.
    #[serde(flatten)]
    pub(crate) event: Event,
    /// What only this node's outbox knows; absent if the backend has the event.
    #[serde(flatten)]
    pub(crate) spooled: Option<SpooledEvent>,
    /// What the reader should know besides, for example which part of the event cannot be read.
    pub(crate) warnings: Vec<String>,
}

/// What `trigger cancel` prints: the event with the deliveries that were to end.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct CancelledEvent {
    /// The event and these deliveries.
    #[serde(flatten)]
    pub(crate) event: Event,
    /// Whether it was in this node's outbox, from which it is removed.
    pub(crate) was_spooled: bool,
    /// The targets at which it had ended before.
    pub(crate) ended_before: Vec<Text<Certname>>,
    /// What the reader should know besides.
    pub(crate) warnings: Vec<String>,
}

/// What `trigger status` prints without an event: the latest events, newest first.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct LatestEvents {
    /// The events.
    pub(crate) events: Vec<LatestEvent>,
    /// What the reader should know besides.
    pub(crate) warnings: Vec<String>,
}

/// One of the latest events.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct LatestEvent {
    /// The event and its deliveries.
    #[serde(flatten)]
    pub(crate) event: Event,
    /// Which part of the event cannot be read.
    pub(crate) warnings: Vec<String>,
}

/// An event and its deliveries.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Event {
    /// The event's id.
    event_id: Text<EventId>,
    /// The trigger's name.
    trigger: Text<TriggerName>,
    /// The node that fired the event.
    origin: Text<Certname>,
    /// When the event was fired.
    fired_at: Time,
    /// The Puppet resource that fired the event; null if it was fired on a command line.
    resource: Option<EventResource>,
    /// The earlier event that it is a retry of; null otherwise.
    retry_of: Option<Text<EventId>>,
    /// How many seconds after that it expires.
    expires_in_seconds: u64,
    /// The tags that its runs are limited to; empty for whole runs.
    tags: Vec<Text<Tag>>,
    /// Whether its runs only report what they would change.
    noop: bool,
    /// The environment of Puppet's that its runs are to happen in; null: that of each node.
    environment: Option<Text<Environment>>,
    /// The groups that the event was fired at.
    groups: Vec<Text<GroupName>>,
    /// The event's deliveries, in the order of the certnames.
    targets: Vec<EventTarget>,
}

/// The Puppet resource that fired an event.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct EventResource {
    /// The path of the resource in its catalog.
    path: String,
    /// The manifest that declares it; null if Puppet did not know it.
    file: Option<String>,
    /// The line in the manifest; null if Puppet did not know it.
    line: Option<u32>,
}

impl EventResource {
    pub(crate) fn of(resource: &FiringResource) -> Self {
        let declared = resource.declared.as_ref();
        Self {
            path: resource.path.clone(),
            file: declared.map(|declared| declared.file.clone()),
            line: declared.and_then(|declared| declared.line),
        }
    }
}

/// A delivery: one event at one node.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct EventTarget {
    /// The node.
    certname: Text<Certname>,
    /// The state of the delivery.
    state: Text<DeliveryState>,
    /// How the run ended that covered the event; null before that.
    outcome: Option<Text<RunOutcome>>,
    /// The run that covers the event; null before one has started.
    run_id: Option<Text<RunId>>,
    /// When that run started.
    started_at: Option<Time>,
    /// When that run ended.
    finished_at: Option<Time>,
    /// Whether that run was a noop run, which changes only what has `noop => false`; null before it has ended.
    noop: Option<bool>,
    /// Whether noop, of the run or of resources, left changes pending; null before the run has ended, and where Puppet's
    /// report does not say.
    noop_pending: Option<bool>,
    /// Whether the run changed something, a noop run included; null before it has ended, and where Puppet's report does
    /// not say.
    really_changed: Option<bool>,
    /// Why the delivery is in this state, and whether its node is silent.
    reason: Option<String>,
    /// Why the outcome that is stored for this node does not count (the state is then what it would be without the outcome),
    /// or not for certain; null where nothing speaks against it.
    unverified: Option<String>,
    /// The node that has asked for the end of the delivery, which has not ended: its node is off, or runs for the event now.
    /// Null where none has; only `trigger status EVENT` and `trigger cancel` look.
    cancellation_requested_by: Option<Text<Certname>>,
}

impl Event {
    pub(crate) fn of(status: &status::EventStatus) -> Self {
        let event = &status.event;
        Self {
            event_id: Text(event.id),
            trigger: Text(event.trigger.clone()),
            origin: Text(event.origin.clone()),
            fired_at: Time(event.fired_at),
            resource: event.fired_by.as_ref().and_then(FiredBy::resource).map(EventResource::of),
            retry_of: event.fired_by.as_ref().and_then(FiredBy::retried).map(Text),
            expires_in_seconds: event.expires_in.as_secs(),
            tags: texts(&event.options.tags),
            noop: event.options.noop,
            environment: event.options.environment.clone().map(Text),
            groups: texts(&event.targets.groups),
            targets: EventTarget::list(status),
        }
    }
}

impl EventTarget {
    pub(crate) fn list(status: &status::EventStatus) -> Vec<Self> {
        let target = |(certname, target)| {
            let unverified = status.unverified.outcome_of(certname).map(str::to_owned);
            let cancellation_requested_by = status.cancellations.get(certname).cloned().map(Text);
            Self { unverified, cancellation_requested_by, ..Self::of(certname, target) }
        };
        status.targets.iter().map(target).collect()
    }

    fn of(certname: &Certname, target: &DeliveryStatus) -> Self {
        let run = target.run.as_ref();
        let ended = run.and_then(DeliveryRun::ended);
        Self {
            certname: Text(certname.clone()),
            state: Text(target.state),
            outcome: ended.map(|ended| Text(ended.result.outcome)),
            run_id: run.map(|run| Text(run.run_id())),
            started_at: run.map(|run| Time(run.started_at())),
            finished_at: ended.map(|ended| Time(ended.result.finished_at)),
            noop: ended.map(|ended| ended.noop),
            noop_pending: ended.and_then(|ended| ended.result.drift.noop_pending),
            really_changed: ended.and_then(|ended| ended.result.drift.really_changed),
            reason: silence::reason(target),
            unverified: None,
            cancellation_requested_by: None,
        }
    }
}

impl EventStatus {
    /// The status of an event that the backend has.
    pub(crate) fn committed(status: &status::EventStatus, warnings: &[String]) -> Self {
        Self {
            event: Event::of(status),
            spooled: None,
            warnings: [warnings, &unreadable_parts(status)].concat(),
        }
    }

    /// The status of an event that only this node's outbox has.
    pub(crate) fn spooled(
        status: &status::EventStatus,
        state: DeliveryState,
        reason: &str,
        suppressed_groups: &BTreeMap<GroupName, String>,
        warnings: &[String],
    ) -> Self {
        Self {
            spooled: Some(SpooledEvent {
                state: Text(state),
                reason: reason.to_owned(),
                suppressed_groups: SuppressedGroup::list(suppressed_groups),
            }),
            ..Self::committed(status, warnings)
        }
    }
}

impl LatestEvents {
    pub(crate) fn of(events: &[status::EventStatus], warnings: &[String]) -> Self {
        let event = |status| LatestEvent { event: Event::of(status), warnings: unreadable_parts(status) };
        Self { events: events.iter().map(event).collect(), warnings: warnings.to_vec() }
    }
}

/// A warning for each part of an event that cannot be read, and for all that is stored of it and does not count.
pub(crate) fn unreadable_parts(status: &status::EventStatus) -> Vec<String> {
    let sentence = |part| format!("{part} of this event cannot be read: its targets are not listed");
    status.unreadable_parts.iter().map(sentence).chain(status.unverified.sentences()).collect()
}
