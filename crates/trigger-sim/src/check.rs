//! What must be true, checked as it happens. Knows what really was fired, committed and run; trusts nothing
//! that the programs under test say of themselves.

mod chains;
mod deliveries;
mod files;
mod fires;
mod outcomes;
mod registrations;
mod rest;
mod restores;
mod runs;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trigger_core::event::{Event, RunOptions};
use trigger_core::identity::{Certname, EventId, GroupName, RunId, TriggerName};
use trigger_core::run::RunOutcome;

use crate::executor::ProcessId;
use crate::firing::Answer;

pub(crate) use files::noted_fires;

/// A kernel's boot and a file: what a copy of a directory or of a machine does not share, but one of a machine with
/// its memory does.
type LockName = (u32, u32);

/// All that is known.
#[derive(Default)]
pub(crate) struct Checker {
    events: BTreeMap<EventId, Fired>,
    deliveries: BTreeMap<(EventId, Certname), Delivery>,
    group_deliveries: BTreeMap<(EventId, GroupName), GroupDelivery>,
    runs: BTreeMap<RunId, Run>,
    in_progress: BTreeMap<RunId, usize>,
    /// Where an instance lives, and which lock it holds; in two places where it was copied with its memory.
    instances: BTreeMap<String, Vec<(usize, LockName)>>,
    /// Instances that have given their claim up, and where they live.
    released: BTreeSet<(usize, String)>,
    registrations: BTreeMap<Certname, Registration>,
    /// How often a trigger fired on a machine for a root, as far as a power loss left the notes of it.
    fires: BTreeMap<(TriggerName, usize, EventId), u32>,
    /// Events of which a part was ever there.
    parts: BTreeSet<EventId>,
    /// Events of whose deliveries a restored backend knows some no longer.
    forgotten: BTreeSet<EventId>,
    last_rewind: Option<Duration>,
}

/// An event as it was really fired.
struct Fired {
    event: Event,
    machine: usize,
    suppressed: BTreeSet<Certname>,
    suppressed_groups: BTreeSet<GroupName>,
    /// By the clock that is right.
    at: Duration,
    answer: Option<Answer>,
}

struct Delivery {
    /// The step of its commit.
    committed: u64,
    revision: u64,
    has_ended: bool,
    /// It had ended before a backup was restored, or has now.
    had_ended: bool,
    /// The backend was restored from a backup that did not know it.
    is_lost: bool,
}

struct GroupDelivery {
    /// The step of its first commit.
    committed: u64,
    revision: u64,
}

struct Run {
    certname: Certname,
    machine: usize,
    /// The agent that started its supervisor.
    starter: Option<ProcessId>,
    causes: Vec<EventId>,
    options: RunOptions,
    started: Option<u64>,
    /// How it really ended, unless it was killed.
    outcome: Option<RunOutcome>,
    is_result_synced: bool,
    /// As the agent of its machine says.
    was_interrupted: bool,
    /// As the agent of any machine says, such as a copy that has only the record.
    is_taken_for_interrupted: bool,
}

struct Registration {
    instance: String,
    at: Duration,
    is_released: bool,
    /// Since when it says that it is at work on an event.
    listed: BTreeMap<EventId, Duration>,
}
