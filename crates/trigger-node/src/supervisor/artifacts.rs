//! Reads the files of a completed run for its verdict: Puppet's report and the run's output.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use trigger_core::run::command::{CommandKind, RunCommand};
use trigger_core::run::record::RunRecord;
use trigger_core::run::report::ReportSummary;

use super::asking;
use crate::puppet_settings;
use crate::state::RunPaths;

/// How long Puppet is asked where its reports are before a run counts as one without a report.
const ASKING_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Returns the run's output, as much of it as is kept. An unreadable file is logged and counts as empty.
pub(super) fn output(paths: &RunPaths) -> String {
    let bytes = fs::read(paths.output()).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read the run's output");
        Vec::new()
    });
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns the report that is certainly this run's, or why there is none.
pub(super) async fn report(
    record: &RunRecord,
    command: &RunCommand,
    paths: &RunPaths,
    state_dir: &Path,
) -> Result<ReportSummary, String> {
    match command.kind() {
        CommandKind::Other => Err("the run command is not Puppet".to_owned()),
        // Only this run writes to that path.
        CommandKind::PuppetApply => read(&paths.report()),
        CommandKind::PuppetAgent => agents_report(record, command, state_dir).await,
    }
}

/// Returns the report of a `puppet agent` run. Puppet writes the report of every run to the same path, so the job id
/// decides whether the report is this run's.
async fn agents_report(
    record: &RunRecord,
    command: &RunCommand,
    state_dir: &Path,
) -> Result<ReportSummary, String> {
    let ours = |path: &Path| {
        let report = read(path)?;
        if report.is_of(record.run_id) {
            Ok(report)
        } else {
            Err(format!("the report in {} is another run's", path.display()))
        }
    };
    let known = puppet_settings::cached(command, state_dir);
    if let Some(Ok(report)) = known.map(|settings| ours(&settings.last_run_report)) {
        return Ok(report);
    }
    // Either this run left no report, or Puppet's settings have changed and the report is elsewhere. Without the answer
    // a good run could not be distinguished from one without a report.
    let settings = asking::until_answered(record, command, state_dir, ASKING_TIMEOUT).await?;
    ours(&settings.last_run_report)
}

fn read(path: &Path) -> Result<ReportSummary, String> {
    match fs::read(path) {
        Ok(bytes) => Ok(ReportSummary::parse(&String::from_utf8_lossy(&bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(format!("there is no report in {}", path.display()))
        }
        Err(error) => Err(format!("its report cannot be read: {}: {error}", path.display())),
    }
}
