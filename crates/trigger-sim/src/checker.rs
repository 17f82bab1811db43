//! What is known of what should be true. The rules over it are in `check`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trigger_core::event::{Event, RunOptions};
use trigger_core::identity::{Certname, EventId, GroupName, RunId, TriggerName};
use trigger_core::run::RunOutcome;

use crate::tasks::ProcessId;
use crate::wanted::Answer;

/// A kernel's boot and a file: what a copy of a directory or of a machine does not share, but one of a machine with
/// its memory does.
pub(crate) type LockName = (u32, u32);

/// All that is known.
#[derive(Default)]
pub(crate) struct Checker {
    pub(crate) events: BTreeMap<EventId, Fired>,
    pub(crate) deliveries: BTreeMap<(EventId, Certname), Delivery>,
    pub(crate) group_deliveries: BTreeMap<(EventId, GroupName), GroupDelivery>,
    pub(crate) runs: BTreeMap<RunId, Run>,
    pub(crate) in_progress: BTreeMap<RunId, usize>,
    /// Where an instance lives, and which lock it holds; in two places where it was copied with its memory.
    pub(crate) instances: BTreeMap<String, Vec<(usize, LockName)>>,
    /// Instances that have given their claim up, and where they live.
    pub(crate) released: BTreeSet<(usize, String)>,
    pub(crate) registrations: BTreeMap<Certname, Registration>,
    /// How often a trigger fired on a machine for a root, as far as a power loss left the notes of it.
    pub(crate) fires: BTreeMap<(TriggerName, usize, EventId), u32>,
    /// Events of which a part was ever there.
    pub(crate) parts: BTreeSet<EventId>,
    /// Events of whose deliveries a restored backend knows some no longer.
    pub(crate) forgotten: BTreeSet<EventId>,
    pub(crate) last_rewind: Option<Duration>,
}

/// An event as it was really fired.
pub(crate) struct Fired {
    pub(crate) event: Event,
    pub(crate) machine: usize,
    pub(crate) suppressed: BTreeSet<Certname>,
    pub(crate) suppressed_groups: BTreeSet<GroupName>,
    /// By the clock that is right.
    pub(crate) at: Duration,
    pub(crate) answer: Option<Answer>,
}

pub(crate) struct Delivery {
    /// The step of its commit.
    pub(crate) committed: u64,
    pub(crate) revision: u64,
    pub(crate) has_ended: bool,
    /// It had ended before a backup was restored, or has now.
    pub(crate) had_ended: bool,
    /// The backend was restored from a backup that did not know it.
    pub(crate) is_lost: bool,
}

pub(crate) struct GroupDelivery {
    /// The step of its first commit.
    pub(crate) committed: u64,
    pub(crate) revision: u64,
}

pub(crate) struct Run {
    pub(crate) certname: Certname,
    pub(crate) machine: usize,
    /// The agent that started its supervisor.
    pub(crate) starter: Option<ProcessId>,
    pub(crate) causes: Vec<EventId>,
    pub(crate) options: RunOptions,
    pub(crate) started: Option<u64>,
    /// How it really ended, unless it was killed.
    pub(crate) outcome: Option<RunOutcome>,
    pub(crate) is_result_synced: bool,
    /// As the agent of its machine says.
    pub(crate) was_interrupted: bool,
    /// As the agent of any machine says, such as a copy that has only the record.
    pub(crate) is_taken_for_interrupted: bool,
}

pub(crate) struct Registration {
    pub(crate) instance: String,
    pub(crate) at: Duration,
    pub(crate) is_released: bool,
    /// Since when it says that it is at work on an event.
    pub(crate) listed: BTreeMap<EventId, Duration>,
}
