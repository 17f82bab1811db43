//! The store that every backend is, and the backends.
//!
//! [`store`] is the trait; [`memory`], `hub` and `etcd` implement it and pass the suite in `conformance`. [`kinds`] is
//! the registry of what a [`url`] may select, and [`backend`] what it opens, with the node's [`credentials`] and over
//! connections that `connector` makes. Nothing here knows what is stored: that is `trigger-fleet`.

pub mod address;
pub mod backend;
pub mod clock;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(feature = "clients")]
pub mod connector;
pub mod credentials;
pub mod detail;
mod entry;
#[cfg(feature = "clients")]
pub mod etcd;
#[cfg(feature = "clients")]
pub mod https;
#[cfg(feature = "clients")]
pub mod hub;
pub mod hub_protocol;
pub mod inquiry;
mod kind;
pub mod kinds;
#[cfg(feature = "conformance")]
pub mod meddled;
pub mod memory;
#[cfg(feature = "clients")]
mod step_limit;
pub mod store;
pub mod url;
