//! Asks Puppet for its settings on behalf of a run, again and again while Puppet does not answer. Before a run, not to
//! know them is no permission to start it; after a run, it is no reason to call a good run a failure.

use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use trigger_core::run::RunOutcome;
use trigger_core::run::command::RunCommand;
use trigger_core::run::record::RunRecord;
use trigger_core::run::verdict::Verdict;

use super::stop_request::StopRequest;
use crate::puppet_settings::{self, Attempt, PuppetSettings};

/// Asks until Puppet answers. Returns the verdict on the run if Puppet has not answered after `patience`, or if the
/// supervisor is asked to stop.
pub(super) async fn settings(
    record: &RunRecord,
    command: &RunCommand,
    state_dir: &Path,
    patience: Duration,
) -> Result<PuppetSettings, Verdict> {
    let not_run = |reason: String| Verdict::new(RunOutcome::NotRun, reason);
    let mut stop = signal(SignalKind::terminate())
        .map_err(|error| not_run(format!("cannot listen for signals: {error}")))?;
    tokio::select! {
        biased;
        _ = stop.recv() => Err(Verdict::stopped()),
        answer = until_answered(record, command, state_dir, patience) => answer.map_err(not_run),
    }
}

/// Asks after a run until Puppet answers. Returns what went wrong at last if it has not answered after `patience`, or
/// that the supervisor is asked to stop: a service manager or a shutdown waits for less time than Puppet is given.
pub(super) async fn after_a_run(
    record: &RunRecord,
    command: &RunCommand,
    state_dir: &Path,
    patience: Duration,
    stop: &mut StopRequest,
) -> Result<PuppetSettings, String> {
    tokio::select! {
        biased;
        () = stop.made() => Err("the supervisor was asked to stop before Puppet reported its settings".to_owned()),
        answer = until_answered(record, command, state_dir, patience) => answer,
    }
}

/// Asks until Puppet answers. Returns what went wrong at last if it has not answered after `patience`.
async fn until_answered(
    record: &RunRecord,
    command: &RunCommand,
    state_dir: &Path,
    patience: Duration,
) -> Result<PuppetSettings, String> {
    let since = Instant::now();
    let mut attempt = Attempt::FIRST;
    loop {
        let error = match puppet_settings::ask(command, &record.environment, state_dir, attempt).await {
            Ok(settings) => return Ok(settings),
            Err(error) => error,
        };
        if since.elapsed() + attempt.pause >= patience {
            return Err(format!("Puppet does not report its settings: {error}"));
        }
        tracing::warn!(%error, "Puppet does not report its settings; it is asked again");
        tokio::time::sleep(attempt.pause).await;
        attempt = attempt.next();
    }
}
