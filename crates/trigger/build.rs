//! Lets the linker put side by side what an agent executes, so that an idle agent holds little more of the program.

#![allow(clippy::print_stdout, reason = "a build script speaks to cargo by its output")]

use std::env;

/// What agents execute: a linker script that adds to the linker's own. GNU ld and lld know such scripts.
const FUNCTIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/agent-functions.ld");

fn main() {
    println!("cargo::rerun-if-changed={FUNCTIONS}");
    let is_linux = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux");
    // In other builds functions have other names, and memory is no matter.
    if is_linux && env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{FUNCTIONS}");
    }
}
