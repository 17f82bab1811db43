//! The output of a run: `trigger log`.

use serde::Serialize;
use trigger_core::identity::{Certname, RunId};

use super::text::Text;

/// What `trigger log` prints.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RunLog {
    /// The node.
    certname: Text<Certname>,
    /// The run.
    run_id: Text<RunId>,
    /// Whether the run has ended, so that this is the end of its output.
    has_ended: bool,
    /// How many bytes of output came before this.
    skipped_bytes: u64,
    /// The output: at most its last 64 KiB.
    output: String,
    /// What the reader should know besides.
    warnings: Vec<String>,
}

impl RunLog {
    pub(crate) fn of(
        certname: Certname,
        run: RunId,
        has_ended: bool,
        skipped_bytes: u64,
        output: String,
        warnings: Vec<String>,
    ) -> Self {
        Self { certname: Text(certname), run_id: Text(run), has_ended, skipped_bytes, output, warnings }
    }
}
