//! The files of a completed run: reads Puppet's report and the run's output for the verdict, and leaves the report of a
//! `puppet apply` where Puppet itself would have left it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trigger_core::run::RunOutcome;
use trigger_core::run::command::{CommandKind, RunCommand};
use trigger_core::run::record::RunRecord;
use trigger_core::run::report::ReportSummary;
use trigger_core::run::report_errors::ReportErrors;

use super::asking;
use super::stop_request::StopRequest;
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

/// A run's report.
pub(super) struct Report {
    pub(super) summary: ReportSummary,
    /// Its errors, if the run did not end well.
    pub(super) errors: Option<ReportErrors>,
}

impl Report {
    fn parse(yaml: &str) -> Self {
        let summary = ReportSummary::parse(yaml);
        let ended_well = matches!(summary.outcome(), Some(RunOutcome::Changed | RunOutcome::Unchanged));
        Self { errors: (!ended_well).then(|| ReportErrors::parse(yaml)), summary }
    }
}

/// Returns the report that is certainly this run's, or why there is none.
pub(super) async fn report(
    record: &RunRecord,
    command: &RunCommand,
    paths: &RunPaths,
    state_dir: &Path,
    stop: &mut StopRequest,
) -> Result<Report, String> {
    match command.kind() {
        CommandKind::Other => Err("the run command is not Puppet".to_owned()),
        // Only this run writes to that path.
        CommandKind::PuppetApply => read(&paths.report()),
        CommandKind::PuppetAgent => agents_report(record, command, state_dir, stop).await,
    }
}

/// Returns the report of a `puppet agent` run. Puppet writes the report of every run to the same path, so the job id
/// decides whether the report is this run's.
async fn agents_report(
    record: &RunRecord,
    command: &RunCommand,
    state_dir: &Path,
    stop: &mut StopRequest,
) -> Result<Report, String> {
    let ours = |path: &Path| {
        let report = read(path)?;
        if report.summary.is_of(record.run_id) {
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
    let settings = asking::after_a_run(record, command, state_dir, ASKING_TIMEOUT, stop).await?;
    ours(&settings.last_run_report)
}

fn read(path: &Path) -> Result<Report, String> {
    match fs::read(path) {
        Ok(bytes) => Ok(Report::parse(&String::from_utf8_lossy(&bytes))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(format!("there is no report in {}", path.display()))
        }
        Err(error) => Err(format!("its report cannot be read: {}: {error}", path.display())),
    }
}

/// Copies the report of a `puppet apply` to the path where Puppet itself would have written it, because monitoring
/// reads it there. Puppet writes its summary (`last_run_summary.yaml`) to its own place in any case.
pub(super) async fn leave_report(
    record: &RunRecord,
    command: &RunCommand,
    paths: &RunPaths,
    state_dir: &Path,
    stop: &mut StopRequest,
) {
    if command.kind() != CommandKind::PuppetApply || !paths.report().exists() {
        return;
    }
    let place = match puppet_settings::cached(command, state_dir) {
        Some(puppet) => Ok(puppet),
        None => asking::after_a_run(record, command, state_dir, ASKING_TIMEOUT, stop).await,
    };
    let left = place.and_then(|puppet| {
        copy_report(&paths.report(), &puppet.own_report)
            .map_err(|error| format!("{}: {error}", puppet.own_report.display()))
    });
    if let Err(error) = left {
        tracing::warn!(error, "cannot leave the run's report where Puppet keeps its reports");
    }
}

/// Replaces a report at once, so that no reader finds half of one. It keeps its mode and its owner.
fn copy_report(from: &Path, to: &Path) -> io::Result<()> {
    let mut temporary = to.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let copied = fs::copy(from, &temporary).and_then(|_| {
        if let Ok(old) = fs::metadata(to) {
            fs::set_permissions(&temporary, old.permissions())?;
            std::os::unix::fs::chown(&temporary, Some(old.uid()), Some(old.gid()))?;
        }
        File::open(&temporary)?.sync_data()?;
        fs::rename(&temporary, to)
    });
    if copied.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    copied
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_report_that_is_replaced_keeps_its_mode_and_a_failure_leaves_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "new").unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o600)).unwrap();
        let mode = || fs::metadata(&to).unwrap().permissions().mode() & 0o777;
        copy_report(&from, &to).unwrap();
        assert_eq!((fs::read_to_string(&to).unwrap().as_str(), mode()), ("new", 0o600));
        fs::set_permissions(&to, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&from, "newer").unwrap();
        copy_report(&from, &to).unwrap();
        assert_eq!((fs::read_to_string(&to).unwrap().as_str(), mode()), ("newer", 0o644));
        assert!(copy_report(&dir.path().join("none"), &to).is_err());
        assert_eq!(fs::read_to_string(&to).unwrap(), "newer");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file stays");
    }
}
