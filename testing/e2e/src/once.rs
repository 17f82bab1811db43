//! Values that the tests of one test run share, even if each test is a process of its own, as under nextest.

use std::fs::{self, File};
use std::path::Path;

/// The directory in which nextest's tests leave notes for each other.
const NOTES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/trigger-e2e");

/// Returns the result of `make`, which is called once for all tests of a nextest run, and once for each process
/// otherwise. The first test that asks notes the result under `name` for the others, which wait for it.
pub(crate) fn once_a_run(name: &str, make: impl FnOnce() -> String) -> String {
    let Some(run) = nextest_run() else { return make() };
    fs::create_dir_all(NOTES).expect("a directory for notes");
    let path = Path::new(NOTES).join(format!("{run}-{name}"));
    let note = File::options().create(true).append(true).open(&path).expect("a note");
    note.lock().expect("a lock on a note");
    let known = fs::read_to_string(&path).unwrap_or_default();
    if !known.is_empty() {
        return known;
    }
    let made = make();
    fs::write(&path, &made).expect("a note");
    made
}

/// Returns the id of the nextest run that this process is a test of.
pub(crate) fn nextest_run() -> Option<String> {
    std::env::var("NEXTEST_RUN_ID").ok()
}
