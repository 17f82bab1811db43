//! How the deliveries ended that this node has completed, for a backend that has lost their outcomes.

use std::collections::{BTreeMap, BTreeSet};

use trigger_core::delivery::recorded::recorded_outcome;
use trigger_core::delivery::{Completion, DeliveryOutcome};
use trigger_core::identity::{EventId, RunId};
use trigger_core::run::RunResult;
use trigger_core::run::record::RunRecord;

use crate::host::Host;
use crate::state::Runs;

/// What the files of the kept runs say, and the rest from memory.
#[derive(Debug, Default)]
pub(super) struct KnownEnds {
    /// The records and results of the kept runs, read while a batch of arrivals is processed; absent inside if they
    /// cannot be read.
    kept_runs: Option<Option<Vec<(RunRecord, RunResult)>>>,
    /// The runs whose results could not be written, for example because the disk was full.
    unwritten_results: BTreeSet<RunId>,
    /// How the deliveries of those runs ended. They are few, because a full disk lets no run start.
    unwritten_ends: BTreeMap<EventId, DeliveryOutcome>,
}

impl KnownEnds {
    /// Notes a run whose result could not be written.
    pub(super) fn result_is_unwritten(&mut self, run: RunId) {
        self.unwritten_results.insert(run);
    }

    /// Notes how the deliveries of a run ended, if the files do not say it.
    pub(super) fn ended(&mut self, run: Option<RunId>, completions: &[Completion]) {
        if run.is_some_and(|run| self.unwritten_results.remove(&run)) {
            let ends = completions.iter().map(|completion| (completion.event, completion.outcome.clone()));
            self.unwritten_ends.extend(ends);
        }
    }

    /// Makes the next question read the files again.
    pub(super) fn forget_files(&mut self) {
        self.kept_runs = None;
    }

    /// How the delivery of an event ended here. The files, some hundred, are read once for a batch of arrivals, because
    /// a backend that has lost its outcomes delivers thousands of events again.
    ///
    /// The outer option is absent if the files cannot be read and memory does not say it.
    pub(super) fn of<H: Host>(&mut self, event: EventId, runs: &Runs<H>) -> Option<Option<DeliveryOutcome>> {
        if let Some(end) = self.unwritten_ends.get(&event) {
            return Some(Some(end.clone()));
        }
        let kept = self.kept_runs.get_or_insert_with(|| {
            runs.completed_runs()
                .map_err(|error| tracing::error!(%error, "cannot read the completed runs"))
                .ok()
        });
        let covers = |record: &RunRecord| record.causes.iter().any(|cause| cause.event.id == event);
        let kept = kept.as_ref()?;
        Some(recorded_outcome(event, kept.iter().filter(|(record, _)| covers(record)).cloned()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use trigger_core::delivery::Completion;
    use trigger_core::event::Target;
    use trigger_core::run::{CompletedRun, RunOutcome};
    use trigger_core::time::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::state::StateDir;

    #[test]
    fn an_end_that_the_disk_had_no_room_for_is_known_from_memory() {
        let dir = tempfile::tempdir().unwrap();
        let runs = Runs::open(&StateDir::open(dir.path()).unwrap()).unwrap();
        let (event, run_id) = (EventId::from_uuid(Uuid::now_v7()), RunId::from_uuid(Uuid::now_v7()));
        let at = Timestamp::from_unix_ms(1_763_812_800_000);
        let result = RunResult {
            outcome: RunOutcome::Interrupted,
            reason: None,
            reported_noop: false,
            drift: Default::default(),
            started_at: at,
            finished_at: at.plus(Duration::from_secs(1)),
        };
        let outcome = DeliveryOutcome::Failed(CompletedRun::new(run_id, false, result));
        let addressed_as = [Target::Node("lb01".parse().unwrap())].into();
        let completions = [Completion { event, addressed_as, outcome: outcome.clone() }];

        let mut ends = KnownEnds::default();
        ends.ended(Some(run_id), &completions);
        assert_eq!(ends.of(event, &runs), Some(None), "its file would say it, and there is none");
        ends.result_is_unwritten(run_id);
        ends.ended(None, &completions);
        assert_eq!(ends.of(event, &runs), Some(None), "without a run, the delivery is judged again");
        ends.ended(Some(run_id), &completions);
        assert_eq!(ends.of(event, &runs), Some(Some(outcome)));
    }
}
