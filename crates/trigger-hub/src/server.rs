//! The hub's server: HTTP and WebSockets over a [`ServedStore`].
//!
//! It never looks behind that trait, so that the same server can stand in front of SQLite or, several of them
//! side by side, in front of a store that they share.

mod audit;
mod authorization;
mod body;
mod caller;
mod clock;
mod connection;
mod connection_audit;
mod connections;
mod crl_fetch;
mod error;
mod fairness;
mod handshake_error;
mod handshakes;
mod health;
mod identification;
mod inquiries;
mod limits;
mod listen;
mod metrics;
mod origin_check;
mod peer;
mod principal;
mod refusal;
mod reload;
mod routes;
mod session;
mod shares;
mod socket_requests;
mod state;
mod store_requests;
mod stream;
mod sweeping;
mod tls;
mod turns;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use trigger_fleet::Fleet;
use trigger_fleet::codec::{Codec, Means};
use trigger_pki::Pki;
use trigger_store::store::Store;

#[cfg(test)]
use trigger_core::authorization::Actor;

use self::authorization::Authorization;
pub use self::authorization::Rights;
use self::connections::{Client, Connections};
pub use self::crl_fetch::{CrlFetch, CrlUrl, InvalidCrlUrl};
pub use self::error::{InvalidListen, ServerError};
use self::handshakes::Handshakes;
pub use self::listen::ListenAddress;
use self::metrics::Metrics;
use self::origin_check::OriginCheck;
pub use self::principal::Principal;
#[cfg(test)]
pub(crate) use self::refusal::Refusal;
use self::shares::Shares;
use self::state::ServerState;
use self::tls::Tls;
use crate::served_store::ServedStore;

/// How long requests in progress, and then watches, may take to end when the hub stops.
const SHUTDOWN_GRACE_PERIOD: Duration = Duration::from_secs(3);

/// How a hub is served.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Where requests are accepted.
    pub listen: ListenAddress,
    /// The certificates with which it speaks TLS; absent on loopback.
    pub tls: Option<Pki>,
    /// Whether it fetches revocation lists, where it speaks TLS.
    pub crl_fetch: Option<CrlFetch>,
    /// Where it answers `/healthz` and `/metrics` besides, in the clear; on loopback.
    pub health_listen: Option<ListenAddress>,
    /// With TLS, what is served, and who may read all of it.
    pub rights: Rights,
}

impl From<ListenAddress> for ServerSettings {
    fn from(listen: ListenAddress) -> Self {
        Self { listen, tls: None, crl_fetch: None, health_listen: None, rights: Rights::default() }
    }
}

impl ServerSettings {
    /// Checks that nothing is served in the clear to other machines.
    pub(crate) fn check(&self) -> Result<(), InvalidListen> {
        if self.listen.needs_tls() && self.tls.is_none() {
            return Err(InvalidListen::NeedsTls(self.listen.address()));
        }
        match &self.health_listen {
            Some(health) if health.needs_tls() => Err(InvalidListen::HealthNotLoopback(health.address())),
            _ => Ok(()),
        }
    }
}

