//! What carries events, and all that is written once above it.
//!
//! [`store`] is the trait; [`memory`], [`hub`] and [`etcd`] implement it and pass [`conformance`].
//! Above it, and knowing nothing of any backend: [`publishing`], [`deliveries`], [`registry`],
//! [`outcomes`] and [`sweeping`]. Nothing above the trait spawns, sleeps or looks at a clock, so that a simulation can run it.

pub mod backend;
pub mod conformance;
pub mod deliveries;
pub mod etcd;
pub mod hub;
pub mod hub_protocol;
pub mod memory;
pub mod outcomes;
pub mod publishing;
pub mod registry;
pub mod store;
pub mod sweeping;
pub mod url;
