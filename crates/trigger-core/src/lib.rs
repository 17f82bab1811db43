//! The decisions of Trigger, and nothing else.
//!
//! Everything here is a function of its arguments: no clock, no files, no network, no randomness
//! (C14 in `docs/contract.md`; `clippy.toml` beside this crate bans the calls). The shells in
//! the `trigger` crate read the world, ask these modules what to do, and perform the effects in order.

pub mod backoff;
pub mod completed_runs;
pub mod event;
pub mod history;
pub mod identity;
pub mod keyspace;
pub mod lineage;
pub mod loop_guard;
pub mod outcome;
pub mod queue;
pub mod rate_limiter;
pub mod report;
pub mod run_command;
pub mod status;
pub mod suppressed;
pub mod sweep;
pub mod time;
pub mod verdict;
pub mod why;
pub mod wire;
