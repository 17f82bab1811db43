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
    committed(&address, state.path());
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

/// Waits until a client gets a place and commits an event.
fn committed(address: &str, state: &Path) {
    // Another state directory each time, because a node whose backend did not answer asks it again later.
    let mut number = 0;
    until("a place for a client", || {
        number += 1;
        is_committed(address, &state.join(number.to_string())).then_some(())
    });
}

/// Opens connections that take all ordinary places: each has sent the head of a request, and not its body yet.
fn fill(address: &str) -> Vec<TcpStream> {
    let head = format!(
        "POST /v1/put HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\
         Expect: 100-continue\r\n\r\n"
    );
    let open = |_| {
        let mut connection = TcpStream::connect(address).unwrap();
        connection.write_all(head.as_bytes()).unwrap();
        let mut answer = [0; 12];
        connection.read_exact(&mut answer).unwrap();
        (answer == *b"HTTP/1.1 100").then_some(connection)
    };
    // More than there are places: the hub may not have closed an earlier one yet. Those of the reserve are refused.
    let used: Vec<TcpStream> = (0..40).filter_map(open).collect();
    assert_eq!(used.len(), 24);
    used
}

/// Whether the hub has closed a connection, of which the rest of an answer may be unread.
fn is_closed(connection: &mut TcpStream) -> bool {
    connection.set_nonblocking(true).unwrap();
    loop {
        match connection.read(&mut [0; 64 * 1024]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn answered_connections_that_are_idle_give_way_to_clients() {
    let state = state();
    let address = free_address();
    let (log, writer) = io::pipe().unwrap();
    let hub = hub(state.path(), &address, writer);
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let answered = |_| {
        let mut connection = TcpStream::connect(&address).unwrap();
        connection.write_all(request.as_bytes()).unwrap();
        assert!(connection.read(&mut [0; 64 * 1024]).unwrap() > 0);
        connection
    };
    // More than there are places, as above.
    let mut idle: Vec<TcpStream> = (0..32).map(answered).collect();
    // They give way once they have been idle for a second.
    until("a client is served", || {
        get(&address, "/v1/read").is_some_and(|answer| answer.starts_with("HTTP/1.1 405")).then_some(())
    });
    committed(&address, state.path());
    // Which of them is for the hub to say: on a busy machine it notices late that the first is idle.
    until("an idle connection is closed", || idle.iter_mut().any(is_closed).then_some(()));
    drop(idle);
    log_of(hub, log);
}

#[test]
fn connections_that_send_one_byte_do_not_take_the_reserve() {
    let state = state();
    let address = free_address();
    let (log, writer) = io::pipe().unwrap();
    let hub = hub(state.path(), &address, writer);
    let used = fill(&address);
    let begun: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut connection = TcpStream::connect(&address).unwrap();
            connection.write_all(b"G").unwrap();
            connection
        })
        .collect();
    let since = std::time::Instant::now();
    is_healthy(&address).unwrap();
    assert!(since.elapsed().as_secs() < 2, "{:?}", since.elapsed());
    drop((used, begun));
    log_of(hub, log);
}

#[test]
fn connections_in_use_leave_the_reserve_for_health_and_metrics() {
    let state = state();
    let address = free_address();
    let (log, writer) = io::pipe().unwrap();
    let hub = hub(state.path(), &address, writer);
    let used = fill(&address);
    for _ in 0..20 {
        is_healthy(&address).unwrap();
        let answer = get(&address, "/metrics").unwrap();
        assert!(answer.contains("trigger_hub_build"), "{answer}");
        let answer = get(&address, "/v1/read").unwrap();
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("as many connections as its limit of open files allows"), "{answer}");
    }
    drop(used);
    committed(&address, state.path());
    let text = log_of(hub, log);
    assert!(text.contains("all connections that the limit of open files allows are taken"), "{text}");
}
