//! The decisions of Trigger, and nothing else.
//!
//! Everything here is a function of its arguments: there is no clock, no file, no network and no randomness (C14 in
//! `docs/contract.md`; `clippy.toml` beside this crate bans the calls). The agent and the program observe the world,
//! ask these modules what to do, and perform the effects in order.
//!
//! The domain types know nothing of their stored forms: only [`wire`] reads and writes text, and no other module
//! imports it.

pub mod authorization;
pub mod backoff;
pub mod cancellation;
pub mod certificate;
pub mod count;
pub mod dedup;
pub mod delivery;
pub mod doctor;
pub mod duration;
pub mod escaped;
pub mod event;
pub mod fair_queue;
pub mod fire_note;
pub mod holds;
pub mod identity;
pub mod key_roles;
pub mod keyspace;
pub mod lineage;
pub mod log_policy;
pub mod loop_guard;
pub mod node;
mod pattern;
pub mod policy;
pub mod publication;
pub mod puppetdb;
pub mod queue;
pub mod rate_limiter;
mod reason;
pub mod retry;
pub mod run;
pub mod run_log;
pub mod signature;
pub mod signer;
pub mod status;
pub mod suppressed;
pub mod sweep;
mod text_serde;
pub mod time;
pub mod token_bucket;
pub mod trusted_extension;
pub mod why;
pub mod wire;
