//! What each certname may use of a hub: connections, requests and bytes. Each has its own share, so that one that asks for
//! too much takes nothing from the others.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use trigger_core::identity::Certname;
use trigger_core::token_bucket::{Rate, TokenBucket};
use trigger_pki::Peer;

use super::connection::Activity;

/// How many connections a certname may have. An agent has a watch, and up to two more, and each command on its node one or two more.
pub(super) const MAX_CONNECTIONS: usize = 16;
/// How many more are told in an answer that they are too many; further ones are closed without.
const MAX_SURPLUS: usize = 4;
/// How long a connection is idle before it gives way to another of its certname.
const MIN_IDLE: Duration = Duration::from_secs(1);
/// The requests of one certname, of which each is one token and one more for each [`TOKEN_BYTES`]. An idle agent sends a
/// few in a minute, a command some ten. A disk that syncs takes thousands of writes in a second, so no certname gets more
/// than a small part of them; the burst is a fleet-wide event with its answers.
const REQUESTS: Rate = Rate { burst: 400, per_second: 100 };
/// How many bytes of a request's body or of an answer cost one token.
pub(super) const TOKEN_BYTES: u64 = 64 * 1024;
/// How many snapshots of watches are read and sent to one certname at the same time: of each, a page is held until its
/// client has taken it. A client that has lost its connection watches again before the hub has noticed that.
const MAX_SNAPSHOTS: usize = 2;
/// How long a request may be delayed rather than refused. It is well below the time after which clients give up.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the log repeats that a certname asks for too much.
const REPORT_INTERVAL: Duration = Duration::from_secs(60);

/// The shares of all certnames that have a connection, or had one recently.
#[derive(Debug)]
pub(super) struct Shares {
    by_certname: Mutex<HashMap<Certname, Arc<Share>>>,
    started: Instant,
}

/// The share of one certname.
#[derive(Debug)]
pub(super) struct Share {
    started: Instant,
    bucket: Mutex<TokenBucket>,
    large_bodies: Arc<Semaphore>,
    snapshots: Arc<Semaphore>,
    connections: Mutex<Vec<Arc<LiveConnection>>>,
    reported: Mutex<Option<Instant>>,
}

/// A connection that may be closed because of its certificate.
#[derive(Debug)]
pub(super) struct LiveConnection {
    pub(super) address: SocketAddr,
    pub(super) presented: Arc<Presented>,
    activity: Arc<Activity>,
    is_surplus: bool,
}

/// What a client has proven who it is with. Connections with the same certificate share it.
#[derive(Debug)]
pub(super) struct Presented {
    pub(super) peer: Arc<Peer>,
    /// The certificate, and those between it and the CA's that came with it.
    pub(super) chain: Vec<CertificateDer<'static>>,
}

/// Counts a connection as one of its certname for as long as it lives.
#[derive(Debug)]
pub(super) struct OpenConnection {
    shares: Arc<Shares>,
    pub(super) share: Arc<Share>,
    pub(super) live: Arc<LiveConnection>,
}

impl Shares {
    pub(super) fn new() -> Self {
        Self { by_certname: Mutex::default(), started: Instant::now() }
    }

    /// Counts a connection. Returns it, unless its certname has so many that it cannot even be told.
    pub(super) fn open(
        self: &Arc<Self>,
        presented: Presented,
        address: SocketAddr,
        activity: Arc<Activity>,
    ) -> Option<OpenConnection> {
        let mut by_certname = lock(&self.by_certname);
        let share = by_certname.entry(presented.peer.certname.clone()).or_insert_with(|| {
            Arc::new(Share {
                started: self.started,
                bucket: Mutex::new(TokenBucket::full()),
                large_bodies: Arc::new(Semaphore::new(1)),
                snapshots: Arc::new(Semaphore::new(MAX_SNAPSHOTS)),
                connections: Mutex::default(),
                reported: Mutex::default(),
            })
        });
        let live = share.add(presented, address, activity)?;
        Some(OpenConnection { shares: Arc::clone(self), share: Arc::clone(share), live })
    }

