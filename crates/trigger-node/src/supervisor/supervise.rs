//! Waits for a run's process and stores its result. The process may be Puppet, another command, or simulated.

use std::time::Duration;

use tracing::{Instrument, Span};
use trigger_core::run::RunResult;
use trigger_core::run::record::RunRecord;
use trigger_core::run::verdict::Verdict;

use crate::file_error::FileError;
use crate::host::Host;
use crate::state::RunPaths;

/// How long, and how often, writing a result is retried.
const RESULT_TIMEOUT: Duration = Duration::from_secs(60);
const RESULT_RETRY: Duration = Duration::from_secs(1);

/// The process of a run.
pub trait RunProcess {
    /// Waits until the process may start. Returns the verdict of the run if it may not. The time of this wait does not
    /// count towards the run's time limit.
    fn wait_for_turn(&mut self) -> impl Future<Output = Option<Verdict>> + Send;

    /// Starts the process and returns the note by which an agent recognises it, if it can be noted. The error is the
    /// verdict of a run whose process cannot be started.
    fn start(&mut self) -> Result<Option<String>, Verdict>;

    /// Returns the verdict when the process has ended, by itself or by its time limit.
    fn wait(&mut self) -> impl Future<Output = Verdict> + Send;
}

/// Runs the process to its end and stores the result.
///
/// # Errors
/// A [`FileError`] if the result still cannot be written after a minute; the run then counts as interrupted.
pub async fn supervise<H: Host>(
    host: &H,
    record: &RunRecord,
    paths: &RunPaths<H>,
    process: &mut (impl RunProcess + Send),
) -> Result<(), FileError> {
    let verdict = verdict_on(record, paths, process).await;
    let verdict = verdict
        .explaining_noop(record.options.noop)
        .without_catalogs(&record.causes)
        .naming_log(record.run_id);
    let result = RunResult {
        outcome: verdict.outcome,
        reason: verdict.reason,
        reported_noop: verdict.reported_noop,
        drift: verdict.drift,
        started_at: record.started_at,
        finished_at: host.wall(),
    };
    write_result(host, paths, &result).instrument(run_span(record)).await
}

/// Returns the span of a run. The log is opened after the process has been started, so no earlier span exists.
fn run_span(record: &RunRecord) -> Span {
    tracing::info_span!("run", run = %record.run_id, certname = %record.certname)
}

async fn verdict_on<H: Host>(
    record: &RunRecord,
    paths: &RunPaths<H>,
    process: &mut (impl RunProcess + Send),
) -> Verdict {
    if let Some(verdict) = process.wait_for_turn().await {
        return verdict;
    }
    match process.start() {
        Ok(leader) => run_span(record).in_scope(|| note_leader(leader, paths)),
        Err(verdict) => return verdict,
    }
    process.wait().instrument(run_span(record)).await
}

/// Stores the note by which an agent ends the run if this supervisor dies. The note is not synced, because the process
/// does not survive a crash of the machine either.
fn note_leader<H: Host>(leader: Option<String>, paths: &RunPaths<H>) {
    if let Some(Err(error)) = leader.map(|note| paths.note_leader(&note)) {
        tracing::warn!(%error, "cannot note the run's first process");
    }
}

/// Writes the result, and retries while the disk is full for a moment, because a run without a result counts as
/// interrupted and is repeated.
async fn write_result<H: Host>(host: &H, paths: &RunPaths<H>, result: &RunResult) -> Result<(), FileError> {
    let since = host.elapsed();
    let mut warned = false;
    loop {
        match paths.write_result(result) {
            Ok(()) => return Ok(()),
            Err(error) if host.elapsed().saturating_sub(since) > RESULT_TIMEOUT => return Err(error),
            Err(error) => {
                if !warned {
                    tracing::warn!(%error, "the run has ended, but its result cannot be written yet");
                    warned = true;
                }
                host.sleep(RESULT_RETRY).await;
            }
        }
    }
}
