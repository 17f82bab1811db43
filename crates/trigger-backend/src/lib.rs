//! What carries events, and all that is written once above it.
//!
//! [`store`] is the trait; [`memory`], [`hub`] and [`etcd`] implement it and pass [`conformance`].
//! Above it, and knowing nothing of any backend: [`publishing`], [`deliveries`], [`intake`], [`claim`],
//! [`registry`], [`outcomes`], [`sweeping`] and [`why`]. Nothing above the trait spawns, sleeps or looks at a
//! clock, so that a simulation can run it.

#[cfg(feature = "clients")]
pub mod backend;
pub mod claim;
pub mod conformance;
pub mod deliveries;
#[cfg(feature = "clients")]
pub mod etcd;
#[cfg(feature = "clients")]
pub mod hub;
pub mod hub_protocol;
pub mod intake;
pub mod memory;
pub mod outcomes;
pub mod publishing;
pub mod registry;
pub mod store;
pub mod sweeping;
pub mod url;
pub mod why;