    /// All connections that are not being closed.
    pub(super) fn connections(&self) -> Vec<Arc<LiveConnection>> {
        let by_certname = lock(&self.by_certname);
        let all = by_certname.values().flat_map(|share| lock(&share.connections).clone());
        all.filter(|live| !live.activity.is_over()).collect()
    }

    /// Forgets the shares without connections that would be as good as new.
    pub(super) fn clean_up(&self) {
        lock(&self.by_certname).retain(|_, share| !share.is_unused());
    }
}

impl Share {
    fn add(
        &self,
        presented: Presented,
        address: SocketAddr,
        activity: Arc<Activity>,
    ) -> Option<Arc<LiveConnection>> {
        let mut connections = lock(&self.connections);
        let count = |is_surplus| {
            let counts =
                |live: &&Arc<LiveConnection>| live.is_surplus == is_surplus && !live.activity.is_over();
            connections.iter().filter(counts).count()
        };
        let is_surplus = count(false) >= MAX_CONNECTIONS && !close_an_idle_one(&connections);
        if is_surplus && count(true) >= MAX_SURPLUS {
            return None;
        }
        let known = connections.iter().find(|live| live.presented.chain == presented.chain);
        let presented = known.map_or_else(|| Arc::new(presented), |live| Arc::clone(&live.presented));
        let live = Arc::new(LiveConnection { address, presented, activity, is_surplus });
        connections.push(Arc::clone(&live));
        Some(live)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Takes what a request costs. Returns how long it has to wait.
    ///
    /// # Errors
    /// After how long the client should try again.
    pub(super) fn take(&self, body_bytes: u64) -> Result<Duration, Duration> {
        lock(&self.bucket).take(self.now(), REQUESTS, 1 + tokens(body_bytes), PATIENCE)
    }

    /// Takes what an answer costs.
    pub(super) fn charge(&self, bytes: u64) {
        lock(&self.bucket).charge(self.now(), REQUESTS, tokens(bytes));
    }

    /// Whether the log should say that the certname asks for too much. It says so once in a while.
    pub(super) fn is_report_due(&self) -> bool {
        let mut reported = lock(&self.reported);
        let is_due = reported.is_none_or(|latest| latest.elapsed() >= REPORT_INTERVAL);
        if is_due {
            *reported = Some(Instant::now());
        }
        is_due
    }

    /// Waits until no other large body of this certname is being received or handled.
    pub(super) async fn large_body(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.large_bodies).acquire_owned().await.ok()
    }

    /// Waits until few other snapshots are being sent to this certname.
    pub(super) async fn snapshot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.snapshots).acquire_owned().await.ok()
    }

    fn is_unused(&self) -> bool {
        lock(&self.connections).is_empty() && lock(&self.bucket).is_full(self.now())
    }
}

impl LiveConnection {
    /// Whether its certname has too many, so that it is only told so.
    pub(super) fn is_surplus(&self) -> bool {
        self.is_surplus
    }

    /// Closes it, whatever it does.
    pub(super) fn close(&self) {
        self.activity.close();
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let mut by_certname = lock(&self.shares.by_certname);
        lock(&self.share.connections).retain(|live| !Arc::ptr_eq(live, &self.live));
        if self.share.is_unused() {
            by_certname.remove(&self.live.presented.peer.certname);
        }
    }
}

fn tokens(bytes: u64) -> u32 {
    u32::try_from(bytes / TOKEN_BYTES).unwrap_or(u32::MAX)
}

/// Makes the connection end that has been idle for the longest time. Returns whether there was one. One that is surplus
/// leaves no room for an ordinary one.
fn close_an_idle_one(connections: &[Arc<LiveConnection>]) -> bool {
    let ordinary = connections.iter().filter(|live| !live.is_surplus);
    let idle = ordinary.filter_map(|live| Some((live.activity.idle_since()?, live)));
    let oldest = idle.min_by_key(|(since, _)| *since);
    oldest.is_some_and(|(since, live)| since.elapsed() >= MIN_IDLE && live.activity.give_way())
}

