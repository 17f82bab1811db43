//! A fuzz target for every decoder of what another machine or process wrote. A target panics if the decoder does, or if
//! what it promises does not hold.
//!
//! `tests/corpus.rs` runs them all in `make test`, on the corpus and on mutations of it; `make fuzz` runs each under
//! libFuzzer, which `libfuzzer/` links to this crate. A decoder's target is listed in [`TARGETS`], has its seeds in
//! `corpus/NAME`, and a program of three lines in `libfuzzer/fuzz_targets`.

#![allow(clippy::expect_used, reason = "a target fails by a panic")]

mod bodies;
mod certificates;
mod configuration;
mod frames;
mod keys;
mod lines;
mod program;
mod puppet;
mod scratch;
mod urls;
mod values;

// Where the program's files look for it.
use program::files::failure;

/// A decoder under test.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 13] = [
    ("agent_socket", bodies::agent_socket),
    ("certificates", certificates::certificates),
    ("configuration", configuration::file),
    ("hub_bodies", bodies::hub),
    ("keys", keys::keys),
    ("puppet_locks", puppet::locks),
    ("puppet_report", puppet::report),
    ("puppet_settings", puppet::settings),
    ("puppetdb", puppet::puppetdb),
    ("state_lines", lines::state),
    ("urls", urls::urls),
    ("values", values::values),
    ("watch_frames", frames::watch),
];

/// Runs the target of this name.
///
/// # Panics
/// If there is no such target, or if it finds something.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a known target");
    target(data);
}
