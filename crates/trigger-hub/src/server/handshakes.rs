//! The TLS handshakes of a hub: who is let in, and that no client's handshake holds up another's.
//!
//! Nearly all the work of a handshake is one signature with the hub's key, which follows the client's first message. For that
//! a client takes one of a limited number of turns, and the addresses that clients come from have them one after another, the
//! newest client of each first. A client that sends nothing, or waits for its turn, takes up nothing but its place, for a limited
//! time.
//!
//! A client keeps its turn until it watches, for a short time at most, and for less until it has shown who it is. A fleet that comes back at once would have all of its
//! clients in the middle of their first requests otherwise: each would wait for all others, until it gives up and comes again.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZero;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::available_parallelism;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use trigger_core::token_bucket::{Rate, TokenBucket};

use super::connection::Activity;
use super::connection_audit;
use super::handshake_error::HandshakeError;
use super::metrics::Metrics;
use super::shares::{OpenConnection, Presented, Shares};
use super::tls::Tls;
use super::turns::{Turn, Turns};

/// How long a handshake may take, waiting for its turn included. A whole fleet that comes back at once with an RSA key on
/// the hub waits for some of it, and is here again later.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one on a place of the reserve may take.
const RESERVE_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often it is looked whether a client that waits for its turn is still there.
const GONE_INTERVAL: Duration = Duration::from_secs(1);
/// When it is looked first whether the rest of a client's first record has come, and then later and later: a client that never
/// sends it costs next to nothing.
const FIRST_PARTIAL_INTERVAL: Duration = Duration::from_millis(20);
/// How many clients there are at a time from their handshake until they watch.
const ARRIVALS: usize = 64;
/// For how long after the hub's signature a client keeps its turn that has not shown who it is.
const UNKNOWN_LIMIT: Duration = Duration::from_millis(100);
/// For how long after its handshake a client keeps its turn at most: it may be slow, far away, or want no watch.
const ARRIVAL_LIMIT: Duration = Duration::from_millis(250);
/// How often it is looked whether a client watches by now.
const ARRIVAL_INTERVAL: Duration = Duration::from_millis(20);
/// RFC 8446, 5.1: the type and the version of a record, and its length in two bytes.
const RECORD_HEADER_BYTES: usize = 5;
const HANDSHAKE_RECORD: u8 = 22;
const MAX_RECORD_BYTES: usize = RECORD_HEADER_BYTES + (1 << 14);
/// How many refused handshakes the log shows: a fleet with a wrong CA has thousands.
const LOG_RATE: Rate = Rate { burst: 20, per_second: 1 };

/// Makes the handshakes of one listener.
pub(super) struct Handshakes {
    tls: Arc<Tls>,
    shares: Arc<Shares>,
    metrics: Arc<Metrics>,
    arrivals: Turns<IpAddr>,
    /// One for each core.
    signatures: Arc<Semaphore>,
    log: Mutex<LogLimit>,
    /// Apart, so that those who are no nodes of the fleet do not hide those who were.
    audit: Mutex<LogLimit>,
    started: Instant,
}

#[derive(Default)]
struct LogLimit {
    bucket: TokenBucket,
    omitted: u64,
}

impl Handshakes {
    pub(super) fn new(tls: Arc<Tls>, shares: Arc<Shares>, metrics: Arc<Metrics>) -> Self {
        let signatures = Arc::new(Semaphore::new(available_parallelism().map_or(1, NonZero::get)));
        Self {
            tls,
            shares,
            metrics,
            arrivals: Turns::newest_first(ARRIVALS),
            signatures,
            log: Mutex::default(),
            audit: Mutex::default(),
            started: Instant::now(),
        }
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
            let (stream, presented) = self.handshake(stream, address, activity).await?;
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
        activity: &Arc<Activity>,
    ) -> Result<(TlsStream<TcpStream>, Presented), HandshakeError> {
        first_record(&stream).await;
        let turn = self.turn(&stream, address).await?;
        // What follows is large, and only those who have had their turn need it.
        Box::pin(self.with_turn(stream, address, activity, turn)).await
    }

