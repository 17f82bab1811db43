//! Bounds the output files of runs whose supervisor was killed, for as long as this agent lives. A supervisor that lives
//! does so itself.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::output_limit::{bound_output, is_locked};

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
    outputs.filter(|path| !is_supervised(path)).for_each(|path| bound_output(&path));
}

/// Whether the run of this output has a supervisor that lives: it holds the lock of the record beside the output.
fn is_supervised(output: &Path) -> bool {
    File::open(output.with_extension("json")).is_ok_and(|record| is_locked(&record))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_a_run_whose_supervisor_lives_is_left_to_it() {
        const LENGTH: u64 = 5 * 1024 * 1024;
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        let length = |name: &str| fs::metadata(file(name)).unwrap().len();
        for run in ["supervised", "orphan", "ended"] {
            fs::write(file(&format!("{run}.log")), vec![b'x'; usize::try_from(LENGTH).unwrap()]).unwrap();
        }
        fs::write(file("orphan.json"), "").unwrap();
        fs::write(file("ended.ended.json"), "").unwrap();
        let record = File::create(file("supervised.json")).unwrap();
        record.lock().unwrap();
        bound_all(dir.path());
        assert_eq!(length("supervised.log"), LENGTH);
        assert!(length("orphan.log") < LENGTH && length("ended.log") < LENGTH);
        record.unlock().unwrap();
        bound_all(dir.path());
        assert!(length("supervised.log") < LENGTH);
    }
}
