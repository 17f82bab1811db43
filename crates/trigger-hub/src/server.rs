//! The hub's server: HTTP and WebSockets over a [`ServedStore`].
//!
//! It never looks behind that trait, so that the same server can stand in front of SQLite or, several of them
//! side by side, in front of a store that they share.

mod authorization;
mod body;
mod caller;
mod connection;
mod connections;
mod error;
mod health;
mod inquiries;
mod limits;
mod listen;
mod metrics;
mod origin_check;
mod peer;
mod refusal;
mod routes;
mod session;
mod state;
mod sweeping;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

#[cfg(test)]
use trigger_core::authorization::Actor;

#[cfg(test)]
use self::authorization::Authorization;
pub use self::authorization::Rights;
use self::connections::{Client, Connections};
pub use self::error::ServerError;
use self::health::HealthCheck;
pub use self::listen::{InvalidListen, ListenAddress};
use self::metrics::Metrics;
use self::origin_check::OriginCheck;
#[cfg(test)]
pub(crate) use self::refusal::Refusal;
use self::state::ServerState;
use crate::served_store::ServedStore;

/// How long requests in progress, and then watches, may take to end when the hub stops.
const SHUTDOWN_GRACE_PERIOD: Duration = Duration::from_secs(3);

/// Serves `store` until `shutdown` completes. Calls `ready` with the real address once requests are accepted.
///
/// # Errors
/// When the address cannot be listened on, or the server fails.
pub async fn serve(
    store: Arc<dyn ServedStore>,
    listen: ListenAddress,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    raise_file_limit();
    let allowed_hosts = listen.allowed_hosts.clone();
    let (listener, address) = listen.bind()?;
    let origin_check = OriginCheck::new(address, &allowed_hosts);
    let (stop, stopping) = watch::channel(());
    let metrics = Metrics::new(&*store);
    let state = ServerState { store, metrics, health: HealthCheck::default(), authorization: None, stopping };
    ready(address);
    serve_requests(listener, origin_check, state, &stop, shutdown).await
}

async fn serve_requests(
    listener: TcpListener,
    origin_check: OriginCheck,
    state: ServerState,
    stop: &watch::Sender<()>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    let mut stopping = stop.subscribe();
    let connections = Connections::new(listener);
    let service =
        routes::router(Arc::new(state), origin_check).into_make_service_with_connect_info::<Client>();
    let mut server = pin!(
        axum::serve(connections, service)
            .with_graceful_shutdown(async move {
                let _ = stopping.changed().await;
            })
            .into_future()
    );
    tokio::select! {
        ended = &mut server => return ended.map_err(ServerError::Serve),
        () = shutdown => {}
    }
    tracing::info!("hub is stopping");
    stop.send_replace(());
    let served = timeout(SHUTDOWN_GRACE_PERIOD, server).await.unwrap_or(Ok(()));
    // Every session holds a receiver until it has sent its close frame.
    let _ = timeout(SHUTDOWN_GRACE_PERIOD, stop.closed()).await;
    served.map_err(ServerError::Serve)
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
    let (metrics, authorization) = (Metrics::new(&*store), Some(Authorization::new(rights)));
    let state = ServerState { store, metrics, health: HealthCheck::default(), authorization, stopping };
    let state = Arc::new(state);
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
