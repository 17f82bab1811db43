//! The paths at which the shipped code keeps its files on a node's disk.

use std::collections::BTreeMap;

use trigger_core::fire_note::FireNote;
use trigger_core::identity::{EventId, RunId, TriggerName};

use crate::disk::Disk;

/// The one state directory of a machine.
pub(crate) const STATE_DIR: &str = "/state";
pub(crate) const RUNS: &str = "/state/runs/";
pub(crate) const OUTBOX: &str = "/state/outbox/";
pub(crate) const HOLD: &str = "/state/hold";
const FIRES: &str = "/state/fires";

/// How often triggers fired on a node for their root events.
pub(crate) type Counts = BTreeMap<(TriggerName, EventId), u32>;

pub(crate) fn outbox_file(event: EventId) -> String {
    format!("{OUTBOX}{event}.json")
}

pub(crate) fn quarantined_file(event: EventId) -> String {
    format!("{OUTBOX}quarantined/{event}.json")
}

/// Returns the events that wait in a node's outbox, by their files.
pub(crate) fn spooled(disk: &Disk) -> impl Iterator<Item = &str> {
    disk.list("/state/outbox").filter(|path| path.ends_with(".json"))
}

/// Returns the records of runs whose outcome is not stored.
pub(crate) fn open_records(disk: &Disk) -> impl Iterator<Item = &str> {
    let is_record = |path: &&str| path.strip_suffix(".json").is_some_and(|stem| run_of(stem).is_some());
    let is_written = |path: &&str| disk.text(path).is_some_and(|text| !text.trim().is_empty());
    disk.list("/state/runs").filter(is_record).filter(is_written)
}

/// Returns the run that a file belongs to, from its name without extensions.
pub(crate) fn run_of(stem: &str) -> Option<RunId> {
    stem.strip_prefix(RUNS)?.parse().ok()
}

/// Returns the fires that a node has noted, without those that were taken back.
pub(crate) fn noted_fires(disk: &Disk) -> Counts {
    let mut fired = Counts::new();
    for note in disk.text(FIRES).unwrap_or_default().lines().filter_map(FireNote::from_line) {
        let count = fired.entry((note.trigger, note.root)).or_default();
        *count = if note.is_taken_back { count.saturating_sub(1) } else { *count + 1 };
    }
    fired
}