/// Serves `store` until `shutdown` completes. Calls `ready` with the real address once requests are accepted.
///
/// # Errors
/// When the address cannot be listened on, the certificates are not those of a server, or the server fails.
pub async fn serve(
    store: Arc<dyn ServedStore>,
    settings: impl Into<ServerSettings>,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let mut settings = settings.into();
    settings.check()?;
    if let Some(pki) = &settings.tls {
        // Who is root on the hub reads its database anyway.
        settings.rights.operators.certnames.insert(pki.identity().certname().clone());
    }
    raise_file_limit();
    let metrics = Arc::new(Metrics::new(&*store));
    let sweeper = settings.tls.as_ref().map(|pki| sweeper(store.clone(), pki, &settings.rights));
    let fetching = settings.tls.clone().zip(settings.crl_fetch);
    let tls = settings.tls.map(Tls::new).transpose()?.map(Arc::new);
    let allowed_hosts = settings.listen.allowed_hosts.clone();
    let (listener, address) = settings.listen.bind()?;
    let origin_check = match &tls {
        Some(_) => OriginCheck::for_tls(),
        None => OriginCheck::new(address, &allowed_hosts),
    };
    let health_listener = settings.health_listen.map(ListenAddress::bind).transpose()?;
    let (stop, stopping) = watch::channel(());
    let authorization =
        tls.as_ref().map(|tls| Authorization::new(settings.rights.clone(), Some(Arc::clone(tls))));
    let state = Arc::new(ServerState::new(store, Arc::clone(&metrics), authorization, stopping));
    let served = Arc::downgrade(&state);
    let events_were_removed = move || {
        let state = served.upgrade();
        if let Some(authorization) = state.as_ref().and_then(|state| state.authorization.as_ref()) {
            authorization.forget_events();
        }
    };
    let shares = Arc::new(Shares::new());
    let handshakes = tls.clone().map(|tls| {
        let handshakes = Handshakes::new(tls, Arc::clone(&shares), Arc::clone(&metrics));
        Arc::new(handshakes)
    });
    let accepting = Connections::accept_all(listener, address, handshakes);
    let requests = serve_requests(accepting, routes::router(Arc::clone(&state), origin_check), &stop);
    let health = async {
        match health_listener {
            Some((listener, address)) => {
                tracing::info!(%address, "health checks are answered in the clear");
                let accepting = Connections::accept_few(listener, address);
                serve_requests(accepting, routes::health_router(state), &stop).await
            }
            None => {
                drop(state);
                Ok(())
            }
        }
    };
    let upkeep = async {
        tokio::join!(
            if_any(tls, |tls| reload::keep_up_to_date(tls, shares, Arc::clone(&metrics))),
            if_any(fetching, |(pki, settings)| crl_fetch::keep_fetching(pki, settings, Arc::clone(&metrics))),
            if_any(sweeper, |sweeper| sweeping::sweep_by_itself(sweeper, events_were_removed)),
        );
        std::future::pending().await
    };
    ready(address);
    let stopped = async {
        shutdown.await;
        tracing::info!("hub is stopping");
        stop.send_replace(());
        std::future::pending().await
    };
    tokio::select! {
        served = async { tokio::try_join!(requests, health) } => drop(served?),
        () = stopped => {}
        () = upkeep => {}
    };
    // Every session holds a receiver until it has sent its close frame.
    let _ = timeout(SHUTDOWN_GRACE_PERIOD, stop.closed()).await;
    Ok(())
}

/// What sweeps for a hub that knows its clients: it acts as the hub's own node.
fn sweeper(store: Arc<dyn Store>, pki: &Pki, rights: &Rights) -> Fleet {
    let fleet = Fleet::new(store, rights.keyspace.clone());
    let means = Means::Certificates { certificates: pki.clone().into(), clock: Arc::new(clock::now) };
    // Unsigned events are removed too.
    fleet.acting_as(pki.identity().certname().clone()).with_codec(Codec::signing(means, false))
}

/// Does something for what may be absent.
async fn if_any<T, F: Future<Output = ()>>(value: Option<T>, work: impl FnOnce(T) -> F) {
    if let Some(value) = value {
        work(value).await;
    }
}

/// Serves connections until the hub stops.
async fn serve_requests(
    (connections, accepting): (Connections, JoinHandle<()>),
    router: Router,
    stop: &watch::Sender<()>,
) -> Result<(), ServerError> {
    let (mut stopping, mut grace) = (stop.subscribe(), stop.subscribe());
    let service = router.into_make_service_with_connect_info::<Client>();
    let server = axum::serve(connections, service)
        .with_graceful_shutdown(async move {
            let _ = stopping.changed().await;
        })
        .into_future();
    let grace_is_over = async move {
        let _ = grace.changed().await;
        drop(grace);
        sleep(SHUTDOWN_GRACE_PERIOD).await;
    };
    let served = tokio::select! {
        served = server => served.map_err(ServerError::Serve),
        () = grace_is_over => Ok(()),
    };
    // The port is free again when the acceptor has ended.
    let _ = accepting.await;
    served
}

/// Raises the limit of open files to the hard one. Each watcher takes a descriptor, and the usual soft limit is 1024.
/// systemd advises this for programs that do not use `select`. The hub starts no processes that would inherit it.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files; it bounds the number of connections");
    }
}

/// Serves `store` to clients that are taken for `actors`, each on an address of its own. Ends with the test's runtime.
#[cfg(test)]
pub(crate) async fn serve_to(
    store: Arc<dyn ServedStore>,
    rights: Rights,
    actors: Vec<Option<Actor>>,
) -> Vec<SocketAddr> {
    let (stop, stopping) = watch::channel(());
    let metrics = Arc::new(Metrics::new(&*store));
    let authorization = Some(Authorization::new(rights, None));
    let state = Arc::new(ServerState::new(store, metrics, authorization, stopping));
    let mut addresses = Vec::new();
    for actor in actors {
        let listen: ListenAddress = "127.0.0.1:0".parse().expect("an address");
        let (listener, address) = listen.bind().expect("a free port");
        let mut router = routes::router(Arc::clone(&state), OriginCheck::new(address, &[]));
        if let Some(actor) = actor {
            router = router.layer(axum::Extension(actor));
        }
        let stop = stop.clone();
        tokio::spawn(async move {
            let _stop = stop;
            axum::serve(listener, router).await
        });
        addresses.push(address);
    }
    addresses
}
