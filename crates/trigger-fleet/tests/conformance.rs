//! The life of an event on the store in memory and on a real etcd.

#![allow(clippy::expect_used, reason = "a test says what it expects")]

#[path = "support/etcd_server.rs"]
mod etcd_server;

use etcd_server::EtcdServer;
use trigger_fleet::conformance;
use trigger_store::etcd::EtcdStore;
use trigger_store::memory::MemoryStore;

#[tokio::test]
async fn memory() {
    conformance::check(|| async { MemoryStore::default() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd() {
    let server = EtcdServer::start(&[]).await;
    let endpoints = [server.endpoint()];
    conformance::check(|| async { EtcdStore::connect(&endpoints).expect("an address") }).await;
}
