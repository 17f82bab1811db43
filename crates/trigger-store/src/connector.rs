//! Connections to a backend's servers, for every client that speaks to one.
//!
//! Whether they are plain or encrypted is decided here and nowhere else: clients get a stream of bytes and do not know.
//! So is how long it may take to look up a server and to connect to it.

mod lookup;
mod tls;

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::Uri;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::{Connected, Connection as HttpConnection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::{Instant, sleep, timeout};
use tower_service::Service;
use trigger_core::duration;

use self::lookup::{Lookup, LookupError};
pub(crate) use self::tls::is_refused_handshake;
use self::tls::{Refusal, Tls, TlsConnection};
use crate::address::Address;
use crate::backend::OpenError;
use crate::credentials::Credentials;
use crate::kind::{BackendUrl, Transport};
use crate::step_limit::StepLimit;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The first limit of a connection: a server that has not answered the first packets by then is behind a slow line, or
/// gone.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// The longest limit of a connection.
const LONGEST_CONNECT_LIMIT: Duration = Duration::from_secs(12);
/// How often a connection is begun again beside those that are not answered, since the kernel repeats a lost first
/// packet later and later, and the server may be back.
const CONNECT_AGAIN_INTERVAL: Duration = Duration::from_secs(1);
/// How long what was made ahead may wait for its request. The server may have closed it after that, which a request would
/// notice too late.
const PREPARED_LIFETIME: Duration = Duration::from_millis(500);
/// How long a lookup or a connection may take before it is logged as slow.
const SLOW_AFTER: Duration = Duration::from_secs(1);
/// How often it is looked whether a connection is still being made.
const CONNECTING_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Dials servers. Clones share the configuration and what is known of the servers.
#[derive(Debug, Clone)]
pub struct Connector {
    security: Security,
    keep_alive: Option<Duration>,
    servers: Arc<Mutex<HashMap<String, Arc<Server>>>>,
    /// How many connections this connector and its clones are making.
    connecting: Arc<watch::Sender<usize>>,
    refusal: Refusal,
    /// The attempt that was made ahead of the request that needs it, and has not been used yet.
    prepared: Arc<AsyncMutex<Option<Prepared>>>,
}

/// An attempt to connect, and its end.
type Prepared = (Result<Connection, BoxError>, Instant);

/// The layer on top of a TCP connection.
#[derive(Debug, Clone)]
enum Security {
    /// Nothing.
    Plain,
    /// TLS, with the node's certificates.
    Tls(Tls),
}

/// What is known of one server from earlier attempts to reach it.
#[derive(Debug)]
struct Server {
    name: String,
    lookup: Lookup,
    limit: StepLimit,
    /// How long the latest connection took, in milliseconds: about one round trip.
    round_trip_ms: AtomicU64,
    /// Whether its slowness has been logged.
    is_slow: AtomicBool,
}

/// No connection was made.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("no connection within {}", duration::format_short(*limit))]
    TimedOut { limit: Duration },
}

/// Counts a connection that is being made, for as long as it lives.
pub(crate) struct Connecting(Arc<watch::Sender<usize>>);

impl Drop for Connecting {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Connector {
    /// A connector for the servers of `url`, with which `protocol` is spoken (its name in ALPN).
    ///
    /// # Errors
    /// [`OpenError::NoCertificates`] when the URL's scheme asks for TLS and no certificates are known.
    pub fn new(
        url: &BackendUrl,
        credentials: &Credentials,
        protocol: &'static [u8],
    ) -> Result<Self, OpenError> {
        let security = match (url.scheme().transport, &credentials.tls) {
            // A plain connection proves nothing about either end, so no credentials go into it.
            (Transport::Plain, _) => Security::Plain,
            (Transport::Tls, Some(certificates)) => Security::Tls(Tls::new(certificates.clone(), protocol)),
            (Transport::Tls, None) => return Err(OpenError::NoCertificates { url: url.to_string() }),
        };
        Ok(Self {
            security,
            keep_alive: None,
            servers: Arc::default(),
            connecting: Arc::default(),
            refusal: Refusal::default(),
            prepared: Arc::default(),
        })
    }

