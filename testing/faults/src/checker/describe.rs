//! Describes runs and moments in the words of a violation.

use crate::artifacts::Run;

/// Describes a run from its log.
pub(super) fn describe(run: &Run) -> String {
    let end = run
        .end
        .as_ref()
        .map_or_else(|| "no end".to_owned(), |end| format!("ended at {} with {}", seconds(end.at), end.code));
    format!(
        "run {} on {} started at {} for {} events, {end}",
        run.start.run,
        run.start.certname,
        seconds(run.start.at),
        run.start.causes.len()
    )
}

pub(super) fn seconds(at: u64) -> String {
    format!("{:.6} s", std::time::Duration::from_nanos(at).as_secs_f64())
}
