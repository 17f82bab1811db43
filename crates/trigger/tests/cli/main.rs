//! The output of the command line for people and for programs: help, errors and JSON, as snapshots.
//!
//! `SNAPSHOTS=overwrite cargo test -p trigger --test cli` writes them again.

#![allow(clippy::unwrap_used, reason = "a test says what it expects")]

mod cleaners;
mod connections;
mod daemon;
mod errors;
mod fire;
mod first_certname;
mod help;
mod log;
mod modes;
mod outbox;
mod output;
mod renaming;
mod signing;

use std::path::Path;

use snapbox::cmd::{Command, cargo_bin};

/// A `trigger` with no configuration but this state directory.
fn trigger(state: &Path) -> Command {
    Command::new(cargo_bin!("trigger"))
        .env_clear()
        .env("TRIGGER_CONFIG", "/dev/null")
        .env("TRIGGER_STATE_DIR", state)
        .env("TRIGGER_CERTNAME", "web01.example.com")
        .env("TRIGGER_BACKEND", "dummy:")
        .env("TRIGGER_REQUIRE_SIGNATURE", "false")
}

fn state() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}
