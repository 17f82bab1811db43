//! `trigger doctor`: what is wrong with this node, and how to mend it. It gathers facts, which `trigger_core::doctor`
//! judges.

mod gather;

use std::process::ExitCode;

use trigger_core::doctor::{Finding, Severity, examine};

use super::globals::{Globals, OutputFormat};
use crate::documents::Diagnosis;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::warnings::Warnings;

pub(crate) async fn run(globals: &Globals, warnings: &Warnings) -> Result<ExitCode, Failure> {
    let facts = gather::facts(globals).await;
    let findings = examine(&facts);
    match globals.output {
        OutputFormat::Json => output::document(&Diagnosis::of(&findings, warnings.take())),
        OutputFormat::Text | OutputFormat::Dot => {
            output::warnings(&warnings.take());
            output::print_lines(lines(&findings));
        }
    }
    let is_sound = findings.iter().all(|finding| finding.severity != Severity::Error);
    Ok(if is_sound { ExitCode::SUCCESS } else { Exit::Failed.into() })
}

/// The findings, each with its remedy below, and a line that counts them.
fn lines(findings: &[Finding]) -> Vec<String> {
    let mut lines = Vec::new();
    for Finding { area, severity, summary, remedy } in findings {
        lines.push(format!("{:8} {area}: {}", severity.as_str(), output::one_line(summary)));
        lines
            .extend(remedy.iter().map(|remedy| format!("{:8} to mend it: {}", "", output::one_line(remedy))));
    }
    let number = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    lines.push(String::new());
    lines.push(format!(
        "{}, {}",
        output::count(number(Severity::Error), "error"),
        output::count(number(Severity::Warning), "warning")
    ));
    lines
}
