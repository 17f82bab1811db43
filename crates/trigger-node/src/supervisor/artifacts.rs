//! What a run that ended has left behind for its verdict: Puppet's report and what it printed.

use std::fs;
use std::io;
use std::path::Path;

use trigger_core::run::command::{CommandKind, RunCommand};
use trigger_core::run::record::RunRecord;
use trigger_core::run::report::ReportSummary;

use crate::puppet_settings;
use crate::state::RunPaths;

/// What the run printed, as much of it as is kept.
pub(super) fn output(paths: &RunPaths) -> String {
    let bytes = fs::read(paths.output()).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read the run's output");
        Vec::new()
    });
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The report that is certainly this run's, or why there is none.
pub(super) async fn report(
    record: &RunRecord,
    command: &RunCommand,
    paths: &RunPaths,
    state_dir: &Path,
) -> Result<ReportSummary, String> {
    match command.kind() {
        CommandKind::Other => Err("the run command is not Puppet".to_owned()),
        // Nobody else's could lie there.
        CommandKind::PuppetApply => read(&paths.report()),
        CommandKind::PuppetAgent => agents_report(record, command, state_dir).await,
    }
}

/// `puppet agent` leaves the report of each run in the same place, whoever started it: only the job id
/// tells whose it is.
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
    let known = puppet_settings::cached_paths(command, state_dir);
    if let Some(Ok(report)) = known.map(|paths| ours(&paths.last_run_report)) {
        return Ok(report);
    }
    // This run left none, or Puppet keeps it elsewhere by now.
    match puppet_settings::ask_paths(command, &record.environment, state_dir).await {
        Ok(paths) => ours(&paths.last_run_report),
        Err(error) => Err(format!("Puppet does not report where it keeps its reports: {error}")),
    }
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