    /// Waits for the turn of a client, unless it gives up. Without this look, an overloaded hub would spend its signatures on
    /// clients that have gone, and have none for those that came back.
    async fn turn(&self, stream: &TcpStream, address: SocketAddr) -> Result<Turn<IpAddr>, HandshakeError> {
        let mut turn = pin!(self.arrivals.next(network(address.ip())));
        loop {
            let given = timeout(GONE_INTERVAL, &mut turn).await;
            if has_closed(stream) {
                return Err(HandshakeError::Closed);
            }
            if let Ok(turn) = given {
                return Ok(turn);
            }
        }
    }

    async fn with_turn(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        activity: &Arc<Activity>,
        turn: Turn<IpAddr>,
    ) -> Result<(TlsStream<TcpStream>, Presented), HandshakeError> {
        let mut hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
        let (hello, turn) = match (&mut hello).now_or_never() {
            Some(hello) => (hello, turn),
            // Its first message is in several records, the rest of which may never come.
            None => {
                drop(turn);
                let hello = hello.await;
                (hello, self.arrivals.next(network(address.ip())).await)
            }
        };
        let hello = hello.map_err(|error| self.tls.explain(address, &error, None))?;
        let handshake = self.tls.handshake()?;
        let config = Arc::clone(&handshake.config);
        // The signature, in a thread of its own: among the tasks that serve clients, those of a fleet that comes back would leave
        // no time for the requests of the clients that are in.
        let place = Arc::clone(&self.signatures).acquire_owned().await;
        if has_closed(&hello.io) {
            return Err(HandshakeError::Closed);
        }
        let signed = spawn_blocking(move || {
            let _place = place;
            (hello.into_stream(config), turn)
        });
        let (rest, turn) = signed.await.map_err(|_| HandshakeError::Closed)?;
        let (let_in, is_let_in) = oneshot::channel();
        tokio::spawn(keep_until_arrived(turn, is_let_in, Arc::downgrade(activity)));
        match rest.await {
            Ok(stream) => {
                let presented = self.tls.identify(&stream, handshake)?;
                let _ = let_in.send(());
                Ok((stream, presented))
            }
            Err(error) => Err(self.tls.explain(address, &error, handshake.refusal())),
        }
    }

    fn log(&self, address: SocketAddr, error: &HandshakeError) {
        if error.is_ordinary() {
            tracing::debug!(peer = %address, %error, "a connection ended before it was authenticated");
            return;
        }
        if let Some(omitted) = self.may_write(&self.log) {
            if omitted > 0 {
                tracing::warn!(omitted, "more connections were refused than the log shows");
            }
            tracing::warn!(peer = %address, certname = error.subject(), reason = error.label(), "a connection was refused: {error}");
        }
        if error.is_of_certificate()
            && let Some(omitted) = self.may_write(&self.audit)
        {
            connection_audit::not_let_in(address, error.subject(), &error.to_string(), omitted);
        }
    }

    /// Whether the next line may be written, and how many were not since the last one that was.
    fn may_write(&self, limit: &Mutex<LogLimit>) -> Option<u64> {
        let mut limit = limit.lock().unwrap_or_else(PoisonError::into_inner);
        if limit.bucket.take(self.started.elapsed(), LOG_RATE, 1, Duration::ZERO).is_err() {
            limit.omitted += 1;
            return None;
        }
        Some(std::mem::take(&mut limit.omitted))
    }
}

/// Keeps the turn of a client until it watches or has gone, for a limited time, of which one that has not been let in has less.
async fn keep_until_arrived<T>(_turn: T, is_let_in: oneshot::Receiver<()>, activity: Weak<Activity>) {
    if !matches!(timeout(UNKNOWN_LIMIT, is_let_in).await, Ok(Ok(()))) {
        return;
    }
    let arrived = async {
        while activity.upgrade().is_some_and(|activity| activity.is_http()) {
            sleep(ARRIVAL_INTERVAL).await;
        }
    };
    let _ = timeout(ARRIVAL_LIMIT, arrived).await;
}

