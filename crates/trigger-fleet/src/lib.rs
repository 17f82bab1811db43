//! What is written once above the store: events and their deliveries, outcomes, claims, sweeping, why.
//!
//! Knows nothing of any backend. Nothing here spawns, sleeps or looks at a clock, so that a simulation can run it.

pub mod claim;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod deliveries;
pub mod delivery_watcher;
pub mod outcomes;
pub mod publishing;
pub mod registry;
pub mod sweeping;
pub mod why;
