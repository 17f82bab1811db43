//! What a node says of itself, and the state of a delivery computed from it (contract 6).

use std::collections::BTreeMap;
use std::fmt;

use crate::identity::{EventId, GroupName, Revision, RunId};
use crate::outcome::{CompletedRun, DeliveryOutcome};
use crate::time::Timestamp;

/// An agent's registration, claim and present activity: the value under `nodes/<certname>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// Random, new with every start of an agent; who holds the claim on the certname.
    pub instance: String,
    /// Names the file lock that the instance holds for as long as it lives: whoever holds the lock of this
    /// name now knows that the instance is dead.
    pub lock: Option<String>,
    /// The instance has stopped and left nothing behind: the claim is anybody's.
    pub released: bool,
    /// Where the instance runs, for people: what a second claimant is told.
    pub location: String,
    /// Grows with every renewal; a contender watches it for change, never a clock.
    pub renewals: u64,
    /// The agent's version of Trigger.
    pub version: String,
    /// When it was last renewed, by the node's clock; for people.
    pub seen_at: Timestamp,
    /// The groups it belongs to, and the revision at which it had joined: earlier events are not its own.
    pub groups: BTreeMap<GroupName, Revision>,
    /// What it does now.
    pub activity: Activity,
}

/// What an agent does and what keeps it from doing more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Activity {
    /// The run in progress.
    pub running: Option<Running>,
    /// Deliveries that wait for a try after one that could not happen.
    pub retrying: Vec<Retrying>,
    /// Deliveries that wait because enough runs have started within a minute.
    pub delayed: Option<Delayed>,
    /// Deliveries that wait for a person.
    pub held: Vec<Held>,
}

/// A run in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its id.
    pub run_id: RunId,
    /// By the node's clock.
    pub started_at: Timestamp,
    /// The events it covers.
    pub causes: Vec<EventId>,
}

/// Deliveries whose run could not happen and is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retrying {
    /// By the node's clock.
    pub at: Timestamp,
    /// Why the last try came to nothing.
    pub reason: String,
    /// The events that wait.
    pub causes: Vec<EventId>,
}

/// Deliveries whose run waits for the limit on runs, `runs_per_minute`, and for nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delayed {
    /// When their run may start, by the node's clock.
    pub at: Timestamp,
    /// The same as a sentence.
    pub reason: String,
    /// The events that wait.
    pub causes: Vec<EventId>,
}

/// A delivery that waits for a person: the agent is disabled, or too old for the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which event.
    pub event: EventId,
    /// What it waits for.
    pub reason: String,
}

/// The state of a delivery, as `trigger status` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "contract 6 defines them")]
pub enum State {
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
}

impl State {
    /// Every state, in the order of a delivery's progress.
    pub const ALL: [Self; 11] = [
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
    ];

    /// The states in which nothing more will happen.
    pub const ENDS: [Self; 6] =
        [Self::Done, Self::Failed, Self::Expired, Self::Refused, Self::Suppressed, Self::Superseded];

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
        }
    }

    /// Whether nothing more will happen.
    pub fn is_end(self) -> bool {
        Self::ENDS.contains(&self)
    }

    /// Whether it ended as asked. A superseded delivery's event is honoured by its successor, and a
    /// suppressed one was left out on purpose; both are told apart by whoever needs to.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Done | Self::Superseded | Self::Suppressed)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A delivery's state with what explains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryStatus {
    /// Where it stands.
    pub state: State,
    /// The run that ended it, or its start when it is running.
    pub run: Option<RunView>,
    /// A sentence where the state needs one.
    pub reason: Option<String>,
    /// The event that took its place.
    pub successor: Option<EventId>,
    /// For a delivery that has not ended: when its node last said anything, by that node's clock.
    pub last_seen: Option<Timestamp>,
}

/// A run as status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunView {
    /// In progress.
    Running(Running),
    /// Over.
    Ended(CompletedRun),
}

impl RunView {
    /// Which run.
    pub fn run_id(&self) -> RunId {
        match self {
            Self::Running(running) => running.run_id,
            Self::Ended(ended) => ended.run_id,
        }
    }

    /// By the node's clock.
    pub fn started_at(&self) -> Timestamp {
        match self {
            Self::Running(running) => running.started_at,
            Self::Ended(ended) => ended.result.started_at,
        }
    }

    /// How it ended, once it has.
    pub fn ended(&self) -> Option<&CompletedRun> {
        match self {
            Self::Running(_) => None,
            Self::Ended(ended) => Some(ended),
        }
    }
}

/// Computes where a delivery stands. Never stored: a terminal outcome counts first, then what the node
/// says of itself, else it is pending.
pub fn delivery_status(
    event: EventId,
    end: Option<&DeliveryOutcome>,
    node: Option<&NodeRecord>,
) -> DeliveryStatus {
    if let Some(end) = end {
        return ended(end);
    }
    let last_seen = node.map(|node| node.seen_at);
    let plain = |state, reason| DeliveryStatus { state, run: None, reason, successor: None, last_seen };
    let Some(node) = node else {
        return plain(State::Pending, Some("no agent has registered under this certname".to_owned()));
    };
    let activity = &node.activity;
    if let Some(running) = activity.running.as_ref().filter(|run| run.causes.contains(&event)) {
        return DeliveryStatus {
            state: State::Running,
            run: Some(RunView::Running(running.clone())),
            reason: None,
            successor: None,
            last_seen,
        };
    }
    if let Some(held) = activity.held.iter().find(|held| held.event == event) {
        return plain(State::Held, Some(held.reason.clone()));
    }
    if let Some(retrying) = activity.retrying.iter().find(|retrying| retrying.causes.contains(&event)) {
        return plain(State::Retrying, Some(retrying.reason.clone()));
    }
    if node.released {
        return plain(State::Pending, Some("its agent was stopped".to_owned()));
    }
    let delayed = activity.delayed.as_ref().filter(|delayed| delayed.causes.contains(&event));
    plain(State::Pending, delayed.map(|delayed| delayed.reason.clone()))
}

fn ended(end: &DeliveryOutcome) -> DeliveryStatus {
    let state = end.state();
    let plain = |reason| DeliveryStatus { state, run: None, reason, successor: None, last_seen: None };
    let by_run = |run: &CompletedRun| DeliveryStatus {
        state,
        run: Some(RunView::Ended(run.clone())),
        reason: run.result.reason.clone(),
        successor: None,
        last_seen: None,
    };
    match end {
        DeliveryOutcome::Done(run) | DeliveryOutcome::Failed(run) => by_run(run),
        DeliveryOutcome::Expired => plain(Some("its life was over before a run could start".to_owned())),
        DeliveryOutcome::Refused(reason) | DeliveryOutcome::Suppressed(reason) => plain(Some(reason.clone())),
        DeliveryOutcome::Superseded(successor) => DeliveryStatus {
            successor: Some(*successor),
            ..plain(Some(format!("a backlog was collapsed into the later event {successor}")))
        },
    }
}
