//! What is wrong with a node: `trigger doctor`.

use serde::Serialize;
use trigger_core::doctor;

/// What `trigger doctor` prints.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Diagnosis {
    /// What was found; what is to be mended first stands first.
    findings: Vec<Finding>,
    /// How many of them are errors: with one, the exit code is 1.
    errors: usize,
    /// What the reader should know besides.
    warnings: Vec<String>,
}

/// What was found about one area.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Finding {
    /// The area, such as `configuration`, `backend` or `puppet`.
    area: &'static str,
    /// How serious it is.
    severity: Severity,
    /// What was found, a sentence.
    summary: String,
    /// How to mend it; null where there is nothing to mend.
    remedy: Option<String>,
}

/// How serious a finding is.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
enum Severity {
    /// Nothing has to be done.
    Ok,
    /// Something does not work as it could, or may stop working.
    Warning,
    /// Events do not reach this node, do not leave it, or do not run here.
    Error,
}

impl Diagnosis {
    pub(crate) fn of(findings: &[doctor::Finding], warnings: Vec<String>) -> Self {
        let finding = |finding: &doctor::Finding| Finding {
            area: finding.area,
            severity: match finding.severity {
                doctor::Severity::Ok => Severity::Ok,
                doctor::Severity::Warning => Severity::Warning,
                doctor::Severity::Error => Severity::Error,
            },
            summary: finding.summary.clone(),
            remedy: finding.remedy.clone(),
        };
        let is_error = |finding: &&doctor::Finding| finding.severity == doctor::Severity::Error;
        Self {
            findings: findings.iter().map(finding).collect(),
            errors: findings.iter().filter(is_error).count(),
            warnings,
        }
    }
}