    /// A connector that shares all but what concerns single connections: for one connection, whose requests must not
    /// wait for the making of another.
    pub(crate) fn separate(&self) -> Self {
        Self {
            connecting: Arc::default(),
            refusal: Refusal::default(),
            prepared: Arc::default(),
            ..self.clone()
        }
    }

    /// Why the server refused the latest connection after it was made, before it read anything that was sent on it, if it
    /// did. HTTP/2 loses the reason.
    pub(crate) fn refusal(&self) -> Option<String> {
        self.refusal.get()
    }

    /// Whether this connector or a clone of it is making a connection.
    pub(crate) fn is_connecting(&self) -> bool {
        *self.connecting.borrow() > 0
    }

    /// The number of connections that this connector and its clones are making.
    pub(crate) fn connecting(&self) -> watch::Receiver<usize> {
        self.connecting.subscribe()
    }

    /// Lets the kernel probe a connection that was idle for `interval`.
    #[must_use]
    pub fn with_keep_alive(mut self, interval: Duration) -> Self {
        self.keep_alive = Some(interval);
        self
    }

    /// The scheme of HTTP's own URIs that fits these connections.
    pub fn http_scheme(&self) -> &'static str {
        match self.security {
            Security::Plain => "http",
            Security::Tls(_) => "https",
        }
    }

    /// Connects to a server.
    ///
    /// # Errors
    /// That its name cannot be looked up, or that no connection was made, with the error of the resolver or the kernel
    /// innermost in the chain of sources. An error for lack of time says which of the two was slow. An error of TLS says
    /// who is at fault and what mends it.
    pub async fn connect(&self, address: &Address) -> Result<Connection, BoxError> {
        self.dial(&self.server(address.host(), address.port())).await
    }

    /// Connects to the one server of this connector ahead of the request that needs it, which waits for this attempt and has its
    /// result.
    pub(crate) async fn prepare(&self, address: &Address) {
        let mut prepared = self.prepared.lock().await;
        let attempt = self.dial(&self.server(address.host(), address.port())).await;
        *prepared = Some((attempt, Instant::now()));
    }

    /// Waits for the answer of a server to a request that has its connection. A server that is far away has the time of two round
    /// trips more.
    ///
    /// # Errors
    /// The limit, if it ran out.
    pub(crate) async fn await_answer<T>(
        &self,
        address: &Address,
        limit: &StepLimit,
        extra: Duration,
        answer: impl Future<Output = T>,
    ) -> Result<T, Duration> {
        limit.bound_with(extra + 2 * self.round_trip(address), answer).await
    }

    /// The same where the request may have to wait for a connection, and nothing says when it has it. The time in which this
    /// connector makes one does not count: that has its own limits.
    ///
    /// # Errors
    /// The limit, if it ran out.
    pub(crate) async fn connect_and_await_answer<T>(
        &self,
        address: &Address,
        limit: &StepLimit,
        answer: impl Future<Output = T>,
    ) -> Result<T, Duration> {
        let mut answer = pin!(answer);
        let own_limit = limit.current();
        let mut waited = Duration::ZERO;
        loop {
            let whole_limit = own_limit + 2 * self.round_trip(address);
            let left = whole_limit.saturating_sub(waited);
            if left.is_zero() {
                limit.ran_out(own_limit);
                return Err(whole_limit);
            }
            let begun = Instant::now();
            if let Ok(answer) = timeout(left.min(CONNECTING_POLL_INTERVAL), &mut answer).await {
                limit.sufficed(waited + begun.elapsed());
                return Ok(answer);
            }
            if !self.is_connecting() {
                waited += begun.elapsed();
            }
        }
    }

    fn round_trip(&self, address: &Address) -> Duration {
        let server = self.server(address.host(), address.port());
        Duration::from_millis(server.round_trip_ms.load(Ordering::Relaxed))
    }

    /// Counts a connection as one that is being made.
    pub(crate) fn count_connecting(&self) -> Connecting {
        self.connecting.send_modify(|count| *count += 1);
        Connecting(Arc::clone(&self.connecting))
    }

