//! The connections of a hub: how many there may be, and which gives way to another.
//!
//! Every connection takes a file descriptor. A hub without one could neither accept connections nor open files, so it has
//! fewer places for connections than descriptors. A part of the places is a reserve, on which only `/healthz` and
//! `/metrics` are answered. When the ordinary ones are taken, the connection that has been idle for the longest time gives
//! way to the next; if none is idle, the next is one of the reserve.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

use super::connection::{Activity, Connection};

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
/// After how many connections at the earliest a list of them is cleaned up.
const MIN_CLEANUP: usize = 64;

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
    ordinary: Places,
    reserve: Places,
    warnings: Warnings,
}

impl Connections {
    /// Serves a listener within this process's limit of open files.
    pub(super) fn new(listener: TcpListener) -> Self {
        let files = getrlimit(Resource::Nofile).current.and_then(|files| usize::try_from(files).ok());
        let (ordinary, reserve) = places(files.unwrap_or(MAX_PLACES));
        let (ordinary, reserve) = (Places::new(ordinary), Places::new(reserve));
        Self { listener, ordinary, reserve, warnings: Warnings::default() }
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
        let activity = Arc::new(Activity::new());
        let places = if is_reserve { &mut self.reserve } else { &mut self.ordinary };
        places.add(Arc::clone(&activity));
        (Connection::new(stream, Some(place), activity, is_reserve), Client { address, is_reserve })
    }

    fn local_addr(&self) -> io::Result<Client> {
        Ok(Client { address: self.listener.local_addr()?, is_reserve: false })
    }
}

/// A number of places, and the connections that have them.
struct Places {
    free: Arc<Semaphore>,
    /// Those that may be idle, and some that have ended.
    connections: Vec<Arc<Activity>>,
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

    fn add(&mut self, activity: Arc<Activity>) {
        if self.connections.len() >= self.cleanup_at {
            self.connections.retain(|activity| activity.is_http());
            self.cleanup_at = MIN_CLEANUP.max(2 * self.connections.len());
        }
        self.connections.push(activity);
    }

    /// Makes the connection end that has been idle for the longest time, if that is `least` or more. Returns whether
    /// there was one.
    fn close_an_idle_one(&self, least: Duration) -> bool {
        let idle = self.connections.iter().filter_map(|activity| Some((activity.idle_since()?, activity)));
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
            places.add(Arc::clone(&activities[activities.len() - 1]));
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
        for _ in 0..10 * MIN_CLEANUP {
            let activity = Arc::new(Activity::new());
            places.add(Arc::clone(&activity));
            assert!(activity.give_way());
        }
        assert!(places.connections.len() <= MIN_CLEANUP);
    }
}
