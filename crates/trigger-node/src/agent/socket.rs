//! The Unix socket by which this node's commands reach its agent: one JSON line in, one JSON line out.
//! The state directory's permissions decide who may connect.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::Instrument;
use trigger_core::identity::Revision;
use trigger_core::publication::Publication;
use trigger_core::wire::Stored;

use super::error::AgentError;
use super::{QueueView, Service};
use crate::fire_error::{FireError, FireErrorKind};
use crate::firing::{FireReport, Fired};
use crate::os::Os;
use crate::state::StateDir;

/// The largest request: an event for a hundred thousand targets.
const MAX_REQUEST_BYTES: u64 = 64 * 1024 * 1024;
/// Connections served at once.
const CONNECTIONS: usize = 32;
/// A client that sends nothing for so long is cut off.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest path a socket's address can hold (`sun_path` less its end).
const MAX_ADDRESS_BYTES: usize = 107;

/// What a command asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// Fire this event, in its stored form.
    Fire { publication: String },
    /// Tell what runs and waits.
    Queue,
}

/// What the agent answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Reply {
    Committed {
        revision: u64,
        warnings: Vec<String>,
    },
    Spooled {
        reason: String,
        warnings: Vec<String>,
    },
    Failed {
        kind: FireErrorKind,
        message: String,
    },
    /// The asker is newer than this agent, and does the work itself.
    NotUnderstood {
        detail: String,
    },
    Queue(Box<QueueView>),
}

/// The path to give to bind and connect. A state directory deep in a scratch directory can exceed what a
/// socket's address holds; its handle under `/proc` does not.
fn address(state: &StateDir) -> io::Result<(PathBuf, Option<fs::File>)> {
    let path = state.socket();
    if path.as_os_str().len() <= MAX_ADDRESS_BYTES {
        return Ok((path, None));
    }
    use std::os::fd::AsRawFd;
    let directory = fs::File::open(state.path())?;
    let short = PathBuf::from(format!("/proc/self/fd/{}/agent.sock", directory.as_raw_fd()));
    Ok((short, Some(directory)))
}

/// Listens on the socket; the agent's lock is held, so whatever lies there is a dead agent's.
pub(super) fn listen(state: &StateDir) -> Result<UnixListener, AgentError> {
    let path = state.socket();
    let failed = |source: io::Error| AgentError::Listen { path: path.clone(), source };
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let (address, _directory) = address(state).map_err(failed)?;
    UnixListener::bind(address).map_err(failed)
}

pub(super) async fn serve(listener: UnixListener, service: Arc<Service<Os>>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection on the agent's socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
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

async fn converse(mut stream: UnixStream, service: &Service<Os>) -> io::Result<()> {
    let mut line = String::new();
    let (reader, mut writer) = stream.split();
    tokio::time::timeout(TIMEOUT, BufReader::new(reader.take(MAX_REQUEST_BYTES)).read_line(&mut line))
        .await??;
    let reply = answer(&line, service).await;
    let mut text = serde_json::to_string(&reply)?;
    text.push('\n');
    tokio::time::timeout(TIMEOUT, writer.write_all(text.as_bytes())).await?
}

async fn answer(line: &str, service: &Service<Os>) -> Reply {
    match serde_json::from_str(line) {
        Ok(Request::Fire { publication }) => match Publication::from_wire(&publication) {
            Ok(publication) => service.fire(&publication).await.into(),
            Err(error) => Reply::NotUnderstood { detail: error.to_string() },
        },
        Ok(Request::Queue) => match service.queue().await {
            Some(view) => Reply::Queue(Box::new(view)),
            None => {
                Reply::Failed { kind: FireErrorKind::Failed, message: "the agent is stopping".to_owned() }
            }
        },
        Err(error) => Reply::NotUnderstood { detail: error.to_string() },
    }
}

impl From<Result<FireReport, FireError>> for Reply {
    fn from(report: Result<FireReport, FireError>) -> Self {
        match report {
            Ok(FireReport { fired: Fired::Committed(Revision(revision)), warnings }) => {
                Self::Committed { revision, warnings }
            }
            Ok(FireReport { fired: Fired::Spooled(reason), warnings }) => Self::Spooled { reason, warnings },
            Err(error) => Self::Failed { kind: error.kind(), message: error.to_string() },
        }
    }
}

/// Asks the agent; nothing where no agent is alive, or it does not answer within `patience`.
pub async fn ask(state: &StateDir, request: &Request, patience: Duration) -> Option<Reply> {
    let exchange = async {
        let (address, _directory) = address(state)?;
        let mut stream = UnixStream::connect(address).await?;
        let mut text = serde_json::to_string(request)?;
        text.push('\n');
        stream.write_all(text.as_bytes()).await?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await?;
        Ok::<Reply, io::Error>(serde_json::from_str(&line)?)
    };
    match tokio::time::timeout(patience, exchange).await {
        Ok(Ok(reply)) => Some(reply),
        Ok(Err(error)) => {
            tracing::debug!(state_dir = %state.path().display(), %error, "no agent answers");
            None
        }
        Err(_) => {
            tracing::warn!(state_dir = %state.path().display(), "the agent does not answer; continuing without it");
            None
        }
    }
}
