//! The files of runs on a simulated disk: the same names and the same order of writes as in the `trigger`
//! crate's `state/runs.rs`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use trigger_core::delivery::DeliveryOutcome;
use trigger_core::event::Event;
use trigger_core::fire_note::FireNote;
use trigger_core::identity::{EventId, RunId, TriggerName};
use trigger_core::run::completed;
use trigger_core::run::history::{PastRun, RunHistory};
use trigger_core::run::record::RunRecord;
use trigger_core::run::{RunOutcome, RunResult};
use trigger_core::time::Timestamp;
use trigger_core::wire::Stored;

use crate::disk::Disk;
use crate::world::World;

/// How often triggers fired here for their root events.
const FIRES: &str = "fires";
/// Ended runs that are kept.
const KEPT_RUNS: usize = 100;

pub(crate) fn record(run: RunId) -> String {
    format!("runs/{run}.json")
}

pub(crate) fn ended_record(run: RunId) -> String {
    format!("runs/{run}.ended.json")
}

pub(crate) fn result(run: RunId) -> String {
    format!("runs/{run}.result.json")
}

/// The run's output, locked while anything of the run writes to it.
pub(crate) fn output(run: RunId) -> String {
    format!("runs/{run}.log")
}

/// A run whose outcome is not stored yet.
pub(crate) struct OpenRun {
    pub(crate) record: RunRecord,
    pub(crate) is_alive: bool,
}

fn ids(disk: &Disk, suffix: &str) -> Vec<RunId> {
    let stems =
        disk.list("runs/", suffix).filter_map(|path| path.strip_prefix("runs/")?.strip_suffix(suffix));
    stems.filter_map(|stem| stem.parse().ok()).collect()
}

pub(crate) fn read_result(disk: &Disk, run: RunId) -> Option<RunResult> {
    RunResult::from_wire(disk.read(&result(run))?).ok()
}

pub(crate) fn is_alive(world: &World, machine: usize, run: RunId) -> bool {
    let disk = &world.machines[machine].disk;
    world.is_locked(machine, &record(run))
        || (read_result(disk, run).is_none() && world.is_locked(machine, &output(run)))
}

/// The records of runs whose outcome is not stored.
pub(crate) fn open_records(disk: &Disk) -> impl Iterator<Item = String> {
    let paths = ids(disk, ".json").into_iter().map(record);
    paths.filter(|path| disk.read(path).is_some_and(|text| !text.trim().is_empty()))
}

/// Runs whose outcome is not stored, oldest first; blanks go.
pub(crate) fn open_runs(world: &mut World, machine: usize) -> Vec<OpenRun> {
    let mut open = Vec::new();
    for id in ids(&world.machines[machine].disk, ".json") {
        let disk = &mut world.machines[machine].disk;
        let text = disk.read(&record(id)).unwrap_or_default();
        if text.trim().is_empty() {
            disk.remove(&record(id));
            continue;
        }
        match RunRecord::from_wire(text) {
            // Or a power loss takes away what an agent did not live to sync, and what follows from it stays.
            Ok(run) => {
                world.machines[machine].disk.sync(&record(id));
                open.push(OpenRun { record: run, is_alive: is_alive(world, machine, id) });
            }
            Err(error) if world.is_locked(machine, &record(id)) => {
                world.violate("records are whole", format!("that of run {id}, in progress: {error}"));
            }
            // Cut short by a power loss: it has started nothing.
            Err(_) => {
                let disk = &mut world.machines[machine].disk;
                disk.rename(&record(id), &format!("runs/{id}.unreadable.json"));
            }
        }
    }
    open
}

/// The record of a run that is in progress now.
pub(crate) fn live_record(world: &World, machine: usize, run: RunId) -> Option<RunRecord> {
    let text = world.machines[machine].disk.read(&record(run))?;
    if is_alive(world, machine, run) { RunRecord::from_wire(text).ok() } else { None }
}

