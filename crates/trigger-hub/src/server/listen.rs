//! The address that a hub listens on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use tokio::net::{TcpListener, TcpSocket};
use trigger_store::address::Address;

use super::error::{InvalidListen, ServerError};

/// How many connections may wait to be accepted. A whole fleet reconnects at once after a restart of the hub.
const LISTEN_BACKLOG: u32 = 4096;

/// An address that a hub may listen on. Only on loopback may it do so without TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    address: SocketAddr,
    /// By which other names clients may address the hub.
    pub(super) allowed_hosts: Vec<Address>,
}

impl FromStr for ListenAddress {
    type Err = InvalidListen;

    fn from_str(text: &str) -> Result<Self, InvalidListen> {
        let invalid = || InvalidListen::NoAddress(text.to_owned());
        let address: SocketAddr = match text.rsplit_once(':') {
            Some(("localhost", port)) => {
                SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().map_err(|_| invalid())?)
            }
            _ => text.parse().map_err(|_| invalid())?,
        };
        Ok(Self { address, allowed_hosts: Vec::new() })
    }
}

impl ListenAddress {
    /// Whether other machines reach the address, so that the hub has to speak TLS there.
    pub fn needs_tls(&self) -> bool {
        !self.address.ip().to_canonical().is_loopback()
    }

    /// The address as it was given, of which the port may be 0.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets clients address the hub by these names too, such as those of a forwarded port.
    pub fn with_allowed_hosts(self, allowed_hosts: Vec<Address>) -> Self {
        Self { allowed_hosts, ..self }
    }

    /// Listens, and returns the real address, of which the port may have been 0 here.
    pub(super) fn bind(self) -> Result<(TcpListener, SocketAddr), ServerError> {
        let address = self.address;
        let bind = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            // A restarted hub must not wait until the system has forgotten the old connections (TIME_WAIT, a minute).
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let listener = socket.listen(LISTEN_BACKLOG)?;
            let real = listener.local_addr()?;
            Ok((listener, real))
        };
        bind().map_err(|source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => ServerError::PortInUse(address),
            _ => ServerError::Listen { address, source },
        })
    }
}
