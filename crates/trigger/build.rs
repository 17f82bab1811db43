//! Lets the linker put side by side what an agent executes, so that an idle agent holds little of the program besides.

#![allow(clippy::print_stdout, reason = "a build script speaks to cargo by its output")]

use std::env;

/// Set by who links with a program that knows no such scripts, such as mold.
const OPT_OUT: &str = "TRIGGER_FUNCTIONS_IN_ANY_ORDER";

fn main() {
    let directory = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    // A linker script that adds to the linker's own. GNU ld and lld know such scripts.
    let functions = format!("{directory}/agent-functions.ld");
    println!("cargo::rerun-if-changed={functions}");
    println!("cargo::rerun-if-env-changed={OPT_OUT}");
    let is_linux = env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux");
    // The list is of the functions of an optimised program.
    let is_optimised = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    if is_linux && is_optimised && env::var_os(OPT_OUT).is_none() {
        println!("cargo::rustc-link-arg-bins=-T{functions}");
    }
}
