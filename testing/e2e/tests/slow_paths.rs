//! Backends that are there and slow to reach.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use trigger_e2e::{BackendKind, Fleet, Node, on_each_backend};

on_each_backend!(
    a_dead_first_nameserver_delays_and_prevents_nothing,
    a_round_trip_of_seconds_delays_and_prevents_nothing,
);

/// Answers every query for an IPv4 address with 127.0.0.1, and says of other kinds that there are none.
fn serve_names(socket: &UdpSocket) {
    let mut query = [0; 512];
    while let Ok((length, client)) = socket.recv_from(&mut query) {
        let query = &query[..length];
        let name_ends = 12 + query[12..].iter().position(|byte| *byte == 0).expect("a name");
        let question = &query[12..name_ends + 5];
        let is_for_ipv4 = query[name_ends + 1..name_ends + 3] == [0, 1];
        let answers = u8::from(is_for_ipv4);
        let mut reply = [&query[..2], &[0x81, 0x80, 0, 1, 0, answers, 0, 0, 0, 0], question].concat();
        if is_for_ipv4 {
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
        }
        socket.send_to(&reply, client).expect("an answer to send");
    }
}

/// A node that looks names up by two nameservers, of which the first one never answers.
fn with_dead_nameserver(mut node: Node, first: &str, second: &str, port: u16, kind: BackendKind) -> Node {
    node.replace_file("/etc/hosts", "");
    node.replace_file("/etc/resolv.conf", &format!("nameserver {first}\nnameserver {second}\n"));
    node.set("backend", &format!("'{}'", kind.url(&format!("localhost:{port}"))));
    node
}

fn a_dead_first_nameserver_delays_and_prevents_nothing(kind: BackendKind) {
    // Addresses of this test alone, since all nameservers listen on one port.
    let (first, second) =
        if kind.is_hub() { ("127.77.0.1", "127.77.0.2") } else { ("127.77.1.1", "127.77.1.2") };
    let _dead = UdpSocket::bind((first, 53)).expect("a dead nameserver");
    let alive = UdpSocket::bind((second, 53)).expect("a nameserver");
    std::thread::spawn(move || serve_names(&alive));

    let fleet = Fleet::on(kind);
    let port = fleet.backend.port();
    let mut lb = with_dead_nameserver(fleet.node("lb01"), first, second, port, kind);
    lb.start_agent();
    lb.wait_for_log("a server is slow to reach");
    let log = lb.agent_log();
    assert!(log.contains("name lookup"), "the slow step: {log}");
    // A process without an agent knows no address of earlier attempts.
    let alone = with_dead_nameserver(fleet.node("web01"), first, second, port, kind);
    let event = alone.fire(&["t", "--host", "lb01"]).committed();
    alone.wait_for(&event, "lb01", "done");
    // The agent has one, so its fires do not wait for a lookup.
    let fire = lb.fire(&["t", "--host", "lb01"]);
    fire.committed();
    assert!(fire.took < Duration::from_secs(3), "{fire:?}");
    let wait = alone.fire(&["t", "--wait", "--host", "lb01"]);
    assert_eq!(wait.code, 0, "{wait:?}");
}

/// Passes on what it reads after `delay`.
fn pass_on(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let _ = sender.send((Instant::now() + delay, buffer[..length].to_vec()));
        }
    });
    std::thread::spawn(move || {
        for (due, bytes) in receiver {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}

/// The address at which a far-away backend listens: on the port of the near one, since a hub serves no other.
const FAR: &str = "127.0.0.2";

/// Makes the backend on this port one that is `round_trip` away.
fn far_away(backend: u16, round_trip: Duration) {
    let listener = TcpListener::bind((FAR, backend)).expect("a port");
    std::thread::spawn(move || {
        for near in listener.incoming() {
            let near = near.expect("a client");
            let Ok(far) = TcpStream::connect(("127.0.0.1", backend)) else { continue };
            let (near_again, far_again) =
                (near.try_clone().expect("a copy"), far.try_clone().expect("a copy"));
            pass_on(near, far, round_trip / 2);
            pass_on(far_again, near_again, round_trip / 2);
        }
    });
}

fn a_round_trip_of_seconds_delays_and_prevents_nothing(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let near = fleet.running("web01");
    let mut far = fleet.node("lb01");
    far_away(fleet.backend.port(), Duration::from_millis(3_400));
    far.replace_file("/etc/hosts", &format!("{FAR} localhost\n"));
    far.set("backend", &format!("'{}'", fleet.backend.url().replace("127.0.0.1", "localhost"))).start_agent();
    let event = near.fire(&["t", "--host", "lb01"]).committed();
    near.wait_for(&event, "lb01", "done");
    assert!(far.agent_log().contains("no answer within 2s"), "the slow step: {}", far.agent_log());
    // What the agent cannot publish while a Puppet run waits, it publishes soon after.
    let event = far.fire(&["t", "--host", "web01"]).event();
    near.wait_for(&event, "web01", "done");
    assert_eq!(far.trigger(&["status", &event]).code, 0);
}
