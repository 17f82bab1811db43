//! What must be true, checked as it happens. Knows what really was fired, committed and run; trusts nothing
//! that the programs under test say of themselves.

mod deliveries;
mod fires;
mod registrations;
mod runs;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use trigger_core::event::{Event, RunOptions};
use trigger_core::identity::{Certname, EventId, GroupName, RunId, TriggerName};
use trigger_core::outcome::Outcome;

use crate::executor::ProcessId;
use crate::firing::Answer;

/// All that is known.
#[derive(Default)]
pub(crate) struct Checker {
    events: BTreeMap<EventId, Fired>,
    deliveries: BTreeMap<(EventId, Certname), Delivery>,
    /// The step at which an event was first committed for a group.
    group_deliveries: BTreeMap<(EventId, GroupName), u64>,
    runs: BTreeMap<RunId, Run>,
    in_progress: BTreeMap<RunId, usize>,
    /// Where an instance lives, and on which boot.
    instances: BTreeMap<String, (usize, u32)>,
    believers: BTreeMap<ProcessId, usize>,
    registrations: BTreeMap<Certname, Registration>,
    fires: BTreeMap<(TriggerName, usize, EventId), u32>,
    /// Fires that died before they could be counted, by machine.
    uncounted: BTreeMap<usize, u32>,
    /// Events of which a restored backend knows nothing any more.
    forgotten: BTreeSet<EventId>,
    last_rewind: Option<Duration>,
}

/// An event as it was really fired.
struct Fired {
    event: Event,
    machine: usize,
    suppressed: BTreeSet<Certname>,
    /// By the clock that is right.
    at: Duration,
    answer: Option<Answer>,
}

struct Delivery {
    /// The step of its commit.
    committed: u64,
    revision: u64,
    is_to_host: bool,
    has_ended: bool,
    /// The backend was restored from a backup that did not know it.
    is_lost: bool,
}

struct Run {
    certname: Certname,
    machine: usize,
    causes: Vec<EventId>,
    options: RunOptions,
    started: Option<u64>,
    outcome: Option<Outcome>,
    is_result_synced: bool,
    was_interrupted: bool,
}

struct Registration {
    instance: String,
    at: Duration,
    is_released: bool,
    /// Since when it says that it is at work on an event.
    listed: BTreeMap<EventId, Duration>,
}
