//! Reads from the writes to the nodes' disks what the shipped code intends: the causes that a run covers, the runs
//! that it takes for interrupted, and the fires that it counts.

use trigger_core::identity::RunId;
use trigger_core::publication::Publication;
use trigger_core::run::record::RunRecord;
use trigger_core::run::{RunOutcome, RunResult};
use trigger_core::wire::Stored;

use crate::state_files::{OUTBOX, RUNS, run_of};
use crate::tasks::ProcessId;
use crate::world::World;

impl World {
    /// Checks a write to a file that is about to happen.
    pub(crate) fn check_written(&mut self, machine: usize, path: &str, content: &[u8]) {
        let Some((stem, ending)) = path.strip_prefix(RUNS).and_then(|name| name.split_once('.')) else {
            return;
        };
        let Ok(run) = stem.parse::<RunId>() else { return };
        match ending {
            "json" | "json.tmp" if content.first() == Some(&b'{') => {
                if let Ok(record) = RunRecord::from_wire(&String::from_utf8_lossy(content)) {
                    self.check_recorded(machine, &record);
                }
            }
            _ if ending.starts_with("result.json") => {
                let result = RunResult::from_wire(&String::from_utf8_lossy(content));
                if result.is_ok_and(|result| result.outcome == RunOutcome::Interrupted) {
                    self.count("run interrupted");
                    let is_kept = !self.machines[machine].is_full;
                    self.check.interrupted(run, machine, is_kept);
                }
            }
            _ => {}
        }
    }

    /// Checks a file that is about to be moved.
    pub(crate) fn check_renamed(&mut self, machine: usize, from: &str, to: &str) {
        if !from.starts_with(OUTBOX) || !to.contains("/quarantined/") || to.contains(".reason") {
            return;
        }
        let wall = self.wall(machine);
        let text = self.disk(machine).text(from).unwrap_or_default();
        match Publication::from_wire(text) {
            Ok(publication) if publication.event.is_expired(wall) => self.count("spooled event expired"),
            Ok(_) => {}
            Err(error) => self.violate("outbox files are whole", format!("{from}: {error}")),
        }
    }

    /// Checks a file that is about to be removed.
    pub(crate) fn check_removed(&mut self, path: &str) {
        let event = path.strip_prefix(OUTBOX).and_then(|name| name.strip_suffix(".json")?.parse().ok());
        if event.is_some_and(|event| self.check.was_spooled(event)) {
            self.count("spooled event published");
        }
    }

    /// Records that an agent waits for the end of the process that holds the lock on a run's record.
    pub(crate) fn check_awaited(&mut self, agent: ProcessId, record: &str) {
        let run = record.strip_suffix(".json").and_then(run_of);
        if run.is_some_and(|run| self.check.is_started_by_another(run, agent)) {
            self.count("run adopted");
        }
    }
}
