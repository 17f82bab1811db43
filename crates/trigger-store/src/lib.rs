//! The store that every backend is, and the backends.
//!
//! [`store`] is the trait; [`memory`], [`hub`] and [`etcd`] implement it and pass the suite in `conformance`.
//! Nothing here knows what is stored: that is `trigger-fleet`.

pub mod backend;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(feature = "clients")]
pub mod etcd;
#[cfg(feature = "clients")]
pub mod hub;
pub mod hub_protocol;
pub mod memory;
pub mod store;
pub mod url;
