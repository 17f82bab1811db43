//! Helpers that several test binaries use.

#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]

mod etcd_server;
pub(crate) mod meddled;

pub(crate) use etcd_server::EtcdServer;
