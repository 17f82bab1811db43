//! The connections of a hub: how many there may be, and how long each may stay silent.
//!
//! Every connection takes a file descriptor. A hub without one could neither accept connections nor open files, so it has
//! fewer places for connections than descriptors. A part of the places is a reserve, on which only `/healthz` and
//! `/metrics` are answered. When all are taken, the connection that has been silent for the longest time since it was
//! accepted gives way to the next.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use futures_util::task::AtomicWaker;
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// The descriptors that the hub itself needs: its log, its listener, its database, and some to spare.
const OWN_FILES: usize = 32;
/// The places on which only health and metrics are answered, where there are enough descriptors.
const RESERVE: usize = 16;
/// More places than any machine has descriptors.
const MAX_PLACES: usize = 1 << 24;
/// How long a client may take from its connection to the end of its first request.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a connection may go without an answer or a ping of the hub. It is longer than clients keep an idle
/// connection, so that none of them sends a request into one that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the hub waits after it could not accept a connection.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// How often the log repeats that connections are too many.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Where a connection comes from, and what it may be used for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    pub(super) address: SocketAddr,
    /// Whether it has a place of the reserve.
    pub(super) is_reserve: bool,
}

impl Connected<IncomingStream<'_, Connections>> for Client {
    fn connect_info(stream: IncomingStream<'_, Connections>) -> Self {
        *stream.remote_addr()
    }
}

/// Accepts connections and gives each a place.
pub(super) struct Connections {
    listener: TcpListener,
    ordinary: Arc<Semaphore>,
    reserve: Arc<Semaphore>,
    /// Connections that may still be without a request, the oldest first.
    silent: VecDeque<Arc<Silence>>,
    warnings: Warnings,
}

impl Connections {
    /// Serves a listener within this process's limit of open files.
    pub(super) fn new(listener: TcpListener) -> Self {
        let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
        let (ordinary, reserve) = places(files.unwrap_or(MAX_PLACES));
        let semaphore = |places| Arc::new(Semaphore::new(places));
        Self {
            listener,
            ordinary: semaphore(ordinary),
            reserve: semaphore(reserve),
            silent: VecDeque::new(),
            warnings: Warnings::default(),
        }
    }

    async fn next(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => return accepted,
                // The client has gone already.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if self.warnings.is_due() {
                        tracing::warn!(%error, "cannot accept connections");
                    }
                    sleep(ACCEPT_RETRY_INTERVAL).await;
                }
            }
        }
    }

    /// Returns a place, and whether it is one of the reserve.
    async fn place(&mut self) -> (OwnedSemaphorePermit, bool) {
        if let Ok(place) = Arc::clone(&self.ordinary).try_acquire_owned() {
            return (place, false);
        }
        if self.warnings.is_due() {
            tracing::warn!(
                "all connections that the limit of open files allows are taken: further ones are answered for \
                 /healthz and /metrics only, and silent ones are closed"
            );
        }
        loop {
            if let Ok(place) = Arc::clone(&self.reserve).try_acquire_owned() {
                return (place, true);
            }
            self.close_a_silent_one();
            let (ordinary, reserve) = (Arc::clone(&self.ordinary), Arc::clone(&self.reserve));
            tokio::select! {
                biased;
                Ok(place) = ordinary.acquire_owned() => return (place, false),
                Ok(place) = reserve.acquire_owned() => return (place, true),
                // A connection that was closed has not given up its place yet, or has sent its request just then.
                () = sleep(ACCEPT_RETRY_INTERVAL) => {}
            }
        }
    }

    fn close_a_silent_one(&mut self) {
        while let Some(oldest) = self.silent.pop_front() {
            if oldest.close() {
                return;
            }
        }
    }
}

impl Listener for Connections {
    type Io = Connection<TcpStream>;
    type Addr = Client;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = self.next().await;
        // Without TCP_NODELAY an answer may wait for the acknowledgement of the previous one.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let (place, is_reserve) = self.place().await;
        let silence = Arc::new(Silence::default());
        // The list is short in a hub whose clients speak at once.
        self.silent.retain(|silence| silence.lasts());
        self.silent.push_back(Arc::clone(&silence));
        (Connection::new(stream, Some(place), silence), Client { address, is_reserve })
    }

    fn local_addr(&self) -> io::Result<Client> {
        Ok(Client { address: self.listener.local_addr()?, is_reserve: false })
    }
}

/// The ordinary places and those of the reserve, of a process that may open so many files.
fn places(files: usize) -> (usize, usize) {
    let all = files.saturating_sub(OWN_FILES).clamp(2, MAX_PLACES);
    let reserve = RESERVE.min(all / 4).max(1);
    (all - reserve, reserve)
}

/// Limits how often the log says the same.
#[derive(Debug, Default)]
struct Warnings {
    latest: Option<Instant>,
}

