//! One connection of a hub: what it does at the moment, and when it ends.
//!
//! A connection is idle until the end of a request's head has been received, and again once the request is answered. Only
//! an idle one gives way to another. A client that sends a part of a head and no more stays idle.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a client may take from its connection to the end of its first request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a connection may go without a byte of a request's body, an answer, or a ping of the hub. It is longer than
/// clients keep an idle connection, so that none of them sends a request into one that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a request may take from the end of its head to its answer. Clients give up earlier: after 20 s and 4 s for
/// each of at most 64 MiB.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(600);
/// How long the client of a brief connection may take to the end of its request's head.
const BRIEF_HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a brief connection has after that. The answer about health may take 2 s.
const BRIEF_ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// What a connection does, as the listener sees it.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
    task: AtomicWaker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No request is complete in its head, since the connection or since the latest answer.
    Idle(Instant),
    /// A request is received or answered.
    Busy,
    /// It is no longer HTTP.
    WebSocket,
    /// It has ended, or has to.
    Over,
}

impl Activity {
    /// A connection that begins.
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State::Idle(Instant::now())), task: AtomicWaker::new() }
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state of a connection that is not over.
    fn change(&self, state: State) {
        let mut known = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != State::Over {
            *known = state;
        }
    }

    /// Since when the connection is idle, if it is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        match self.state() {
            State::Idle(since) => Some(since),
            State::Busy | State::WebSocket | State::Over => None,
        }
    }

    /// Whether the connection may still become idle.
    pub(super) fn is_http(&self) -> bool {
        !matches!(self.state(), State::WebSocket | State::Over)
    }

    /// Whether the connection has ended, or has to.
    pub(super) fn is_over(&self) -> bool {
        self.state() == State::Over
    }

    /// Completes when the connection has to end. One task at a time may wait for it.
    pub(super) async fn over(&self) {
        poll_fn(|context| {
            self.task.register(context.waker());
            if self.is_over() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Ends the connection, whatever it does.
    pub(super) fn close(&self) {
        self.change(State::Over);
        self.task.wake();
    }

    /// Ends the connection if it is idle. Returns whether it was.
    pub(super) fn give_way(&self) -> bool {
        let mut known = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_idle = matches!(*known, State::Idle(_));
        if is_idle {
            *known = State::Over;
            drop(known);
            self.task.wake();
        }
        is_idle
    }
}

/// Finds the end of a request's head: an empty line after others.
#[derive(Debug, Default)]
struct Head {
    has_begun: bool,
    line_ends: u8,
}

impl Head {
    fn ends_in(&mut self, bytes: &[u8]) -> bool {
        for byte in bytes {
            match byte {
                // Empty lines before a request do not belong to it.
                b'\n' if self.has_begun => self.line_ends += 1,
                b'\r' | b'\n' => {}
                _ => *self = Self { has_begun: true, line_ends: 0 },
            }
            if self.line_ends == 2 {
                *self = Self::default();
                return true;
            }
        }
        false
    }
}

/// A connection that ends if its client takes too long. What it holds, such as its place, is dropped with it, also if it
/// has become a WebSocket meanwhile.
pub(super) struct Connection<S, H> {
    stream: S,
    deadline: Pin<Box<Sleep>>,
    /// When the request in progress ends at the latest.
    request_ends: Instant,
    head: Head,
    activity: Arc<Activity>,
    is_brief: bool,
    /// Whether bytes of an answer wait for the client to read.
    is_unflushed: bool,
    _held: H,
}

impl<S, H> Connection<S, H> {
    /// A connection that holds something. A brief one answers one short question.
    pub(super) fn new(stream: S, held: H, activity: Arc<Activity>, is_brief: bool) -> Self {
        let ends = Instant::now() + if is_brief { BRIEF_HEAD_TIMEOUT } else { HEAD_TIMEOUT };
        let deadline = Box::pin(sleep_until(ends));
        Self {
            stream,
            deadline,
            request_ends: ends,
            head: Head::default(),
            activity,
            is_brief,
            is_unflushed: false,
            _held: held,
        }
    }

    /// Returns the error of a connection that has to end.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        self.activity.task.register(context.waker());
        if self.activity.state() == State::Over || self.deadline.as_mut().poll(context).is_ready() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// Notes what was read.
    fn received(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let now = Instant::now();
        match self.activity.state() {
            State::Idle(_) if self.head.ends_in(bytes) => {
                self.activity.change(State::Busy);
                let most = if self.is_brief { BRIEF_ANSWER_TIMEOUT } else { REQUEST_TIMEOUT };
                self.request_ends = now + most;
            }
            State::Busy => {}
            State::Idle(_) | State::WebSocket | State::Over => return,
        }
        self.deadline.as_mut().reset(self.request_ends.min(now + IDLE_TIMEOUT));
    }

    /// Notes the result of a write.
    fn wrote(&mut self, written: &Poll<io::Result<usize>>, bytes: &[u8]) {
        match written {
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(_)) => return,
            // A client that reads slowly is not idle.
            Poll::Pending if self.activity.idle_since().is_some() => {
                return self.activity.change(State::Busy);
            }
            Poll::Pending => return,
        }
        let now = Instant::now();
        match self.activity.state() {
            // The body of the request follows.
            State::Busy if bytes.starts_with(b"HTTP/1.1 100 ") => {}
            State::Busy if bytes.starts_with(b"HTTP/1.1 101 ") => self.activity.change(State::WebSocket),
            State::Busy | State::Idle(_) => self.activity.change(State::Idle(now)),
            State::WebSocket | State::Over => {}
        }
        self.is_unflushed = true;
        if self.is_brief {
            return;
        }
        let ends = match self.activity.state() {
            // A client that reads an answer byte by byte has no more time than for the whole request.
            State::Busy | State::Idle(_) => self.request_ends.min(now + IDLE_TIMEOUT),
            State::WebSocket | State::Over => now + IDLE_TIMEOUT,
        };
        self.deadline.as_mut().reset(ends);
    }

    /// Notes that the client's system has taken all that was written.
    fn flushed(&mut self) {
        if std::mem::take(&mut self.is_unflushed) && !self.is_brief {
            self.deadline.as_mut().reset(Instant::now() + IDLE_TIMEOUT);
        }
    }
}

impl<S, H> Drop for Connection<S, H> {
    fn drop(&mut self) {
        self.activity.change(State::Over);
    }
}

impl<S: AsyncRead + Unpin, H: Unpin> AsyncRead for Connection<S, H> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.received(&buffer.filled()[before..]);
        read
    }
}