/// Completes when the first record of a client can be read whole, or can no longer be waited for. Until then, and until its
/// turn, a client takes up no more than a connection: a whole fleet may be waiting.
async fn first_record(stream: &TcpStream) {
    let mut interval = FIRST_PARTIAL_INTERVAL;
    loop {
        let mut header = [0; RECORD_HEADER_BYTES];
        let Ok(seen) = stream.peek(&mut header).await else { return };
        let is_handshake = header[0] == HANDSHAKE_RECORD;
        let length = RECORD_HEADER_BYTES + usize::from(u16::from_be_bytes([header[3], header[4]]));
        let available = rustix::io::ioctl_fionread(stream)
            .map_or(usize::MAX, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let is_whole = seen == RECORD_HEADER_BYTES && available >= length;
        if seen == 0 || !is_handshake || is_whole || length > MAX_RECORD_BYTES || has_closed(stream) {
            return;
        }
        sleep(interval).await;
        interval *= 2;
    }
}

/// Whether the client has closed the connection, also behind what it has sent.
pub(super) fn has_closed(stream: &TcpStream) -> bool {
    match stream.ready(Interest::READABLE).now_or_never() {
        Some(Ok(ready)) => ready.is_read_closed(),
        Some(Err(_)) => true,
        None => false,
    }
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::super::connection::Connection;
    use super::*;

    #[tokio::test]
    async fn a_client_that_has_gone_is_noticed_and_one_that_waits_is_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert!(!has_closed(&stream), "it waits");
        client.writable().await.unwrap();
        assert_eq!(client.try_write(b"hello").unwrap(), 5);
        stream.readable().await.unwrap();
        assert!(!has_closed(&stream), "it has sent more");
        drop(client);
        timeout(Duration::from_secs(5), async {
            while !has_closed(&stream) {
                sleep(Duration::from_millis(1)).await
            }
        })
        .await
        .expect("it is noticed behind what was sent");
    }

    /// Whether a first record that begins with these bytes is waited for.
    async fn check_first_record(bytes: &[u8], is_waited_for: bool) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        client.write_all(bytes).await.unwrap();
        let waits = timeout(Duration::from_millis(300), first_record(&stream)).await.is_err();
        assert_eq!(waits, is_waited_for, "{bytes:?}");
        drop(client);
        timeout(Duration::from_secs(5), first_record(&stream)).await.expect("the client has gone");
    }

    #[tokio::test]
    async fn a_turn_is_asked_for_once_the_first_record_is_there() {
        check_first_record(&[], true).await;
        check_first_record(&[22, 3, 1, 0], true).await;
        check_first_record(&[22, 3, 1, 0, 4, 1, 2, 3], true).await;
        check_first_record(&[22, 3, 1, 0, 4, 1, 2, 3, 4], false).await;
        check_first_record(b"GET / HTTP/1.1", false).await;
        check_first_record(&[22, 3, 1, 0xff, 0xff], false).await;
    }

    /// How long a client keeps its turn that does something 80 ms after the hub's signature.
    async fn kept(act: impl AsyncFnOnce(oneshot::Sender<()>, Connection<DuplexStream, ()>)) -> u128 {
        let (turns, begun) = (Turns::new(1), Instant::now());
        let (mut client, stream) = duplex(1024);
        let activity = Arc::new(Activity::new());
        let (let_in, is_let_in) = oneshot::channel();
        tokio::spawn(keep_until_arrived(turns.next(()).await, is_let_in, Arc::downgrade(&activity)));
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut connection = Connection::new(stream, (), activity, false);
        assert!(connection.read(&mut [0; 64]).await.is_ok());
        let acting = async {
            sleep(Duration::from_millis(80)).await;
            act(let_in, connection).await;
        };
        let next = async {
            let _next = turns.next(()).await;
            begun.elapsed().as_millis()
        };
        tokio::join!(acting, next).1
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_keeps_its_turn_until_it_watches_or_has_gone_and_no_slow_one_for_long() {
        let whole = async || sleep(Duration::from_secs(60)).await;
        assert_eq!(kept(async |_let_in, _connection| whole().await).await, 100, "it is not let in");
        assert_eq!(kept(async |let_in, _connection| drop(let_in)).await, 80, "it is refused");
        let slow = kept(async |let_in, _connection| {
            let_in.send(()).unwrap();
            whole().await;
        });
        assert_eq!(slow.await, 330, "it asks for something else");
        let gone = kept(async |let_in, connection| {
            let_in.send(()).unwrap();
            drop(connection);
        });
        assert!((80..=100).contains(&gone.await));
        let watching = kept(async |let_in, mut connection| {
            let_in.send(()).unwrap();
            connection.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").await.unwrap();
            whole().await;
        });
        assert!((80..=100).contains(&watching.await));
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
