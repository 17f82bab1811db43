//! The bytes of a connection, plain or encrypted.

use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

/// The bytes of a connection: in the clear, on loopback, or with the keys of a handshake that is over. These are large, and
/// most connections of a hub are of this kind.
pub(super) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;
