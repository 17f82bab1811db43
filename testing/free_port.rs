//! Ports for the servers that tests and measurements start, for the crates that include this file.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::TcpListener;
use std::ops::Range;

/// Five digits, below the ephemeral ports: a connection or another test could take one of those before the server listens, or
/// while it is killed.
const PORTS: Range<u16> = 10_000..32_768;

/// Returns a loopback port that nothing listens on.
#[allow(unreachable_pub, reason = "one of those crates is a library, and passes it on")]
pub fn free_port() -> u16 {
    loop {
        // The keys of a hasher are random.
        let random = RandomState::new().hash_one(()) as usize;
        if let Some(port) = PORTS.clone().nth(random % PORTS.len())
            && TcpListener::bind(("127.0.0.1", port)).is_ok()
        {
            return port;
        }
    }
}
