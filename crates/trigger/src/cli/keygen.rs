//! `trigger keygen`: makes the key that the nodes of a fleet without a CA share.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use trigger_pki::SharedKey;

use crate::failure::Failure;
use crate::output;

#[derive(Debug, Args)]
pub(crate) struct KeygenArgs {
    /// The file to write, which must not exist; its owner alone may read it
    file: PathBuf,
}

pub(crate) fn run(args: &KeygenArgs) -> Result<ExitCode, Failure> {
    SharedKey::generate(&args.file).map_err(|error| Failure::failed(error.to_string()))?;
    output::print(&format!(
        "Wrote {}. Copy it to every node of the fleet, for root alone, and name it there: shared_key = '{}'",
        args.file.display(),
        args.file.display()
    ));
    Ok(ExitCode::SUCCESS)
}
