//! The errors of the server.

use std::io;
use std::net::SocketAddr;

/// The server did not start, or it stopped by an error.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
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
    /// The server itself failed.
    #[error("the hub's server failed: {0}")]
    Serve(#[source] io::Error),
}
