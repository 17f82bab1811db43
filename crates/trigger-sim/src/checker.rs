//! What the checker knows about the truth. The rules that use it are in `check`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trigger_core::event::{Event, RunOptions};
use trigger_core::identity::{Certname, EventId, GroupName, RunId, TriggerName};
use trigger_core::run::RunOutcome;

use crate::tasks::ProcessId;
use crate::wanted::Answer;

/// The name of a lock: a kernel's boot and a file. A copy of a directory or of a machine does not share it; a copy of
/// a machine with its memory does.
pub(crate) type LockName = (u32, u32);

/// The checker's knowledge.
#[derive(Default)]
pub(crate) struct Checker {
    pub(crate) events: BTreeMap<EventId, Fired>,
    pub(crate) deliveries: BTreeMap<(EventId, Certname), Delivery>,
    pub(crate) group_deliveries: BTreeMap<(EventId, GroupName), GroupDelivery>,
    pub(crate) runs: BTreeMap<RunId, Run>,
    pub(crate) in_progress: BTreeMap<RunId, usize>,
    /// The machines on which an instance exists, and the lock that it holds there: two where it was copied with its
    /// memory.
    pub(crate) instances: BTreeMap<String, Vec<(usize, LockName)>>,
    /// The instances that have given up their claim, with their machines.
    pub(crate) released: BTreeSet<(usize, String)>,
    /// The instances that have ended in good order, with their machines.
    pub(crate) ended_in_order: BTreeSet<(usize, String)>,
    pub(crate) registrations: BTreeMap<Certname, Registration>,
    /// When a claim was last taken over at once because its holder's lock was the contender's own.
    pub(crate) inherited: BTreeMap<Certname, Duration>,
    /// The number of times that a trigger fired on a machine for a root, as far as the notes survived power losses.
    pub(crate) fires: BTreeMap<(TriggerName, usize, EventId), u32>,
    /// The events of which a part was ever stored.
    pub(crate) parts: BTreeSet<EventId>,
    /// The events of which a restored backend has lost some deliveries.
    pub(crate) forgotten: BTreeSet<EventId>,
    pub(crate) last_rewind: Option<Duration>,
    /// The deliveries that an attacker has put into the backend.
    pub(crate) attacked: BTreeSet<(EventId, Certname)>,
    /// The events that those who may have wanted to end, with their certnames and the one target, or all of them.
    pub(crate) cancelled: BTreeMap<EventId, Vec<(Certname, Option<Certname>)>>,
    /// What each machine has noted of the orders to hold it, as long as its disk has lost nothing.
    pub(crate) holds: BTreeMap<usize, Noted>,
    /// The numbers of the orders that an attacker has made up.
    pub(crate) forged_orders: BTreeSet<u64>,
    /// The machines whose disk ever had no room.
    pub(crate) were_full: BTreeSet<usize>,
}

/// The latest order that a node has accepted.
#[derive(Clone, Copy)]
pub(crate) struct Noted {
    pub(crate) number: u64,
    /// When the hold ends, by the true clock; absent where there is none.
    pub(crate) until: Option<Duration>,
}

/// An event as it was really fired.
pub(crate) struct Fired {
    pub(crate) event: Event,
    pub(crate) machine: usize,
    pub(crate) suppressed: BTreeSet<Certname>,
    pub(crate) suppressed_groups: BTreeSet<GroupName>,
    /// The time of the fire by the true clock.
    pub(crate) at: Duration,
    pub(crate) answer: Option<Answer>,
}

pub(crate) struct Delivery {
    /// The step at which it was committed.
    pub(crate) committed: u64,
    pub(crate) revision: u64,
    pub(crate) has_ended: bool,
    /// Whether it had ended before a backup was restored, or has ended now.
    pub(crate) had_ended: bool,
    /// Whether the backend was restored from a backup that does not contain it.
    pub(crate) is_lost: bool,
}

pub(crate) struct GroupDelivery {
    /// The step at which it was first committed.
    pub(crate) committed: u64,
    pub(crate) revision: u64,
}

pub(crate) struct Run {
    pub(crate) certname: Certname,
    pub(crate) machine: usize,
    /// The agent that started the run's supervisor.
    pub(crate) starter: Option<ProcessId>,
    pub(crate) causes: Vec<EventId>,
    pub(crate) options: RunOptions,
    pub(crate) started: Option<u64>,
    /// How the run really ended, unless it was killed.
    pub(crate) outcome: Option<RunOutcome>,
    pub(crate) is_result_synced: bool,
    /// Whether the agent of its own machine has recorded it as interrupted.
    pub(crate) was_interrupted: bool,
    /// Whether any agent has taken it for interrupted, such as that of a copy that has only the record.
    pub(crate) is_taken_for_interrupted: bool,
}

pub(crate) struct Registration {
    pub(crate) instance: String,
    /// The machine that wrote it, unless the backend was restored since.
    pub(crate) machine: Option<usize>,
    pub(crate) at: Duration,
    pub(crate) is_released: bool,
    /// For each event in the node's activity, the time since which it is listed.
    pub(crate) listed: BTreeMap<EventId, Duration>,
}
