//! Serves the commands of this node on the agent's socket.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::Instrument;
use trigger_core::publication::Publication;
use trigger_core::wire::Stored;

use super::Service;
use super::error::AgentError;
use crate::agent_socket::{Reply, Request, address, path_in};
use crate::fire_error::FireErrorKind;
use crate::host::Host;

/// The largest request: an event for a hundred thousand targets.
const MAX_REQUEST_BYTES: u64 = 64 * 1024 * 1024;
/// Connections served at once.
const CONNECTIONS: usize = 32;
/// A client that sends nothing for this long is disconnected.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often the agent checks that its socket's file is in place.
const PLACE_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// After how many failures in a row to accept a connection the log says so again: about once in a minute.
const FAILURES_PER_WARNING: u32 = 600;

/// Listens on the socket. The agent holds its lock, so an existing socket file belongs to a dead agent and is removed.
pub(super) fn listen(state_dir: &Path) -> Result<UnixListener, AgentError> {
    let path = path_in(state_dir);
    let failed = |source: io::Error| AgentError::Listen { path: path.clone(), source };
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let (address, _directory) = address(state_dir).map_err(failed)?;
    let listener = UnixListener::bind(address).map_err(failed)?;
    // Until now the directory has kept other users away.
    trigger_files::restrict(&path).map_err(failed)?;
    Ok(listener)
}

/// Serves the socket, and listens again if something else has removed its file.
pub(super) async fn serve<H: Host>(mut listener: UnixListener, service: Arc<Service<H>>) {
    let state_dir = service.node.settings.state.path();
    let mut file = identity(state_dir);
    let mut failures: u32 = 0;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match tokio::time::timeout(PLACE_CHECK_INTERVAL, listener.accept()).await {
            Ok(Ok((stream, _))) => {
                failures = 0;
                stream
            }
            Ok(Err(error)) => {
                if failures.is_multiple_of(FAILURES_PER_WARNING) {
                    tracing::warn!(%error, "cannot accept a connection on the agent's socket");
                }
                failures = failures.wrapping_add(1);
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            Err(_) => {
                if identity(state_dir) != file {
                    match listen(state_dir) {
                        Ok(new) => listener = new,
                        Err(error) => tracing::warn!(%error, "the agent's socket is gone"),
                    }
                    file = identity(state_dir);
                }
                continue;
            }
        };
        let service = Arc::clone(&service);
        let conversation = async move {
            if let Err(error) = converse(stream, &service).await {
                tracing::debug!(%error, "a command closed its connection");
            }
            drop(place);
        };
        tokio::spawn(conversation.in_current_span());
    }
}

/// What sets the socket's file apart from any other.
fn identity(state_dir: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path_in(state_dir)).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

async fn converse<H: Host>(mut stream: UnixStream, service: &Service<H>) -> io::Result<()> {
    let mut line = String::new();
    let (reader, mut writer) = stream.split();
    tokio::time::timeout(TIMEOUT, BufReader::new(reader.take(MAX_REQUEST_BYTES)).read_line(&mut line))
        .await??;
    let reply = answer(&line, service).await;
    let mut text = serde_json::to_string(&reply)?;
    text.push('\n');
    tokio::time::timeout(TIMEOUT, writer.write_all(text.as_bytes())).await?
}

async fn answer<H: Host>(line: &str, service: &Service<H>) -> Reply {
    match serde_json::from_str(line) {
        Ok(Request::Fire { publication, ignores_pause }) => match Publication::from_wire(&publication) {
            Ok(publication) => service.fire(&publication, ignores_pause).await.into(),
            Err(error) => Reply::NotUnderstood { detail: error.to_string() },
        },
        Ok(Request::Queue) => match service.queue().await {
            Some(view) => Reply::Queue(Box::new(view)),
            None => {
                Reply::Failed { kind: FireErrorKind::Failed, message: "the agent is stopping".to_owned() }
            }
        },
        Ok(Request::Rename { certname }) => match service.rename(certname).await {
            Ok(()) => Reply::Renamed,
            Err(message) => Reply::Failed { kind: FireErrorKind::Failed, message },
        },
        Err(error) => Reply::NotUnderstood { detail: error.to_string() },
    }
}