/// Locks a mutex, even if a thread has panicked while it held it, because no update can be left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(super) mod tests {
    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::advance;
    use trigger_core::certificate::Fingerprint;
    use trigger_core::time::Timestamp;

    use super::super::connection::Connection;
    use super::*;

    fn open(shares: &Arc<Shares>, activity: &Arc<Activity>) -> Option<OpenConnection> {
        let peer = Peer {
            certname: "web01.example.com".parse().unwrap(),
            extensions: Default::default(),
            fingerprint: Fingerprint::from_digest([7; 32]),
            not_after: Timestamp::from_unix_ms(0),
        };
        let presented = Presented { peer: Arc::new(peer), chain: Vec::new() };
        shares.open(presented, ([127, 0, 0, 1], 8145).into(), Arc::clone(activity))
    }

    /// A connection of a node that has no other one.
    pub(in crate::server) fn open_connection() -> OpenConnection {
        idle(&Arc::new(Shares::new())).unwrap()
    }

    /// A connection on which no request has begun.
    fn idle(shares: &Arc<Shares>) -> Option<OpenConnection> {
        open(shares, &Arc::new(Activity::new()))
    }

    /// A connection whose request is being answered.
    async fn busy(shares: &Arc<Shares>) -> (OpenConnection, Connection<DuplexStream, ()>) {
        let (mut client, stream) = duplex(64);
        let activity = Arc::new(Activity::new());
        let mut connection = Connection::new(stream, (), Arc::clone(&activity), false);
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert!(connection.read(&mut [0; 64]).await.is_ok() && activity.idle_since().is_none());
        (open(shares, &activity).unwrap(), connection)
    }

    async fn all_busy(
        shares: &Arc<Shares>,
        count: usize,
    ) -> Vec<(OpenConnection, Connection<DuplexStream, ()>)> {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(busy(shares).await);
        }
        assert!(!all.iter().any(|(open, _)| open.live.is_surplus()));
        all
    }

    #[tokio::test(start_paused = true)]
    async fn a_certname_has_sixteen_connections_and_four_more_that_are_told_so() {
        let shares = Arc::new(Shares::new());
        let mut ordinary = all_busy(&shares, 16).await;
        let mut surplus: Vec<_> = (0..4).map(|_| idle(&shares).unwrap()).collect();
        assert!(surplus.iter().all(|open| open.live.is_surplus()));
        assert!(idle(&shares).is_none());
        surplus.pop();
        surplus.push(idle(&shares).unwrap());
        assert!(surplus.iter().all(|open| open.live.is_surplus()));
        assert!(idle(&shares).is_none());
        ordinary.pop();
        assert!(!idle(&shares).unwrap().live.is_surplus());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_gives_way_unless_it_is_one_too_many() {
        let shares = Arc::new(Shares::new());
        let mut ordinary = all_busy(&shares, 15).await;
        let oldest = idle(&shares).unwrap();
        advance(MIN_IDLE).await;
        let next = idle(&shares).unwrap();
        assert!(oldest.live.activity.is_over() && !next.live.is_surplus());
        drop((oldest, next));
        ordinary.extend(all_busy(&shares, 1).await);
        let surplus = idle(&shares).unwrap();
        advance(MIN_IDLE).await;
        assert!(idle(&shares).unwrap().live.is_surplus(), "a place that none of the sixteen has left");
        assert!(!surplus.live.activity.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn two_snapshots_of_a_certname_are_sent_at_once() {
        let shares = Arc::new(Shares::new());
        let (open, _connection) = busy(&shares).await;
        let first = open.share.snapshot().await.unwrap();
        let _second = open.share.snapshot().await.unwrap();
        assert!(open.share.snapshot().now_or_never().is_none());
        drop(first);
        assert!(open.share.snapshot().now_or_never().flatten().is_some());
    }
}