/// Closes a run whose outcome is stored, and forgets the oldest beyond those kept.
pub(crate) fn close(disk: &mut Disk, run: RunId) {
    disk.rename(&record(run), &ended_record(run));
    let ended = ids(disk, ".ended.json");
    for id in ended.iter().take(ended.len().saturating_sub(KEPT_RUNS)) {
        for path in [result(*id), ended_record(*id)] {
            disk.remove(&path);
        }
    }
}

/// How an event ended, as far as the runs that are kept tell.
pub(crate) fn end_of(disk: &Disk, event: EventId) -> Option<DeliveryOutcome> {
    let ended = |id: RunId| {
        let record = RunRecord::from_wire(disk.read(&ended_record(id))?).ok()?;
        Some((record, read_result(disk, id)?))
    };
    completed::delivery_outcome(event, ids(disk, ".ended.json").into_iter().rev().filter_map(ended))
}

/// What is told of a run that has ended; nothing where its record or its result cannot be read.
pub(crate) fn past_run(disk: &Disk, run: RunId) -> Option<PastRun> {
    let text = disk.read(&record(run)).or_else(|| disk.read(&ended_record(run)))?;
    Some(PastRun::of(&RunRecord::from_wire(text).ok()?, read_result(disk, run)?, 0, []))
}

/// What this node tells of its latest runs whose outcome is stored.
pub(crate) fn history(disk: &Disk) -> RunHistory {
    let mut history = RunHistory::default();
    ids(disk, ".ended.json")
        .into_iter()
        .filter_map(|id| past_run(disk, id))
        .for_each(|past| history.push(past));
    history
}

/// How many interrupted runs covered each event, among the runs that are kept.
pub(crate) fn interruptions(disk: &Disk) -> HashMap<EventId, u32> {
    let mut interruptions = HashMap::new();
    for id in ids(disk, ".ended.json") {
        if !read_result(disk, id).is_some_and(|result| result.outcome == RunOutcome::Interrupted) {
            continue;
        }
        if let Some(Ok(record)) = disk.read(&ended_record(id)).map(RunRecord::from_wire) {
            for cause in record.causes {
                *interruptions.entry(cause.event.id).or_default() += 1;
            }
        }
    }
    interruptions
}

/// Notes a fire for the budget of its root events, or takes the note back; unsynced.
pub(crate) fn note_fire(disk: &mut Disk, event: &Event, roots: &BTreeSet<EventId>, is_taken_back: bool) {
    let note = |&root: &EventId| {
        let (trigger, noted_at) = (event.trigger.clone(), event.fired_at);
        FireNote { root, noted_at, trigger, is_taken_back }.to_line() + "\n"
    };
    // A line that a power loss cut short stays one that nobody can read.
    let is_cut = disk.read(FIRES).is_some_and(|text| !text.is_empty() && !text.ends_with('\n'));
    let lines: String = roots.iter().map(note).collect();
    disk.append(FIRES, if is_cut { format!("\n{lines}") } else { lines });
}

/// How often each trigger fired on this node for each root event.
pub(crate) fn noted_fires(disk: &Disk) -> BTreeMap<(TriggerName, EventId), u32> {
    let mut fired: BTreeMap<(TriggerName, EventId), u32> = BTreeMap::new();
    for note in disk.read(FIRES).unwrap_or_default().lines().filter_map(FireNote::from_line) {
        let count = fired.entry((note.trigger, note.root)).or_default();
        *count = if note.is_taken_back { count.saturating_sub(1) } else { *count + 1 };
    }
    fired
}

/// When the runs that are kept and ended were started.
pub(crate) fn latest_starts(disk: &Disk) -> Vec<Timestamp> {
    let started = |id: RunId| Some(RunRecord::from_wire(disk.read(&ended_record(id))?).ok()?.started_at);
    ids(disk, ".ended.json").into_iter().filter_map(started).collect()
}
