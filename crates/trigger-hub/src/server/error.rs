//! The errors of the server.

use std::io;
use std::net::SocketAddr;

/// Why a hub does not listen on an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidListen {
    /// The text is not an address and a port.
    #[error(
        "'{0}' is not an address to listen on: give one such as 0.0.0.0:8145, [::]:8145 or 127.0.0.1:8145"
    )]
    NoAddress(String),
    /// Other machines could reach the address, and the hub does not speak TLS.
    #[error(
        "refusing to listen on {0} without TLS, since other machines reach that address: leave out 'tls = false', or \
         listen on loopback, such as 127.0.0.1:8145"
    )]
    NeedsTls(SocketAddr),
    /// Other machines could reach the address of the health checks.
    #[error(
        "refusing to answer health checks on {0} without TLS, since other machines reach that address: use one of \
         loopback, such as 127.0.0.1:8146; other nodes can ask the hub itself, over TLS"
    )]
    HealthNotLoopback(SocketAddr),
}

/// The server did not start, or it stopped by an error.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Other machines could use the hub without TLS.
    #[error(transparent)]
    InvalidListen(#[from] InvalidListen),
    /// Another process listens there.
    #[error(
        "cannot listen on {0}: the port is in use; stop what uses it (another hub?) or give another --listen"
    )]
    PortInUse(SocketAddr),
    /// The system refuses the address for another reason.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The certificates of this node are not those of a server.
    #[error("the hub cannot speak TLS: {0}")]
    Tls(#[from] trigger_pki::PkiError),
    /// The server itself failed.
    #[error("the hub's server failed: {0}")]
    Serve(#[source] io::Error),
}
