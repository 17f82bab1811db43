//! Bounds the output files of runs whose supervisor was killed, for as long as this agent lives. A supervisor that lives
//! does so itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::output_limit::bound_output;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(5);

/// Bounds the files in the directory of runs. Does not end.
pub(super) async fn run(runs: PathBuf) {
    let mut looks = tokio::time::interval(INTERVAL);
    loop {
        looks.tick().await;
        let runs = runs.clone();
        let looked = tokio::task::spawn_blocking(move || bound_all(&runs)).await;
        if let Err(error) = looked {
            tracing::warn!(%error, "cannot bound the outputs of runs");
        }
    }
}

fn bound_all(runs: &Path) {
    // Without the directory there is nothing to bound; the agent reports the loss elsewhere.
    let files = fs::read_dir(runs).into_iter().flatten().flatten();
    let outputs =
        files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "log"));
    outputs.for_each(|path| bound_output(&path));
}
