//! The outcome of a delivery, found in the records of the runs that a node keeps.

use crate::delivery::DeliveryOutcome;
use crate::identity::EventId;
use crate::run::record::RunRecord;
use crate::run::{CompletedRun, RunOutcome, RunResult};

/// The outcome of an event's delivery, if one of the `runs` has completed it. `runs` are the kept runs that have a
/// result, in any order: their ids follow a clock that may jump, so no order is reliable.
///
/// The outcome is absent while the event is to run again: a run that was interrupted is repeated once, and one that
/// could not happen is repeated until the event expires (C6).
pub fn recorded_outcome(
    event: EventId,
    runs: impl IntoIterator<Item = (RunRecord, RunResult)>,
) -> Option<DeliveryOutcome> {
    let mut interrupted = Vec::new();
    let mut without_catalog = None;
    for (record, result) in runs {
        let Some(cause) = record.causes.iter().find(|cause| cause.event.id == event) else { continue };
        let interruptions_before = cause.interruptions;
        let run = CompletedRun::new(record.run_id, record.options.noop, result);
        match run.result.outcome {
            // Another run was to follow. If it did not, this one is what there is.
            RunOutcome::Unchanged | RunOutcome::Changed if cause.without_catalog => {
                without_catalog = Some(DeliveryOutcome::Done(run));
            }
            RunOutcome::Unchanged | RunOutcome::Changed => return Some(DeliveryOutcome::Done(run)),
            RunOutcome::Failed | RunOutcome::TimedOut | RunOutcome::Unknown => {
                return Some(DeliveryOutcome::Failed(run));
            }
            RunOutcome::Interrupted => interrupted.push((interruptions_before, run)),
            RunOutcome::NotRun => {}
        }
    }
    if without_catalog.is_some() {
        return without_catalog;
    }
    // The record of the first interrupted run may have been removed already.
    let was_repeated = interrupted.len() > 1 || interrupted.iter().any(|(before, _)| *before > 0);
    let last = interrupted.into_iter().max_by_key(|(before, run)| (*before, run.result.finished_at));
    last.filter(|_| was_repeated).map(|(_, run)| DeliveryOutcome::Failed(run))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::samples::{event, event_id};
    use crate::event::{RunOptions, Target};
    use crate::identity::RunId;
    use crate::run::record::Cause;
    use crate::time::Timestamp;
    use std::time::Duration;
    use uuid::Uuid;

    fn run(&(number, outcome): &(u128, RunOutcome)) -> (RunRecord, RunResult) {
        let cause = Cause {
            event: event(1, "t"),
            addressed_as: [Target::Node("lb01".parse().unwrap())].into(),
            interruptions: 0,
            without_catalog: false,
            signer: Default::default(),
        };
        let at = Timestamp::from_unix_ms(u64::try_from(number).unwrap());
        let record = RunRecord {
            run_id: RunId::from_uuid(Uuid::from_u128(number)),
            certname: "lb01".parse().unwrap(),
            command: Vec::new(),
            options: RunOptions::default(),
            timeout: Duration::ZERO,
            started_at: at,
            causes: vec![cause],
            environment: Default::default(),
        };
        let result = RunResult {
            outcome,
            reason: None,
            reported_noop: false,
            drift: Default::default(),
            started_at: at,
            finished_at: at,
        };
        (record, result)
    }

    fn check(runs: &[(u128, RunOutcome)], expected: Option<RunOutcome>) {
        let outcome = recorded_outcome(event_id(1), runs.iter().map(run));
        let outcome = outcome.map(|outcome| match outcome {
            DeliveryOutcome::Done(run) | DeliveryOutcome::Failed(run) => run.result.outcome,
            other => panic!("{other:?}"),
        });
        assert_eq!(outcome, expected, "{runs:?}");
    }

    #[test]
    fn a_run_that_was_interrupted_once_completes_nothing() {
        check(&[(1, RunOutcome::Interrupted)], None);
        check(&[(1, RunOutcome::Interrupted), (2, RunOutcome::Interrupted)], Some(RunOutcome::Interrupted));
        check(&[(1, RunOutcome::Changed), (2, RunOutcome::Interrupted)], Some(RunOutcome::Changed));
        check(&[(1, RunOutcome::Interrupted), (2, RunOutcome::Changed)], Some(RunOutcome::Changed));
    }

    #[test]
    fn a_run_that_could_not_happen_completes_nothing() {
        check(&[], None);
        check(&[(1, RunOutcome::NotRun)], None);
        check(&[(1, RunOutcome::Failed), (2, RunOutcome::NotRun)], Some(RunOutcome::Failed));
    }

    #[test]
    fn a_run_without_the_catalog_counts_where_no_other_followed() {
        let check = |first: bool, outcomes: [RunOutcome; 2], expected| {
            let runs = [(1, outcomes[0]), (2, outcomes[1])].map(|numbered| {
                let (mut record, result) = run(&numbered);
                record.causes[0].without_catalog = first == (numbered.0 == 1);
                (record, result)
            });
            let Some(DeliveryOutcome::Done(run) | DeliveryOutcome::Failed(run)) =
                recorded_outcome(event_id(1), runs)
            else {
                panic!("it has run")
            };
            assert_eq!(run.run_id, RunId::from_uuid(Uuid::from_u128(expected)), "{outcomes:?}");
        };
        let (changed, failed, not_run) = (RunOutcome::Changed, RunOutcome::Failed, RunOutcome::NotRun);
        check(true, [changed, changed], 2);
        check(false, [changed, changed], 1);
        check(true, [changed, failed], 2);
        check(true, [changed, not_run], 1);
    }

    #[test]
    fn the_runs_of_other_events_do_not_matter() {
        assert_eq!(recorded_outcome(event_id(2), []), None);
    }
}
