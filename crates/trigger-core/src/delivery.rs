//! Deliveries: one event at one target, from the key in the backend to the stored outcome (C6).

pub mod recorded;

use std::collections::BTreeSet;
use std::fmt;

use crate::event::Target;
use crate::identity::{Certname, EventId};
use crate::run::CompletedRun;

/// The value of a delivery's key: where to read the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// The index of the part that lists this target.
    pub part: u32,
}

/// A portion of the nodes that belonged to an event's groups when it was fired. Only status reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members(pub BTreeSet<Certname>);

/// The state of a delivery, as `trigger status` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "C6 defines them")]
pub enum DeliveryState {
    Spooled,
    Pending,
    Held,
    Retrying,
    Running,
    Done,
    Failed,
    Expired,
    Refused,
    Suppressed,
    Superseded,
    Cancelled,
}

impl DeliveryState {
    /// Every state, in the order of a delivery's progress.
    pub const ALL: [Self; 12] = [
        Self::Spooled,
        Self::Pending,
        Self::Held,
        Self::Retrying,
        Self::Running,
        Self::Done,
        Self::Failed,
        Self::Expired,
        Self::Refused,
        Self::Suppressed,
        Self::Superseded,
        Self::Cancelled,
    ];

    /// The final states.
    pub const ENDS: [Self; 7] = [
        Self::Done,
        Self::Failed,
        Self::Expired,
        Self::Refused,
        Self::Suppressed,
        Self::Superseded,
        Self::Cancelled,
    ];

    /// The name in JSON and on the terminal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spooled => "spooled",
            Self::Pending => "pending",
            Self::Held => "held",
            Self::Retrying => "retrying",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::Suppressed => "suppressed",
            Self::Superseded => "superseded",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the state is final.
    pub fn is_end(self) -> bool {
        Self::ENDS.contains(&self)
    }

    /// Whether the delivery ended as intended. The event of a superseded delivery is honoured by its successor, and a
    /// suppressed delivery was prevented on purpose, so both count as success.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Done | Self::Superseded | Self::Suppressed)
    }
}

impl fmt::Display for DeliveryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a delivery ended; stored once, by its target (C6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// A run that started after the event ended `unchanged` or `changed`.
    Done(CompletedRun),
    /// A run that started after the event ended otherwise, for good.
    Failed(CompletedRun),
    /// The event expired before a run could start. The sentence has the clocks that decided; a sweep has none.
    Expired(Option<String>),
    /// The node will not run for this event; the sentence says why.
    Refused(String),
    /// The loop guard suppressed this target; the sentence says why.
    Suppressed(String),
    /// In a long backlog, this later event with the same trigger, origin, options and past took its place.
    Superseded(EventId),
    /// The origin of the event, or an operator, ended the delivery before a run covered it.
    Cancelled {
        /// The node that asked for it.
        by: Certname,
        /// Why, in the words of an operator.
        reason: Option<String>,
    },
}

impl DeliveryOutcome {
    /// The state of a delivery with this outcome.
    pub fn state(&self) -> DeliveryState {
        match self {
            Self::Done(_) => DeliveryState::Done,
            Self::Failed(_) => DeliveryState::Failed,
            Self::Expired(_) => DeliveryState::Expired,
            Self::Refused(_) => DeliveryState::Refused,
            Self::Suppressed(_) => DeliveryState::Suppressed,
            Self::Superseded(_) => DeliveryState::Superseded,
            Self::Cancelled { .. } => DeliveryState::Cancelled,
        }
    }
}

/// A delivery that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The event.
    pub event: EventId,
    /// The targets by which the event addressed this node: there is one delivery for each.
    pub addressed_as: BTreeSet<Target>,
    /// How the delivery ended.
    pub outcome: DeliveryOutcome,
}