    fn server(&self, host: &str, port: u16) -> Arc<Server> {
        let name = format!("{host}:{port}");
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let server = servers.entry(name.clone()).or_insert_with(|| {
            Arc::new(Server {
                name,
                lookup: Lookup::new(host, port),
                limit: StepLimit::new(CONNECT_LIMIT, LONGEST_CONNECT_LIMIT),
                round_trip_ms: AtomicU64::new(0),
                is_slow: AtomicBool::new(false),
            })
        });
        Arc::clone(server)
    }

    async fn dial(&self, server: &Arc<Server>) -> Result<Connection, BoxError> {
        let _connecting = self.count_connecting();
        let begun = Instant::now();
        let addresses = server.lookup.addresses().await?;
        let looked_up = begun.elapsed();
        let stream = match server.limit.bound(self.connect_to(&addresses, server.limit.current())).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                server.lookup.doubt();
                return Err(error);
            }
            Err(limit) => {
                server.lookup.doubt();
                return Err(ConnectError::TimedOut { limit }.into());
            }
        };
        let connected = begun.elapsed() - looked_up;
        server.round_trip_ms.store(connected.as_millis().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
        server.log_slowness(looked_up, connected);
        match &self.security {
            Security::Plain => Ok(Connection::Plain(stream)),
            Security::Tls(tls) => {
                Ok(Connection::Tls(Box::new(tls.connect(stream, &server.name, &self.refusal).await?)))
            }
        }
    }

    /// Connects to the first of some addresses that accepts, and begins again beside it while none does.
    async fn connect_to(&self, addresses: &[SocketAddr], limit: Duration) -> Result<TcpStream, BoxError> {
        let mut tcp = HttpConnector::new_with_resolver(LookedUp(addresses.to_vec()));
        tcp.set_nodelay(true);
        tcp.set_keepalive(self.keep_alive);
        // Divided among the addresses. The caller's own limit runs out before the last of them.
        tcp.set_connect_timeout(Some(limit + limit / 4));
        let mut attempts = FuturesUnordered::new();
        loop {
            // The name only stands for the addresses.
            attempts.push(tcp.call(Uri::from_static("http://server")));
            tokio::select! {
                biased;
                Some(attempt) = attempts.next() => return Ok(attempt?.into_inner()),
                () = sleep(CONNECT_AGAIN_INTERVAL) => {}
            }
        }
    }
}

impl Server {
    /// Logs once that a step was slow, until it is fast again.
    fn log_slowness(&self, looked_up: Duration, connected: Duration) {
        let (step, took) =
            if looked_up >= connected { ("name lookup", looked_up) } else { ("connection", connected) };
        let is_slow = took >= SLOW_AFTER;
        if is_slow && !self.is_slow.load(Ordering::Relaxed) {
            let took = duration::format_short(took);
            tracing::warn!(server = self.name, step, took, "a server is slow to reach");
        }
        self.is_slow.store(is_slow, Ordering::Relaxed);
    }
}

/// The resolver of a name that was looked up before.
#[derive(Debug, Clone)]
struct LookedUp(Vec<SocketAddr>);

impl Service<Name> for LookedUp {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = LookupError;
    type Future = std::future::Ready<Result<Self::Response, LookupError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), LookupError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        std::future::ready(Ok(self.0.clone().into_iter()))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or_default());
            let server = connector.server(host, port);
            let prepared = connector.prepared.lock().await.take();
            let connection = match prepared {
                Some((attempt, at)) if at.elapsed() < PREPARED_LIFETIME => attempt?,
                _ => connector.dial(&server).await?,
            };
            Ok(TokioIo::new(connection))
        })
    }
}

/// A stream of bytes to a server.
#[derive(Debug)]
pub enum Connection {
    /// In the clear.
    Plain(TcpStream),
    /// Encrypted, between two ends that have verified each other.
    Tls(Box<TlsConnection>),
}

/// Calls a method of the stream within, whichever it is.
macro_rules! with_stream {
    ($connection:expr, $stream:ident => $call:expr) => {
        match $connection.get_mut() {
            Connection::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Connection::Tls(stream) => {
                let $stream = Pin::new(&mut **stream);
                $call
            }
        }
    };
}

