//! Puppet's own report of a run (C9).

use crate::identity::RunId;
use crate::run::RunOutcome;

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
}

impl ReportSummary {
    /// Reads the report's own fields and ignores everything else.
    pub fn parse(yaml: &str) -> Self {
        let mut summary = Self::default();
        for line in yaml.lines() {
            let Some((field, value)) = line.split_once(':') else { continue };
            let value = value.trim().trim_matches(['\'', '"']);
            match field {
                "job_id" if !value.is_empty() => summary.job_id = Some(value.to_owned()),
                "status" if !value.is_empty() => summary.status = Some(value.to_owned()),
                "catalog_uuid" if !value.is_empty() => summary.catalog_uuid = Some(value.to_owned()),
                "noop" => summary.noop = value == "true",
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
    fn nonsense_is_unknown() {
        assert_eq!(ReportSummary::parse("\u{0}garbage").outcome(), Some(RunOutcome::Unknown));
    }
}
