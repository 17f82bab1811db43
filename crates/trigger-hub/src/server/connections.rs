//! The connections of a hub: how many there may be, and which gives way to another.
//!
//! Every connection takes a file descriptor. A hub without one could neither accept connections nor open files, so it has
//! fewer places for connections than descriptors. A part of the places is a reserve, on which only `/healthz` and
//! `/metrics` are answered. When the ordinary ones are taken, the connection that has been idle for the longest time gives
//! way to the next; if none is idle, the next is one of the reserve.
//!
//! Where the hub speaks TLS, the handshakes happen beside each other and beside accepting, and each has a place already.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::connection::{Activity, Connection};
use super::handshakes::{Handshakes, has_closed};
use super::principal::Principal;
use super::shares::{OpenConnection, Share};
use super::stream::Stream;

/// The descriptors that the hub itself needs: its log, its listener, its database, and some to spare.
const OWN_FILES: usize = 32;
/// The places on which only health and metrics are answered, where there are enough descriptors.
const RESERVE: usize = 16;
/// More places than any machine has descriptors.
const MAX_PLACES: usize = 1 << 24;
/// How long a connection is idle before it gives way while the reserve has room. A client that has just connected, or
/// sends its requests one after another, is not disturbed by then.
const MIN_IDLE: Duration = Duration::from_secs(1);
/// How long the hub waits after it could not accept a connection, and for one that gives way.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// How often the log repeats that connections are too many.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);
/// How many connections wait to be served at most: a whole fleet may come back at once, and each that waits for another to be
/// taken up would be one more task between its handshake and its request.
const MAX_READY: usize = 256;
/// After how many connections at the earliest a list of them is cleaned up.
const MIN_CLEANUP: usize = 64;

/// What a connection may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// All requests.
    Ordinary,
    /// Questions about the hub itself: it has a place of the reserve.
    Reserve,
    /// Nothing: its certname has too many.
    Surplus,
}

/// Where a connection comes from, and what it may be used for.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) address: SocketAddr,
    pub(super) standing: Standing,
    /// The node at the other end; absent on a plain connection.
    pub(super) node: Option<Node>,
}

/// The node at the other end of a TLS connection.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) principal: Principal,
    pub(super) share: Arc<Share>,
}

impl Connected<IncomingStream<'_, Connections>> for Client {
    fn connect_info(stream: IncomingStream<'_, Connections>) -> Self {
        stream.remote_addr().clone()
    }
}

/// What a connection holds for as long as it lives.
pub(super) struct Held {
    _place: OwnedSemaphorePermit,
    _open: Option<OpenConnection>,
}

/// A connection that may be served.
pub(super) type Accepted = (Connection<Stream, Held>, Client);

/// The connections of a listener, each with its place, and authenticated where the hub speaks TLS.
pub(super) struct Connections {
    accepted: mpsc::Receiver<Accepted>,
    address: SocketAddr,
}

impl Connections {
    /// Accepts a listener's connections within this process's limit of open files. The task ends, and closes the
    /// listener, when the value is dropped.
    pub(super) fn accept_all(
        listener: TcpListener,
        address: SocketAddr,
        handshakes: Option<Arc<Handshakes>>,
    ) -> (Self, JoinHandle<()>) {
        let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
        Self::accept(listener, address, handshakes, places(files.unwrap_or(MAX_PLACES)))
    }

    /// Accepts so few connections that they take nothing from others.
    pub(super) fn accept_few(listener: TcpListener, address: SocketAddr) -> (Self, JoinHandle<()>) {
        Self::accept(listener, address, None, (OWN_FILES / 4, 1))
    }

    fn accept(
        listener: TcpListener,
        address: SocketAddr,
        handshakes: Option<Arc<Handshakes>>,
        (ordinary, reserve): (usize, usize),
    ) -> (Self, JoinHandle<()>) {
        let (ready, accepted) = mpsc::channel(MAX_READY);
        let acceptor = Acceptor {
            listener,
            ordinary: Places::new(ordinary),
            reserve: Places::new(reserve),
            warnings: Warnings::default(),
            handshakes,
            ready,
        };
        (Self { accepted, address }, tokio::spawn(acceptor.run()))
    }
}

impl Listener for Connections {
    type Io = Connection<Stream, Held>;
    type Addr = Client;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.accepted.recv().await {
            Some(accepted) => accepted,
            // The acceptor ends after this value only.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Client> {
        Ok(Client { address: self.address, standing: Standing::Ordinary, node: None })
    }
}

/// Accepts connections and gives each a place.
struct Acceptor {
    listener: TcpListener,
    ordinary: Places,
    reserve: Places,
    warnings: Warnings,
    /// Absent where connections are plain.
    handshakes: Option<Arc<Handshakes>>,
    ready: mpsc::Sender<Accepted>,
}

impl Acceptor {
    /// Accepts until nobody takes the connections any more.
    async fn run(mut self) {
        let ready = self.ready.clone();
        tokio::select! {
            () = ready.closed() => {}
            () = self.accept_all() => {}
        }
    }

