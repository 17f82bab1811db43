//! Keeps the history of this node's latest runs, which the agent publishes for `trigger why`. No decision depends on
//! the history, and an error here must not hold up an outcome.

use std::collections::HashMap;

use trigger_core::delivery::{Completion, DeliveryOutcome};
use trigger_core::identity::{Certname, EventId, RunId};
use trigger_core::run::history::RunHistory;

use crate::host::Host;
use crate::state::Runs;

pub(super) struct RunHistoryWriter<H: Host> {
    runs: Runs<H>,
    certname: Certname,
    history: RunHistory,
    /// How many superseded events each waiting event stands for. The counts are in memory only, so they start from zero
    /// when the agent is restarted.
    stands_for: HashMap<EventId, usize>,
}

impl<H: Host> RunHistoryWriter<H> {
    /// Begins with the history of the kept runs of a certname.
    pub(super) fn new(runs: Runs<H>, certname: Certname) -> Self {
        let history = runs.history(&certname).unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read the history of runs");
            RunHistory::default()
        });
        Self { runs, certname, history, stands_for: HashMap::new() }
    }

    pub(super) fn history(&self) -> &RunHistory {
        &self.history
    }

    /// Adds the outcomes of deliveries, which ended by `run` or without one.
    pub(super) fn take_in(&mut self, run: Option<RunId>, completions: &[Completion]) {
        let superseded = completions.iter().map(|completion| self.end(completion)).sum();
        let Some(run) = run else { return };
        if superseded > 0
            && let Err(error) = self.runs.note_superseded(run, superseded)
        {
            tracing::warn!(%run, superseded, %error, "cannot store how many events the run superseded");
        }
        match self.runs.past_run(run, &self.certname) {
            Ok(Some(past)) => self.history.push(past),
            Ok(None) => {}
            Err(error) => tracing::error!(%run, %error, "cannot add the run to the history"),
        }
    }

    /// Returns how many events a completed event stood for. A superseded event passes its count on to its successor and
    /// returns zero.
    fn end(&mut self, completion: &Completion) -> usize {
        let stood_for = self.stands_for.remove(&completion.event).unwrap_or_default();
        match completion.outcome {
            DeliveryOutcome::Superseded(by) => {
                *self.stands_for.entry(by).or_default() += stood_for + 1;
                0
            }
            _ => stood_for,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::StateDir;

    fn completion(event: u128, end: DeliveryOutcome) -> Completion {
        let event = EventId::from_uuid(uuid::Uuid::from_u128(event));
        Completion { event, addressed_as: Default::default(), outcome: end }
    }

    #[test]
    fn a_run_stands_for_all_that_its_causes_superseded() {
        let dir = tempfile::tempdir().unwrap();
        let mut teller = RunHistoryWriter::new(
            Runs::open(&StateDir::open(dir.path()).unwrap()).unwrap(),
            "lb01".parse().unwrap(),
        );
        let by = |event| DeliveryOutcome::Superseded(EventId::from_uuid(uuid::Uuid::from_u128(event)));
        teller.take_in(
            None,
            &[completion(1, by(3)), completion(2, by(3)), completion(3, by(4)), completion(8, by(9))],
        );
        assert_eq!(
            teller.end(&completion(4, DeliveryOutcome::Expired(None))),
            3,
            "what it superseded had superseded two"
        );
        assert_eq!(teller.end(&completion(4, DeliveryOutcome::Expired(None))), 0, "once");
        assert_eq!(teller.stands_for.len(), 1, "nothing is kept of what ended");
    }
}
