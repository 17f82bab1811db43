//! The hub: a small server that hands one store to a whole fleet. Requests come over HTTP, watches go out over
//! WebSockets; [`trigger_store::hub_protocol`] is the protocol.
//!
//! ```text
//! server ── ServedStore ── SqliteStore: writer (one thread, group commit) ── watchers
//!                      │                reader (one thread, own connection)
//!                      └── any other Store
//! ```
//!
//! The hub's server knows keys and values, never events: the layers above the store trait decide what they mean. It
//! works over [`ServedStore`], of which [`SqliteStore`] is the implementation that needs no other server; later
//! servers of pages, and authorisation by key, use the same handle.
//!
//! [`run`] is the whole hub. A program that needs the store itself opens it and serves a clone:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use trigger_hub::{SqliteStore, server};
//!
//! let (store, closed) = SqliteStore::open("/var/lib/trigger/hub".as_ref())?;
//! let listen: trigger_hub::ListenAddress = "127.0.0.1:8145".parse()?;
//! let stopped = async { /* until the program is to stop */ };
//! server::serve(Arc::new(store.clone()), listen, |_address| {}, stopped).await?;
//! drop(store);
//! closed.wait().await;
//! # Ok(())
//! # }
//! ```

mod portion;
mod range_set;
mod served_store;
pub mod server;
mod snapshot_pages;
pub mod sqlite;
#[cfg(test)]
mod tests;
mod watchers;

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use trigger_pki::Pki;
use trigger_store::address::Address;

pub use served_store::{Page, PageRequest, PagedEvent, PagedWatch, ServedStore};
pub use server::{
    CrlFetch, CrlUrl, InvalidCrlUrl, InvalidListen, ListenAddress, Principal, Rights, ServerError,
    ServerSettings,
};
use sqlite::Closed;
pub use sqlite::{BackupError, SqliteError, SqliteStore, backup};

/// How long the store may take to close: to copy its log into the database, and to wait for other readers before.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the hub checks that the files of its database are in place and its threads run.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The settings of a hub.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// `ADDRESS:PORT`; port 0 takes a free one. Loopback only, unless there is TLS.
    pub listen: String,
    /// The certificates with which it speaks TLS; absent where it does not.
    pub tls: Option<Pki>,
    /// Whether it fetches revocation lists, where it speaks TLS.
    pub crl_fetch: Option<CrlFetch>,
    /// Where it answers `/healthz` and `/metrics` besides, in the clear: an address of loopback.
    pub health_listen: Option<String>,
    /// Without TLS, the other names, `HOST:PORT`, by which clients may address it, such as those of a forwarded port.
    pub allowed_hosts: Vec<Address>,
    /// With TLS, the key prefix that it serves, and who may read all of it.
    pub rights: Rights,
    /// The directory of its database; created if it is missing.
    pub data_dir: PathBuf,
}

/// A hub did not start, or it stopped by an error.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The settings do not name an address to listen on.
    #[error(transparent)]
    InvalidListen(#[from] InvalidListen),
    /// The data directory or the database in it cannot be used.
    #[error(transparent)]
    Store(#[from] SqliteError),
    /// The server could not listen, or failed.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// Serves a SQLite store until `shutdown` completes. Calls `ready` with the real address once requests are
/// accepted.
///
/// # Errors
/// [`HubError::InvalidListen`] before anything is opened; the others when the data directory or the port cannot
/// be used, or when the server fails.
pub async fn run(
    settings: HubSettings,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<(), HubError> {
    let listen: ListenAddress = settings.listen.parse()?;
    let health_listen = settings.health_listen.as_deref().map(str::parse).transpose()?;
    let listen = listen.with_allowed_hosts(settings.allowed_hosts);
    let HubSettings { tls, crl_fetch, rights, .. } = settings;
    let server = ServerSettings { listen, tls, crl_fetch, health_listen, rights };
    server.check()?;
    let (store, closed) = SqliteStore::open(&settings.data_dir)?;
    let failure = serve_store(store, closed, server, ready, shutdown).await.err();
    match failure {
        None => Ok(()),
        // What removes a directory may remove the lock first, and the database when the hub has noticed that.
        Some(HubError::Store(SqliteError::LockGone(lock)))
            if !sqlite::database::file(&settings.data_dir).exists() =>
        {
            Err(lost(&settings.data_dir, SqliteError::Gone(lock)))
        }
        Some(HubError::Store(error @ SqliteError::Gone(_))) => Err(lost(&settings.data_dir, error)),
        Some(error) => Err(error),
    }
}

/// Notes for the next hub that the data are lost.
fn lost(data_dir: &Path, error: SqliteError) -> HubError {
    sqlite::loss_mark::leave(data_dir, &error);
    error.into()
}

/// Serves a store and closes it.
async fn serve_store(
    store: SqliteStore,
    closed: Closed,
    settings: impl Into<ServerSettings>,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<(), HubError> {
    let mut failure = None;
    let shutdown = async {
        tokio::select! {
            () = shutdown => {}
            error = fails(&store) => failure = Some(error),
        }
    };
    let served = server::serve(Arc::new(store.clone()), settings, ready, shutdown).await;
    // A session that has not ended yet keeps neither the log from being copied into the database nor a hub that is
    // started next from the data directory.
    let closing = async {
        // Once more, because the files may be gone since the latest check, or the data since the lock.
        if let Err(error) = store.check().await {
            failure = Some(error);
        }
        store.close().await;
        closed.wait().await;
    };
    if timeout(CLOSE_TIMEOUT, closing).await.is_err() {
        tracing::warn!(
            "the database could not be closed in time: its latest data may be in the log beside it"
        );
    }
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(served?),
    }
}

/// Returns when the store can no longer do its work.
async fn fails(store: &SqliteStore) -> SqliteError {
    loop {
        sleep(CHECK_INTERVAL).await;
        if let Err(error) = store.check().await {
            return error;
        }
    }
}
