//! Puppet's own report of a run (C9).

use crate::identity::RunId;
use crate::run::{Drift, RunOutcome};

/// The fields of `last_run_report.yaml` that decide the outcome of a run.
///
/// The file is YAML with Ruby tags (`!ruby/object:Puppet::Transaction::Report`) and can have tens of thousands of
/// resources. Psych writes each of the report's own fields at the start of a line, so only those lines are read; no
/// nested value can look like them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReportSummary {
    /// The run's `--job-id`; absent for `puppet apply`.
    pub job_id: Option<String>,
    /// `failed`, `changed` or `unchanged`.
    pub status: Option<String>,
    /// False where no catalog was applied to its end.
    pub transaction_completed: Option<bool>,
    /// Set by Puppet's `Configurer` directly before it applies the catalog, after everything that may keep it from doing
    /// so (the server, the compiler, the types' validation, the `prerun_command`). Where it is absent, nothing was
    /// changed.
    pub catalog_uuid: Option<String>,
    /// Whether it was a noop run.
    pub noop: bool,
    /// Whether resources were left as they are because of noop, of the run or of the resource alone.
    pub noop_pending: Option<bool>,
    /// How many changes were made. A noop run changes the resources that have `noop => false`.
    pub changes: Option<u64>,
}

impl ReportSummary {
    /// Reads the report's own fields and ignores everything else.
    pub fn parse(yaml: &str) -> Self {
        let mut summary = Self { changes: total_changes(yaml), ..Self::default() };
        for line in yaml.lines() {
            let Some((field, value)) = line.split_once(':') else { continue };
            let value = value.trim().trim_matches(['\'', '"']);
            match field {
                "job_id" if !value.is_empty() => summary.job_id = Some(value.to_owned()),
                "status" if !value.is_empty() => summary.status = Some(value.to_owned()),
                "catalog_uuid" if !value.is_empty() => summary.catalog_uuid = Some(value.to_owned()),
                "noop" => summary.noop = value == "true",
                "noop_pending" => summary.noop_pending = value.parse().ok(),
                "transaction_completed" => summary.transaction_completed = value.parse().ok(),
                _ => {}
            }
        }
        summary
    }

    /// Whether this is the report of `run`.
    pub fn is_of(&self, run: RunId) -> bool {
        self.job_id.as_deref() == Some(run.to_string().as_str())
    }

    /// What the report says of changes and of pending ones.
    pub fn drift(&self) -> Drift {
        // A failed run has another status, whether it changed something or not.
        let by_status = match self.status.as_deref() {
            Some("changed") => Some(true),
            Some("unchanged") => Some(false),
            _ => None,
        };
        Drift {
            noop_pending: self.noop_pending,
            really_changed: self.changes.map(|count| count > 0).or(by_status),
        }
    }

    /// The outcome that the report proves; absent where no catalog was applied to its end.
    pub fn outcome(&self) -> Option<RunOutcome> {
        if self.transaction_completed == Some(false) {
            return None;
        }
        Some(match self.status.as_deref() {
            Some("unchanged") => RunOutcome::Unchanged,
            Some("changed") => RunOutcome::Changed,
            Some("failed") => RunOutcome::Failed,
            _ => RunOutcome::Unknown,
        })
    }
}

/// The number of changes among the report's metrics: the value `total` of the metric `changes`, where each name is on a
/// line of its own with the indentation that Psych gives to it.
fn total_changes(yaml: &str) -> Option<u64> {
    let mut lines = yaml.lines().skip_while(|line| line.trim_end() != "metrics:").skip(1);
    let mut metrics = lines.by_ref().take_while(|line| line.starts_with(' '));
    metrics.find(|line| line.starts_with("  changes:"))?;
    let mut values = metrics.take_while(|line| line.starts_with("    "));
    values.find(|line| line.trim_end() == "    - - total")?;
    let value = values.nth(1)?;
    value.trim().strip_prefix("- ")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGED: &str = "--- !ruby/object:Puppet::Transaction::Report\nmetrics:\n  resources: !ruby/object:Puppet::Util::Metric\n    name: resources\n    status: failed\nlogs:\n- !ruby/object:Puppet::Util::Log\n  message: 'status: failed'\njob_id: 019356b0-7c4a-7000-8000-000000000001\nstatus: changed\ntransaction_completed: true\nnoop: true\nnoop_pending: false\n";

    #[test]
    fn only_the_reports_own_fields_count() {
        let report = ReportSummary::parse(CHANGED);
        assert_eq!(report.outcome(), Some(RunOutcome::Changed));
        assert_eq!(report.catalog_uuid, None);
        assert!(report.noop);
        assert!(report.is_of("019356b0-7c4a-7000-8000-000000000001".parse().unwrap()));
        assert!(!report.is_of("019356b0-7c4a-7000-8000-000000000002".parse().unwrap()));
    }

    #[test]
    fn a_report_without_a_finished_transaction_proves_no_outcome() {
        let report = ReportSummary::parse("status: failed\ntransaction_completed: false\ncatalog_uuid:\n");
        assert_eq!((report.outcome(), report.catalog_uuid), (None, None));
        let begun = ReportSummary::parse("transaction_completed: false\ncatalog_uuid: 56e04045-ae2e\n");
        assert_eq!((begun.outcome(), begun.catalog_uuid.as_deref()), (None, Some("56e04045-ae2e")));
    }

    #[test]
    fn changes_and_pending_ones_are_read_from_a_report_of_puppet() {
        let values = |total: &str| {
            format!("    label: Changes\n    values:\n    - - total\n      - Total\n      - {total}\n")
        };
        let metric = |total: &str| {
            format!("  changes: !ruby/object:Puppet::Util::Metric\n    name: changes\n{}", values(total))
        };
        let other = metric("9").replace("changes", "events");
        let report = |status: &str, pending: &str, changes: &str| {
            let text = format!(
                "status: {status}\nnoop: true\nnoop_pending: {pending}\nlogs:\n- message: |\n    metrics:\n{}metrics:\n{other}{}{other}resource_statuses:\n",
                metric("7"),
                metric(changes)
            );
            ReportSummary::parse(&text).drift()
        };
        let drift = |pending, changed| Drift { noop_pending: Some(pending), really_changed: Some(changed) };
        assert_eq!(report("changed", "true", "1"), drift(true, true));
        assert_eq!(report("unchanged", "true", "0"), drift(true, false));
        assert_eq!(report("failed", "false", "3"), drift(false, true), "a failed run that changed something");
        assert_eq!(
            report("changed", "false", "many"),
            drift(false, true),
            "the status where there is no number"
        );
        assert_eq!(ReportSummary::parse("status: failed\n").drift(), Drift::default());
    }

    #[test]
    fn nonsense_is_unknown() {
        assert_eq!(ReportSummary::parse("\u{0}garbage").outcome(), Some(RunOutcome::Unknown));
    }
}
