//! Measures the etcd backend on a server of its own: `cargo run --release --example etcd_figures`.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a measurement, run by hand")]

#[path = "../../trigger-fleet/tests/support/etcd_server.rs"]
mod etcd_server;

use std::time::{Duration, Instant};

use etcd_server::EtcdServer;
use futures_util::StreamExt;
use trigger_store::etcd::EtcdStore;
use trigger_store::store::{KeyRange, Store};

/// Repetitions of which the middle one counts.
const ROUNDS: usize = 5;
/// Puts of which the middle one counts.
const PUTS: usize = 200;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // A process that only watches is measured alone, so it is this program once more.
    if let Some(endpoint) = std::env::args().nth(1) {
        return idle(&endpoint).await;
    }
    let server = EtcdServer::start(&[]).await;
    let store = EtcdStore::connect(&[server.endpoint()]).expect("an address");

    let mut publishing = Vec::new();
    for round in 0..ROUNDS {
        let key = |directory: &str, n: usize| format!("/figures/{directory}/{round}/{n:05}");
        let parts = (0..79).map(|n| (key("parts", n), "p".repeat(4096))).collect();
        let deliveries = (0..10_000).map(|n| (key("deliveries", n), "d".repeat(60))).collect();
        let began = Instant::now();
        for entries in [parts, deliveries] {
            assert!(store.put_many(entries).await.iter().all(Result::is_ok));
        }
        publishing.push(began.elapsed());
    }
    println!("79 parts of 4 kB, then 10,000 deliveries of 60 bytes: median {:?}", median(publishing));

    let mut puts = Vec::new();
    for n in 0..PUTS {
        let began = Instant::now();
        let entry = (format!("/figures/single/{n}"), "d".repeat(60));
        assert!(store.put_many(vec![entry]).await.iter().all(Result::is_ok));
        puts.push(began.elapsed());
    }
    println!("one put: median {:?}", median(puts));

    let began = Instant::now();
    let store = EtcdStore::connect(&[server.endpoint()]).expect("an address");
    assert!(store.put_many(vec![("/figures/first".into(), "1".into())]).await[0].is_ok());
    println!("connecting and the first put: {:?}", began.elapsed());

    let program = std::env::current_exe().expect("this program");
    let mut idle = std::process::Command::new(program).arg(server.endpoint()).spawn().expect("itself");
    idle.wait().expect("its end");
}

/// Watches and reports what it occupies.
async fn idle(endpoint: &str) {
    println!("resident before connecting: {}", resident());
    let store = EtcdStore::connect(&[endpoint.to_owned()]).expect("an address");
    assert!(store.put_many(vec![("/figures/idle/a".into(), "1".into())]).await[0].is_ok());
    let mut watch = store.watch(vec![KeyRange::Prefix("/figures/idle/".to_owned())]).await.expect("a watch");
    watch.next().await.expect("a snapshot").expect("a snapshot");
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("resident with one idle watch: {}", resident());
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    line.trim_start_matches("VmRSS:").trim().to_owned()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
