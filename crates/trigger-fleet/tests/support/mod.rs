//! Helpers that several test binaries use.

#![allow(dead_code, unused_imports, reason = "each test binary uses its part")]

mod etcd_server;

pub(crate) use etcd_server::EtcdServer;
