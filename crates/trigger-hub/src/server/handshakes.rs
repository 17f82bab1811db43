//! The TLS handshakes of a hub: who is let in, and that no client's handshake holds up another's.
//!
//! Nearly all the work of a handshake is one signature with the hub's key, which follows the client's first message. Only
//! for that does a handshake take one of a few turns, and the addresses that clients come from have them one after
//! another. A client that sends nothing takes up nothing but its place, for a limited time.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use trigger_core::token_bucket::{Rate, TokenBucket};

use super::connection::Activity;
use super::handshake_error::HandshakeError;
use super::metrics::Metrics;
use super::shares::{OpenConnection, Shares};
use super::tls::Tls;
use super::turns::Turns;

/// How long a handshake may take, waiting for its turn included. A whole fleet that comes back at once with an RSA key on
/// the hub waits for some of it, and is here again later.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one on a place of the reserve may take.
const RESERVE_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// How many refused handshakes the log shows: a fleet with a wrong CA has thousands.
const LOG_RATE: Rate = Rate { burst: 20, per_second: 1 };

/// Makes the handshakes of one listener.
pub(super) struct Handshakes {
    tls: Arc<Tls>,
    shares: Arc<Shares>,
    metrics: Arc<Metrics>,
    turns: Turns<IpAddr>,
    log: Mutex<LogLimit>,
    started: Instant,
}

#[derive(Default)]
struct LogLimit {
    bucket: TokenBucket,
    omitted: u64,
}

impl Handshakes {
    pub(super) fn new(tls: Arc<Tls>, shares: Arc<Shares>, metrics: Arc<Metrics>) -> Self {
        let turns = Turns::new(available_parallelism().map_or(1, NonZero::get));
        Self { tls, shares, metrics, turns, log: Mutex::default(), started: Instant::now() }
    }

    /// Makes the handshake of a connection. Returns nothing if the client was refused, which is logged and counted.
    pub(super) async fn authenticate(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        is_reserve: bool,
        activity: &Arc<Activity>,
    ) -> Option<(TlsStream<TcpStream>, OpenConnection)> {
        let limit = if is_reserve { RESERVE_HANDSHAKE_TIMEOUT } else { HANDSHAKE_TIMEOUT };
        let handshake = async {
            let generation = self.tls.generation();
            let stream = self.handshake(stream, address).await?;
            let presented = self.tls.identify(&stream)?;
            let certname = presented.peer.certname.clone();
            let open = self.shares.open(presented, address, Arc::clone(activity));
            let open = open.ok_or(HandshakeError::TooMany(certname))?;
            // What was revoked meanwhile was not found among the connections yet.
            if self.tls.generation() != generation {
                self.tls.verify(&open.live.presented)?;
            }
            Ok((stream, open))
        };
        let result = tokio::select! {
            result = timeout(limit, handshake) => result.unwrap_or(Err(HandshakeError::TimedOut(limit))),
            () = activity.over() => Err(HandshakeError::GaveWay),
        };
        match result {
            Ok(authenticated) => {
                self.metrics.handshake("ok");
                Some(authenticated)
            }
            Err(error) => {
                self.metrics.handshake(error.label());
                self.log(address, &error);
                None
            }
        }
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Result<TlsStream<TcpStream>, HandshakeError> {
        let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
        let hello = hello.await.map_err(|error| self.tls.explain(address, &error, None))?;
        let (handshake, rest) = {
            let _turn = tokio::select! {
                biased;
                () = closed(&hello.io) => return Err(HandshakeError::Closed),
                turn = self.turns.next(network(address.ip())) => turn,
            };
            if has_closed(&hello.io) {
                return Err(HandshakeError::Closed);
            }
            let handshake = self.tls.handshake()?;
            let rest = hello.into_stream(Arc::clone(&handshake.config));
            (handshake, rest)
        };
        rest.await.map_err(|error| self.tls.explain(address, &error, handshake.refusal()))
    }

    fn log(&self, address: SocketAddr, error: &HandshakeError) {
        if error.is_ordinary() {
            tracing::debug!(peer = %address, %error, "a connection ended before it was authenticated");
            return;
        }
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.bucket.take(self.started.elapsed(), LOG_RATE, 1, Duration::ZERO).is_err() {
            log.omitted += 1;
            return;
        }
        let omitted = std::mem::take(&mut log.omitted);
        drop(log);
        if omitted > 0 {
            tracing::warn!(omitted, "more connections were refused than the log shows");
        }
        tracing::warn!(peer = %address, certname = error.subject(), reason = error.label(), "a connection was refused: {error}");
    }
}

/// Completes when the client closes the connection, unless it has sent something that is not read yet.
async fn closed(stream: &TcpStream) {
    if !matches!(stream.peek(&mut [0]).await, Ok(0) | Err(_)) {
        std::future::pending::<()>().await;
    }
}

/// Whether the client has given up while it waited. Without this look, an overloaded hub would spend its signatures on clients
/// that have gone, and have none for those that came back.
pub(super) fn has_closed(stream: &TcpStream) -> bool {
    matches!(stream.peek(&mut [0]).now_or_never(), Some(Ok(0) | Err(_)))
}

/// The network that a client's address stands for. A customer's part of IPv6 has 64 bits to choose addresses from.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_has_gone_is_noticed_and_one_that_waits_is_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert!(!has_closed(&stream), "it waits");
        assert!(closed(&stream).now_or_never().is_none());
        client.writable().await.unwrap();
        assert_eq!(client.try_write(b"hello").unwrap(), 5);
        stream.readable().await.unwrap();
        assert!(!has_closed(&stream), "it has sent more");
        stream.try_read(&mut [0; 8]).unwrap();
        drop(client);
        closed(&stream).await;
        assert!(has_closed(&stream));
    }

    #[test]
    fn addresses_of_one_network_share_their_turns() {
        let check = |address: &str, expected: &str| {
            assert_eq!(network(address.parse().unwrap()).to_string(), expected);
        };
        check("192.0.2.7", "192.0.2.7");
        check("::ffff:192.0.2.7", "192.0.2.7");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
    }
}
