//! Waits for a run's process and stores its result, whatever the process is.

use std::time::Duration;

use tracing::{Instrument, Span};
use trigger_core::run::RunResult;
use trigger_core::run::record::RunRecord;
use trigger_core::run::verdict::Verdict;

use crate::file_error::FileError;
use crate::host::Host;
use crate::state::RunPaths;

/// How long a result that cannot be written is tried again, and how often.
const RESULT_TIMEOUT: Duration = Duration::from_secs(60);
const RESULT_RETRY: Duration = Duration::from_secs(1);

/// The process that a record asks for.
pub trait RunProcess {
    /// Waits until it may start; how the run ends if it may not. That time does not count towards the run's.
    fn wait_for_turn(&mut self) -> impl Future<Output = Option<Verdict>> + Send;

    /// Starts it, and returns the note by which an agent knows it again; or how the run ends without it.
    fn start(&mut self) -> Result<Option<String>, Verdict>;

    /// Returns when it has ended, or was ended, and says what came of it.
    fn wait(&mut self) -> impl Future<Output = Verdict> + Send;
}

/// Runs the process to its end and stores the result.
pub async fn supervise<H: Host>(
    host: &H,
    record: &RunRecord,
    paths: &RunPaths<H>,
    process: &mut (impl RunProcess + Send),
) -> Result<(), FileError> {
    let verdict = verdict_on(record, paths, process).await;
    let verdict = if record.options.noop { verdict } else { verdict.of_a_real_run() };
    let result = RunResult {
        outcome: verdict.outcome,
        reason: verdict.reason,
        reported_noop: verdict.reported_noop,
        started_at: record.started_at,
        finished_at: host.wall(),
    };
    write_result(host, paths, &result).instrument(run_span(record)).await
}

/// The span of a run. There is no log before the process has been started, and so no span either.
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

/// For the agent that may have to end the run when this supervisor is dead. Not synced: what it names does not
/// survive the machine either.
fn note_leader<H: Host>(leader: Option<String>, paths: &RunPaths<H>) {
    if let Some(Err(error)) = leader.map(|note| paths.note_leader(&note)) {
        tracing::warn!(%error, "cannot note the run's first process");
    }
}

/// Without its result a run counts as interrupted and is repeated, so a disk that is full for a moment is
/// given time.
async fn write_result<H: Host>(host: &H, paths: &RunPaths<H>, result: &RunResult) -> Result<(), FileError> {
    let since = host.elapsed();
    let mut told = false;
    loop {
        match paths.write_result(result) {
            Ok(()) => return Ok(()),
            Err(error) if host.elapsed().saturating_sub(since) > RESULT_TIMEOUT => return Err(error),
            Err(error) => {
                if !told {
                    tracing::warn!(%error, "the run has ended, but its result cannot be written yet");
                    told = true;
                }
                host.sleep(RESULT_RETRY).await;
            }
        }
    }
}