impl HttpConnection for Connection {
    fn connected(&self) -> Connected {
        match self {
            Self::Plain(stream) => stream.connected(),
            Self::Tls(stream) => stream.tcp().connected(),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        with_stream!(self, stream => stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        with_stream!(self, stream => stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        with_stream!(self, stream => stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_stream!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_stream!(self, stream => stream.poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::backend::Backend;
    use crate::hub::HubStore;
    use crate::store::{KeyRange, Store};

    #[tokio::test]
    async fn a_request_is_given_up_in_time_while_another_connection_is_made() {
        for scheme in ["hub+http", "etcd"] {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            // The kernel accepts one connection on behalf of the server, and answers no other.
            let server = socket.listen(0).unwrap();
            let address = server.local_addr().unwrap();
            let url: BackendUrl = format!("{scheme}://{address}").parse().unwrap();
            // A hub's watch would wait for the put: what else is being connected is a connection of the same connector.
            let connector = Connector::new(&url, &Credentials::default(), b"http/1.1").unwrap();
            let backend = Backend::open(&url, &Credentials::default()).unwrap();
            let store: Arc<dyn Store> = match scheme {
                "etcd" => Arc::clone(backend.store().unwrap()),
                _ => Arc::new(HubStore::new(&url, connector.clone())),
            };
            let mut put = store.put_many(vec![("a".to_owned(), "1".to_owned())]);
            let _silent = tokio::select! {
                result = &mut put => panic!("{scheme}: {result:?}"),
                accepted = server.accept() => accepted.unwrap(),
            };
            let _fills_the_backlog = TcpStream::connect(address).await.unwrap();
            tokio::select! {
                biased;
                result = put => assert!(result[0].is_err(), "{scheme}: {result:?}"),
                watch = store.watch(vec![KeyRange::Key("a".to_owned())]), if scheme == "etcd" => {
                    panic!("{scheme}: the watch ended first: {:?}", watch.err());
                }
                other = connector.connect(&url.addresses()[0]), if scheme != "etcd" => {
                    panic!("{scheme}: the connection ended first: {:?}", other.err());
                }
            }
        }
    }

    #[tokio::test]
    async fn an_attempt_made_ahead_is_that_of_the_next_request_only() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let local = socket.local_addr().unwrap();
        let url: BackendUrl = format!("hub+http://{local}").parse().unwrap();
        let uri: Uri = format!("http://{local}").parse().unwrap();
        let address = &url.addresses()[0];
        let mut connector = Connector::new(&url, &Credentials::default(), b"http/1.1").unwrap();
        connector.prepare(address).await;
        let listener = socket.listen(8).unwrap();
        assert!(connector.call(uri.clone()).await.is_err(), "its failure is that of the request");
        let port_of = |connection: TokioIo<Connection>| match connection.inner() {
            Connection::Plain(stream) => stream.local_addr().unwrap().port(),
            Connection::Tls(_) => unreachable!("the URL is plain"),
        };
        // Each is used at once: it is good for a moment only.
        connector.prepare(address).await;
        let used = port_of(connector.call(uri.clone()).await.unwrap());
        assert_eq!(used, listener.accept().await.unwrap().1.port());
        assert_ne!(used, port_of(connector.call(uri.clone()).await.unwrap()), "it is used once");
        listener.accept().await.unwrap();
        connector.prepare(address).await;
        let other = port_of(connector.separate().call(uri).await.unwrap());
        let prepared = listener.accept().await.unwrap().1.port();
        assert_ne!(other, prepared, "it is that of its own connector");
    }

    #[tokio::test]
    async fn a_plain_url_gives_a_plain_stream() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: BackendUrl = format!("hub+http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let connector = Connector::new(&url, &Credentials::default(), b"h2").unwrap();
        let mut connection = connector.connect(&url.addresses()[0]).await.unwrap();
        connection.write_all(b"hello").await.unwrap();
        let mut received = [0; 5];
        listener.accept().await.unwrap().0.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"hello");
    }
}
