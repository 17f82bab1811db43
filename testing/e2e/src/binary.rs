//! The program under test: this workspace's own `trigger`, built now, so that it is never an old one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// The path of `trigger`: `TRIGGER_BIN` where that is set, else built from this workspace.
pub fn program() -> &'static Path {
    PROGRAM.get_or_init(|| match std::env::var_os("TRIGGER_BIN") {
        Some(path) => PathBuf::from(path),
        None => built_once_a_run(),
    })
}

/// Under nextest each test is a process of its own: the first one builds, the others read what it noted.
fn built_once_a_run() -> PathBuf {
    let Ok(run) = std::env::var("NEXTEST_RUN_ID") else { return build() };
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/trigger-e2e");
    fs::create_dir_all(directory).expect("a directory for the note of the built program");
    let note = Path::new(directory).join(run);
    let lock = File::options().create(true).append(true).open(&note).expect("a note of the built program");
    lock.lock().expect("a lock on the note of the built program");
    let known = fs::read_to_string(&note).unwrap_or_default();
    if !known.is_empty() {
        return PathBuf::from(known);
    }
    let path = build();
    fs::write(&note, path.to_string_lossy().as_bytes()).expect("a note of the built program");
    path
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--package", "trigger", "--message-format", "json"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .expect("cargo, to build the program under test (or set TRIGGER_BIN)");
    let said = String::from_utf8_lossy(&output.stdout);
    let mut executables = said.lines().filter_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    let built = executables.next_back().filter(|_| output.status.success());
    built
        .unwrap_or_else(|| panic!("cargo cannot build trigger:\n{}", String::from_utf8_lossy(&output.stderr)))
}
