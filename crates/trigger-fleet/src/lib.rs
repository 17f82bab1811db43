//! The layer above the store, the same for every backend: events and their deliveries, outcomes, claims, sweeping,
//! explanations.
//!
//! `examples/one_event.rs` takes an event through all of it.
//!
//! [`Fleet`] is the one handle. It knows no backend, only the [`Store`](trigger_store::store::Store) trait. Nothing here
//! spawns, sleeps or reads a clock, so that a simulation runs it as it is.

pub mod cancelling;
mod certificates;
pub mod claim;
pub mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod deliveries;
pub mod delivery_watcher;
mod fleet;
pub mod forgetting;
pub mod holding;
pub mod lease;
pub mod outcomes;
pub mod overview;
pub mod publishing;
mod registry;
pub mod run_logs;
pub mod status;
mod stored_event;
pub mod sweeping;
pub mod targets;
pub mod verifying;
pub mod visible;
mod why;

pub use fleet::Fleet;
