//! The program under test: this workspace's own `trigger`, built on demand, so that it is never outdated.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::once::once_a_run;

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Returns the path of `trigger`: `TRIGGER_BIN` if it is set, otherwise the program built from this workspace.
pub fn program() -> &'static Path {
    PROGRAM.get_or_init(|| match std::env::var_os("TRIGGER_BIN") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(once_a_run("program", || build().to_string_lossy().into_owned())),
    })
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
