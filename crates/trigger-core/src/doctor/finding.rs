//! What was found about a node.

/// How serious a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing has to be done.
    Ok,
    /// Something does not work as it could, or may stop working.
    Warning,
    /// Events do not reach this node, do not leave it, or do not run here.
    Error,
}

impl Severity {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What was found about one area.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The area.
    pub area: &'static str,
    /// How serious it is.
    pub severity: Severity,
    /// What was found, a sentence.
    pub summary: String,
    /// How to mend it; absent where there is nothing to mend.
    pub remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(area: &'static str, summary: impl Into<String>) -> Self {
        Self { area, severity: Severity::Ok, summary: summary.into(), remedy: None }
    }

    pub(super) fn warning(area: &'static str, summary: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { area, severity: Severity::Warning, summary: summary.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn error(area: &'static str, summary: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { area, severity: Severity::Error, summary: summary.into(), remedy: Some(remedy.into()) }
    }
}
