//! The hub: the embedded backend in one process. State lies in a SQLite file, requests come over HTTP,
//! watches go out over WebSockets; [`trigger_store::hub_protocol`] is what is said.
//!
//! ```text
//! http ── guard ── writer (one thread, group commit) ── watchers ── session (one per WebSocket)
//!             └─── reader (one thread, own connection) ──────────────┘
//! ```
//!
//! The hub knows keys and values, never events: all that they mean is decided above the backend trait.

mod backup;
mod database;
mod http;
mod metrics;
mod origin_check;
mod reader;
mod session;
#[cfg(test)]
mod tests;
mod watchers;
mod writer;

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::time::timeout;

pub use backup::backup;
use http::Hub;

/// Connections that may wait to be accepted: a fleet that comes back after a restart does so at once.
const LISTEN_BACKLOG: u32 = 4096;
/// How long requests in progress, and then watches, may take to end when the hub stops.
const SHUTDOWN_GRACE_PERIOD: Duration = Duration::from_secs(3);

/// What a hub is told.
#[derive(Debug, Clone)]
pub struct HubSettings {
    /// `ADDRESS:PORT`; port 0 takes a free one. Loopback only.
    pub listen: String,
    /// Where its state lies; made if it is missing.
    pub data_dir: PathBuf,
}

/// Why a hub did not start, stopped, or was not backed up.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// `--listen` is no address.
    #[error("'{0}' is not an address to listen on: give one such as 127.0.0.1:8145 or [::1]:8145")]
    BadListen(String),
    /// `--listen` is reachable from elsewhere.
    #[error(
        "refusing to listen on {0}: until TLS exists the hub listens on loopback only, such as 127.0.0.1:8145"
    )]
    NotLoopback(String),
    /// Somebody else listens there.
    #[error(
        "cannot listen on {0}: the port is in use; stop what uses it (another hub?) or give another --listen"
    )]
    PortInUse(SocketAddr),
    /// The system refuses the address for another reason.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// Another hub has the data directory.
    #[error("the data directory {} is in use by another hub{holder}: a data directory serves one hub", path.display())]
    DataDirInUse {
        /// The directory.
        path: PathBuf,
        /// ` (process N)`, where known.
        holder: String,
    },
    /// The data directory cannot be made or written.
    #[error("cannot use the data directory {}: {source}; it must exist or be creatable, and be writable", path.display())]
    DataDir {
        /// The directory, or the file in it.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// SQLite cannot open the database.
    #[error("cannot open the hub's database {}: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// The database is not a hub's.
    #[error("{} is a database, but not a hub's: give another --data-dir", .0.display())]
    Foreign(PathBuf),
    /// A newer hub has written the database.
    #[error(
        "{} was written by a newer version of trigger (schema {found}; this one knows {known}): \
         install that version again, or restore a backup from before it", path.display()
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest known here.
        known: i64,
    },
    /// The linked SQLite has the WAL-reset bug.
    #[error(
        "this trigger was built with SQLite {0}, which can corrupt its log: build it with 3.51.3 or newer"
    )]
    OldSqlite(&'static str),
    /// A thread of the hub cannot be started.
    #[error("cannot start the hub's {what} thread: {source}")]
    Thread {
        /// Which.
        what: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The server itself failed.
    #[error("the hub's server failed: {0}")]
    Serve(io::Error),
    /// There is nothing to back up.
    #[error("there is no hub's database in {}: give the --data-dir of the hub", .0.display())]
    NothingToBackUp(PathBuf),
    /// A backup never overwrites.
    #[error("{} exists already: a backup never overwrites a file; give another name or remove it", .0.display())]
    BackupExists(PathBuf),
    /// The backup's file cannot be written.
    #[error("cannot write the backup {}: {source}", path.display())]
    BackupFile {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// SQLite cannot copy the database.
    #[error("cannot back up to {}: {source}", path.display())]
    Backup {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
    /// The copy does not pass SQLite's check.
    #[error("the backup {} was discarded, since SQLite's check of it says: {finding}", path.display())]
    BackupDamaged {
        /// The file.
        path: PathBuf,
        /// What the check says.
        finding: String,
    },
}

/// Serves until `shutdown` ends. Calls `ready` with the real address once requests are accepted.
pub async fn run(
    settings: HubSettings,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<(), HubError> {
    let address = listen_address(&settings.listen)?;
    raise_file_limit();
    let metrics = Arc::new(metrics::Metrics::new());
    let watchers = Arc::new(watchers::Watchers::default());
    let (writer, writer_ended) = writer::start(&settings.data_dir, watchers.clone(), metrics.clone())?;
    let (reader, reader_ended) = reader::start(&database::file(&settings.data_dir))?;
    let listener = bind(address)?;
    let address = listener.local_addr().map_err(|source| HubError::Listen { address, source })?;
    let (stop, stopping) = watch::channel(());
    let hub = Hub { writer, reader, watchers, metrics, stopping };
    ready(address);
    let served = serve(listener, address, hub, &stop, shutdown).await;
    // The hub's handles are gone by now, and with them the reader's and the writer's reason to stay. Their
    // end is waited for, so that whoever starts the next hub finds the data directory free.
    let _ = timeout(SHUTDOWN_GRACE_PERIOD, async { (reader_ended.await, writer_ended.await) }).await;
    served
}

async fn serve(
    listener: TcpListener,
    address: SocketAddr,
    hub: Hub,
    stop: &watch::Sender<()>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), HubError> {
    let mut stopping = stop.subscribe();
    let listener = listener.tap_io(|connection| {
        // Without it an answer may wait for the acknowledgement of the one before.
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    });
    let mut server = pin!(
        axum::serve(listener, http::router(Arc::new(hub), address))
            .with_graceful_shutdown(async move {
                let _ = stopping.changed().await;
            })
            .into_future()
    );
    tokio::select! {
        ended = &mut server => return ended.map_err(HubError::Serve),
        () = shutdown => {}
    }
    tracing::info!("hub is stopping");
    stop.send_replace(());
    let served = timeout(SHUTDOWN_GRACE_PERIOD, server).await.unwrap_or(Ok(()));
    // Every session holds a receiver until it has said good-bye.
    let _ = timeout(SHUTDOWN_GRACE_PERIOD, stop.closed()).await;
    served.map_err(HubError::Serve)
}

fn listen_address(listen: &str) -> Result<SocketAddr, HubError> {
    let bad = || HubError::BadListen(listen.to_owned());
    let address: SocketAddr = match listen.rsplit_once(':') {
        Some(("localhost", port)) => {
            SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.parse().map_err(|_| bad())?)
        }
        _ => listen.parse().map_err(|_| bad())?,
    };
    if address.ip().is_loopback() { Ok(address) } else { Err(HubError::NotLoopback(listen.to_owned())) }
}

fn bind(address: SocketAddr) -> Result<TcpListener, HubError> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restarted hub must not wait for the old connections' last minute.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(LISTEN_BACKLOG)
    };
    bind().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => HubError::PortInUse(address),
        _ => HubError::Listen { address, source },
    })
}

/// Each watcher is a descriptor, and the usual soft limit is 1024: systemd's advice is to raise it to the
/// hard one where `select` is not used. The hub starts no processes that would inherit it.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files; it bounds the number of watchers");
    }
}

/// The directory that holds `path`, for syncing it.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
