//! A hub with fewer file descriptors than there are connections to it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;

use crate::daemon::{Daemon, free_address, get, is_committed, is_healthy, until};
use crate::state;

/// The limit of open files under which the hub runs: 24 ordinary connections and a reserve of 8.
const LIMIT: &str = "ulimit -n 64";

fn hub(state: &Path, address: &str, log: io::PipeWriter) -> Daemon {
    let data = state.join("hub");
    let arguments = ["hub", "--listen", address, "--data-dir", data.to_str().unwrap()];
    let hub = Daemon::start_after(LIMIT, &arguments, state, log);
    until("the hub is healthy", || is_healthy(address));
    hub
}

fn log_of(mut hub: Daemon, mut log: io::PipeReader) -> String {
    assert!(hub.stop().success());
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn idle_connections_keep_no_client_from_the_hub() {
    let state = state();
    let address = free_address();
    let (log, writer) = io::pipe().unwrap();
    let hub = hub(state.path(), &address, writer);
    let idle: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(&address).unwrap()).collect();
    is_healthy(&address).unwrap();
    assert!(get(&address, "/metrics").unwrap().contains("trigger_hub_build"));
    assert!(is_committed(&address, &state.path().join("a")));
    assert!(idle.iter().all(|connection| connection.peer_addr().is_ok()));
    is_healthy(&address).unwrap();
    drop(idle);
    let text = log_of(hub, log);
    assert_eq!(
        text.matches("all connections that the limit of open files allows are taken").count(),
        1,
        "{text}"
    );
    assert!(!text.contains("Too many open files"), "{text}");
}

#[test]
fn connections_in_use_leave_the_reserve_for_health_and_metrics() {
    let state = state();
    let address = free_address();
    let (log, writer) = io::pipe().unwrap();
    let hub = hub(state.path(), &address, writer);
    // Each has been answered once and may send a further request, as a client of the hub does.
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let mut used = Vec::new();
    until("all ordinary connections are in use", || {
        let mut connection = TcpStream::connect(&address).unwrap();
        connection.write_all(request.as_bytes()).unwrap();
        let mut bytes = [0; 64 * 1024];
        let count = connection.read(&mut bytes).unwrap();
        let is_closed = String::from_utf8_lossy(&bytes[..count]).to_lowercase().contains("connection: close");
        used.push(connection);
        is_closed.then_some(())
    });
    assert_eq!(used.len(), 25, "one on the reserve");
    for _ in 0..20 {
        is_healthy(&address).unwrap();
        let answer = get(&address, "/metrics").unwrap();
        assert!(answer.contains("trigger_hub_build"), "{answer}");
        let answer = get(&address, "/v1/read").unwrap();
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("as many connections as its limit of open files allows"), "{answer}");
    }
    drop(used);
    // Another state directory each time, because a node whose backend did not answer asks it again later.
    let mut number = 0;
    until("a place for a client", || {
        number += 1;
        is_committed(&address, &state.path().join(number.to_string())).then_some(())
    });
    let text = log_of(hub, log);
    assert!(text.contains("all connections that the limit of open files allows are taken"), "{text}");
}