    async fn accept_all(&mut self) {
        loop {
            let (stream, address) = self.next().await;
            // Without TCP_NODELAY an answer may wait for the acknowledgement of the previous one.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
            let (place, is_reserve) = self.place().await;
            let activity = Arc::new(Activity::new());
            let places = if is_reserve { &mut self.reserve } else { &mut self.ordinary };
            places.add(&activity);
            let standing = if is_reserve { Standing::Reserve } else { Standing::Ordinary };
            let ready = self.ready.clone();
            match &self.handshakes {
                None => {
                    let accepted = accepted(Stream::Left(stream), address, standing, activity, place, None);
                    if ready.send(accepted).await.is_err() {
                        return;
                    }
                }
                Some(handshakes) => {
                    let handshakes = Arc::clone(handshakes);
                    tokio::spawn(async move {
                        let authenticated =
                            handshakes.authenticate(stream, address, is_reserve, &activity).await;
                        // A client that has given up meanwhile takes up nothing more.
                        if let Some((stream, open)) =
                            authenticated.filter(|(stream, _)| !has_closed(stream.get_ref().0))
                        {
                            let stream = Stream::Right(Box::new(stream));
                            let accepted = accepted(stream, address, standing, activity, place, Some(open));
                            let _ = ready.send(accepted).await;
                        }
                    });
                }
            }
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
        if let Some(place) = self.ordinary.free() {
            return (place, false);
        }
        if self.warnings.is_due() {
            tracing::warn!(
                "all connections that the limit of open files allows are taken: idle ones are closed, and while none \
                 is idle, further ones are answered for /healthz and /metrics only"
            );
        }
        if self.ordinary.close_an_idle_one(MIN_IDLE)
            && let Ok(place) = timeout(ACCEPT_RETRY_INTERVAL, self.ordinary.next()).await
        {
            return (place, false);
        }
        loop {
            if let Some(place) = self.reserve.free() {
                return (place, true);
            }
            if !self.ordinary.close_an_idle_one(Duration::ZERO) {
                self.reserve.close_an_idle_one(Duration::ZERO);
            }
            tokio::select! {
                biased;
                place = self.ordinary.next() => return (place, false),
                place = self.reserve.next() => return (place, true),
                // A connection that was closed has not given up its place yet.
                () = sleep(ACCEPT_RETRY_INTERVAL) => {}
            }
        }
    }
}

/// Joins what is known of a connection.
fn accepted(
    stream: Stream,
    address: SocketAddr,
    standing: Standing,
    activity: Arc<Activity>,
    place: OwnedSemaphorePermit,
    open: Option<OpenConnection>,
) -> Accepted {
    let node = open.as_ref().map(|open| Node {
        principal: Principal(Arc::clone(&open.live.presented.peer)),
        share: Arc::clone(&open.share),
    });
    let is_surplus = open.as_ref().is_some_and(|open| open.live.is_surplus());
    let standing = if is_surplus { Standing::Surplus } else { standing };
    let held = Held { _place: place, _open: open };
    let connection = Connection::new(stream, held, activity, standing != Standing::Ordinary);
    (connection, Client { address, standing, node })
}

/// A number of places, and the connections that have them.
struct Places {
    free: Arc<Semaphore>,
    /// Those that may be idle, and some that have ended. They are not kept by this: a handshake that fails leaves nothing.
    connections: Vec<Weak<Activity>>,
    /// How long the list is when it is cleaned up.
    cleanup_at: usize,
}

impl Places {
    fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), connections: Vec::new(), cleanup_at: MIN_CLEANUP }
    }

    /// Returns a place, if one is free.
    fn free(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// Waits for a place.
    async fn next(&self) -> OwnedSemaphorePermit {
        match Arc::clone(&self.free).acquire_owned().await {
            Ok(place) => place,
            // Only a closed semaphore gives none, and this one is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    fn add(&mut self, activity: &Arc<Activity>) {
        if self.connections.len() >= self.cleanup_at {
            self.connections.retain(|activity| activity.upgrade().is_some_and(|activity| activity.is_http()));
            self.cleanup_at = MIN_CLEANUP.max(2 * self.connections.len());
        }
        self.connections.push(Arc::downgrade(activity));
    }

    /// Makes the connection end that has been idle for the longest time, if that is `least` or more. Returns whether
    /// there was one.
    fn close_an_idle_one(&self, least: Duration) -> bool {
        let open = self.connections.iter().filter_map(Weak::upgrade);
        let idle = open.filter_map(|activity| Some((activity.idle_since()?, activity)));
        let oldest = idle.min_by_key(|(since, _)| *since);
        oldest.is_some_and(|(since, activity)| since.elapsed() >= least && activity.give_way())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_fewer_places_than_files_and_a_reserve() {
        assert_eq!(places(1024), (976, 16));
        assert_eq!(places(64), (24, 8));
        assert_eq!(places(0), (1, 1));
        assert_eq!(places(usize::MAX), (MAX_PLACES - 16, 16));
    }

    #[tokio::test(start_paused = true)]
    async fn the_one_that_has_been_idle_for_the_longest_time_gives_way() {
        let mut places = Places::new(2);
        assert!(!places.close_an_idle_one(Duration::ZERO));
        let mut activities = Vec::new();
        for _ in 0..2 {
            activities.push(Arc::new(Activity::new()));
            places.add(&activities[activities.len() - 1]);
            sleep(MIN_IDLE / 2).await;
        }
        assert!(places.close_an_idle_one(MIN_IDLE));
        assert!(!activities[0].is_http() && activities[1].is_http());
        assert!(!places.close_an_idle_one(MIN_IDLE), "the other one is idle for half of the time");
        assert!(places.close_an_idle_one(Duration::ZERO));
    }

    #[tokio::test]
    async fn connections_that_have_ended_are_forgotten() {
        let mut places = Places::new(1);
        let mut closed = Vec::new();
        for number in 0..10 * MIN_CLEANUP {
            let activity = Arc::new(Activity::new());
            places.add(&activity);
            // Some end as connections do, the others with a handshake that fails.
            if number % 2 == 0 {
                assert!(activity.give_way());
                closed.push(activity);
            }
        }
        assert!(places.connections.len() <= MIN_CLEANUP);
        assert!(!places.close_an_idle_one(Duration::ZERO));
    }
}