impl Warnings {
    fn is_due(&mut self) -> bool {
        let is_due = self.latest.is_none_or(|latest| latest.elapsed() >= WARNING_INTERVAL);
        if is_due {
            self.latest = Some(Instant::now());
        }
        is_due
    }
}

/// That nothing has been received on a connection yet.
#[derive(Debug, Default)]
struct Silence {
    state: Mutex<SilenceState>,
    task: AtomicWaker,
    /// Whether the connection has ended.
    is_over: AtomicBool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum SilenceState {
    #[default]
    Lasts,
    Broken,
    Closed,
}

impl Silence {
    fn state(&self) -> SilenceState {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state of a connection that is silent. Returns whether it was.
    fn end(&self, state: SilenceState) -> bool {
        let mut known = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let lasted = *known == SilenceState::Lasts;
        if lasted {
            *known = state;
        }
        lasted
    }

    fn lasts(&self) -> bool {
        self.state() == SilenceState::Lasts && !self.is_over.load(Ordering::Relaxed)
    }

    /// Makes the connection end, if nothing has been received on it. Returns whether that is so.
    fn close(&self) -> bool {
        let is_closed = !self.is_over.load(Ordering::Relaxed) && self.end(SilenceState::Closed);
        if is_closed {
            self.task.wake();
        }
        is_closed
    }
}

/// A connection that ends if its client takes too long. Its place is free again when it is dropped, also if it has become
/// a WebSocket meanwhile.
pub(super) struct Connection<S> {
    stream: S,
    /// When it ends unless the hub has written something by then.
    deadline: Pin<Box<Sleep>>,
    silence: Arc<Silence>,
    _place: Option<OwnedSemaphorePermit>,
}

impl<S> Connection<S> {
    fn new(stream: S, place: Option<OwnedSemaphorePermit>, silence: Arc<Silence>) -> Self {
        let deadline = Box::pin(sleep_until(Instant::now() + FIRST_REQUEST_TIMEOUT));
        Self { stream, deadline, silence, _place: place }
    }

    /// Returns the error of a connection that has to end.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        self.silence.task.register(context.waker());
        let is_closed = self.silence.state() == SilenceState::Closed;
        if is_closed || self.deadline.as_mut().poll(context).is_ready() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// Notes the result of a write.
    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(_))) {
            self.deadline.as_mut().reset(Instant::now() + IDLE_TIMEOUT);
        }
        written
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        self.silence.is_over.store(true, Ordering::Relaxed);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.silence.end(SilenceState::Broken);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn connection() -> (DuplexStream, Connection<DuplexStream>, Arc<Silence>) {
        let (client, hub) = duplex(64);
        let silence = Arc::new(Silence::default());
        (client, Connection::new(hub, None, Arc::clone(&silence)), silence)
    }

    #[test]
    fn there_are_fewer_places_than_files_and_a_reserve() {
        assert_eq!(places(1024), (976, 16));
        assert_eq!(places(64), (24, 8));
        assert_eq!(places(0), (1, 1));
        assert_eq!(places(usize::MAX), (MAX_PLACES - 16, 16));
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_request_that_trickles_in_ends_the_connection() {
        let (mut client, mut hub, _) = connection();
        let since = Instant::now();
        let trickle = async {
            while client.write_all(b"x").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        };
        let reading = async move {
            let mut bytes = [0; 8];
            while hub.read(&mut bytes).await.is_ok() {}
        };
        tokio::join!(trickle, reading);
        assert_eq!(since.elapsed().as_secs(), FIRST_REQUEST_TIMEOUT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answered_connection_may_be_idle_for_longer_and_a_ping_keeps_it() {
        let (mut client, mut hub, _) = connection();
        let mut bytes = [0; 8];
        client.write_all(b"request").await.unwrap();
        assert_eq!(hub.read(&mut bytes).await.unwrap(), 7);
        for _ in 0..10 {
            hub.write_all(b"ping").await.unwrap();
            assert_eq!(client.read(&mut bytes).await.unwrap(), 4);
            sleep(IDLE_TIMEOUT / 2).await;
        }
        let since = Instant::now();
        assert_eq!(hub.read(&mut bytes).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(since.elapsed(), IDLE_TIMEOUT / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_does_not_keep_its_connection() {
        let (_client, mut hub, _) = connection();
        let error = hub.write_all(&[0; 128]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_silent_connection_gives_way() {
        let (mut client, mut hub, silence) = connection();
        let mut bytes = [0; 8];
        client.write_all(b"x").await.unwrap();
        assert_eq!(hub.read(&mut bytes).await.unwrap(), 1);
        assert!(!silence.lasts() && !silence.close());

        let (_client, mut hub, silence) = connection();
        let since = Instant::now();
        let closing = async {
            sleep(Duration::from_secs(1)).await;
            assert!(silence.close());
        };
        let (read, ()) = tokio::join!(hub.read(&mut bytes), closing);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(since.elapsed().as_secs(), 1);
    }
}