impl<S: AsyncWrite + Unpin, H: Unpin> AsyncWrite for Connection<S, H> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(&written, bytes);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.wrote(&written, bytes.iter().find(|part| !part.is_empty()).map_or(&[], |part| part));
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            self.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::sleep;

    use super::*;

    const HEAD: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

    fn connection(is_brief: bool) -> (DuplexStream, Connection<DuplexStream, ()>, Arc<Activity>) {
        let (client, hub) = duplex(64);
        let activity = Arc::new(Activity::new());
        (client, Connection::new(hub, (), Arc::clone(&activity), is_brief), activity)
    }

    async fn send(client: &mut DuplexStream, hub: &mut Connection<DuplexStream, ()>, bytes: &[u8]) {
        client.write_all(bytes).await.unwrap();
        assert_eq!(hub.read(&mut [0; 64]).await.unwrap(), bytes.len());
    }

    async fn answer(client: &mut DuplexStream, hub: &mut Connection<DuplexStream, ()>, bytes: &[u8]) {
        hub.write_all(bytes).await.unwrap();
        assert_eq!(client.read(&mut [0; 64]).await.unwrap(), bytes.len());
    }

    /// Sends `begin`, and then a byte each second. Returns how many seconds the connection lasts.
    async fn seconds_of_trickle(is_brief: bool, begin: &[u8]) -> u64 {
        let (mut client, mut hub, _) = connection(is_brief);
        let since = Instant::now();
        client.write_all(begin).await.unwrap();
        let trickle = async {
            while client.write_all(b"x").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        };
        let reading = async move {
            let mut bytes = [0; 8];
            while hub.read(&mut bytes).await.is_ok() {}
            since.elapsed().as_secs()
        };
        tokio::join!(trickle, reading).1
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_head_that_trickles_in_ends_the_connection() {
        assert_eq!(seconds_of_trickle(false, b"").await, 15);
        assert_eq!(seconds_of_trickle(true, b"").await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn each_byte_of_a_body_extends_the_deadline_up_to_more_than_any_client_takes() {
        assert_eq!(seconds_of_trickle(false, HEAD).await, REQUEST_TIMEOUT.as_secs());
        assert_eq!(seconds_of_trickle(true, HEAD).await, BRIEF_ANSWER_TIMEOUT.as_secs());
        let mebibytes = trigger_store::hub_protocol::MAX_BODY_BYTES as u64 / 1024 / 1024;
        assert!(REQUEST_TIMEOUT.as_secs() > 20 + 4 * mebibytes);

        let (mut client, mut hub, _) = connection(false);
        send(&mut client, &mut hub, HEAD).await;
        send(&mut client, &mut hub, b"x").await;
        let since = Instant::now();
        assert_eq!(hub.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(since.elapsed(), IDLE_TIMEOUT, "without a further byte");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answered_connection_may_be_idle_for_longer_and_a_ping_keeps_it() {
        let (mut client, mut hub, _) = connection(false);
        send(&mut client, &mut hub, HEAD).await;
        for _ in 0..10 {
            answer(&mut client, &mut hub, b"ping").await;
            sleep(IDLE_TIMEOUT / 2).await;
        }
        let since = Instant::now();
        assert_eq!(hub.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(since.elapsed(), IDLE_TIMEOUT / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_does_not_keep_its_connection() {
        let (_client, mut hub, activity) = connection(false);
        let error = hub.write_all(&[0; 128]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(activity.idle_since().is_none(), "meanwhile it is not idle");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_an_answer_byte_by_byte_has_no_more_time_than_for_a_request() {
        let (mut client, mut hub, _) = connection(false);
        send(&mut client, &mut hub, HEAD).await;
        let since = Instant::now();
        let reading = async {
            while client.read_u8().await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        };
        let writing = async move {
            let error = hub.write_all(&[0; 1024]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            since.elapsed().as_secs()
        };
        assert_eq!(tokio::join!(reading, writing).1, REQUEST_TIMEOUT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_closed_ends_whatever_it_does() {
        for begin in [&b""[..], HEAD, b"GET"] {
            let (mut client, mut hub, activity) = connection(false);
            client.write_all(begin).await.unwrap();
            let closing = async {
                sleep(Duration::from_secs(1)).await;
                activity.close();
            };
            let reading = async { while hub.read(&mut [0; 64]).await.is_ok() {} };
            let since = Instant::now();
            tokio::join!(reading, closing);
            assert_eq!(since.elapsed().as_secs(), 1);
            assert!(hub.write_all(b"answer").await.is_err() && activity.is_over());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_gives_way_before_the_end_of_a_head_and_after_the_answer() {
        let (mut client, mut hub, activity) = connection(false);
        let begun = activity.idle_since().unwrap();
        sleep(Duration::from_secs(1)).await;
        send(&mut client, &mut hub, b"\r\n\r\nGET / HTTP/1.1\r\n").await;
        assert_eq!(activity.idle_since(), Some(begun), "a part of a head is no request");
        send(&mut client, &mut hub, b"\r\n").await;
        assert!(activity.idle_since().is_none() && !activity.give_way());
        answer(&mut client, &mut hub, b"HTTP/1.1 100 Continue\r\n\r\n").await;
        send(&mut client, &mut hub, b"body").await;
        assert!(!activity.give_way());
        answer(&mut client, &mut hub, b"HTTP/1.1 200 OK\r\n\r\n").await;
        assert_eq!(activity.idle_since(), Some(Instant::now()));

        let since = Instant::now();
        let closing = async {
            sleep(Duration::from_secs(1)).await;
            assert!(activity.give_way());
        };
        let mut bytes = [0; 8];
        let (read, ()) = tokio::join!(hub.read(&mut bytes), closing);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(since.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_web_socket_never_gives_way() {
        let (mut client, mut hub, activity) = connection(false);
        send(&mut client, &mut hub, HEAD).await;
        answer(&mut client, &mut hub, b"HTTP/1.1 101 Switching Protocols\r\n\r\n").await;
        send(&mut client, &mut hub, HEAD).await;
        answer(&mut client, &mut hub, b"message").await;
        assert!(!activity.is_http() && !activity.give_way());
        assert!(hub.activity.state() == State::WebSocket);
    }
}
