//! The decisions of Trigger, and nothing else.
//!
//! Everything here is a function of its arguments: no clock, no files, no network, no randomness
//! (C14 in `docs/contract.md`; `clippy.toml` beside this crate bans the calls). The shells in
//! the `trigger` crate read the world, ask these modules what to do, and perform the effects in order.

pub mod backoff;
pub mod dedup;
pub mod delivery;
pub mod event;
pub mod fire_note;
pub mod identity;
pub mod keyspace;
pub mod lineage;
pub mod loop_guard;
pub mod node;
pub mod publication;
pub mod queue;
pub mod rate_limiter;
mod reason;
pub mod run;
pub mod status;
pub mod suppressed;
pub mod sweep;
mod text_serde;
pub mod time;
pub mod why;
pub mod wire;
