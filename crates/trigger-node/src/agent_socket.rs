//! How a command of this node reaches the agent: over a Unix socket, one JSON line in, one JSON line out.
//!
//! The socket in the state directory is for those who may use that directory. Everyone may connect to the other one, which
//! there is only where `[socket] groups` names groups; there the agent asks the kernel who calls.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use trigger_core::identity::{Certname, Revision};
use uuid::Uuid;

use crate::fire_error::{FireError, FireErrorKind};
use crate::fire_report::{FireReport, Fired};
use crate::queue_view::QueueView;

/// The longest path a socket's address can hold (`sun_path` less its end).
const MAX_ADDRESS_BYTES: usize = 107;

/// A request of a command, one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// Fire an event.
    Fire {
        /// The event in its stored form.
        publication: String,
        /// Whether the backend is asked although it did not answer a moment ago. Unknown to older programs.
        #[serde(default)]
        ignores_pause: bool,
    },
    /// Report the run in progress and the deliveries that wait.
    Queue,
    /// Report whose agent this is.
    Identity,
    /// Give the state directory to another certname, and start again for it.
    Rename {
        /// The new certname.
        certname: Certname,
    },
}

/// The agent's reply, one line of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Reply {
    /// The event is in the backend.
    Committed {
        /// The backend's revision of the write.
        revision: u64,
        /// Sentences for the user.
        warnings: Vec<String>,
    },
    /// The event is in the outbox.
    Spooled {
        /// Why it is not in the backend yet.
        reason: String,
        /// Sentences for the user.
        warnings: Vec<String>,
    },
    /// The request failed.
    Failed {
        /// Decides the command's exit code.
        kind: FireErrorKind,
        /// The error as a sentence.
        message: String,
    },
    /// The command is of a newer version than this agent, and does the work itself.
    NotUnderstood {
        /// What the agent could not read.
        detail: String,
    },
    /// The run in progress and the deliveries that wait.
    Queue(Box<QueueView>),
    /// Whose agent this is.
    Identity {
        /// The certname that it acts for.
        certname: Certname,
    },
    /// The state directory has the new certname, and the agent starts again.
    Renamed,
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

/// Where the agent of a state directory listens. [`address`] reaches it also where that path is too long for a socket.
pub(crate) fn path_in(state_dir: &Path) -> PathBuf {
    state_dir.join("agent.sock")
}

/// The path to give to bind and connect. A state directory deep in a scratch directory can exceed what a
/// socket's address holds; its handle under `/proc` does not.
pub(crate) fn address(state_dir: &Path) -> io::Result<(PathBuf, Option<fs::File>)> {
    let path = path_in(state_dir);
    if path.as_os_str().len() <= MAX_ADDRESS_BYTES {
        return Ok((path, None));
    }
    use std::os::fd::AsRawFd;
    let directory = fs::File::open(state_dir)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}/agent.sock", directory.as_raw_fd()));
    Ok((short, Some(directory)))
}

/// The directory of the sockets for other users. Only root can create it.
const SHARED_DIRECTORY: &str = "/run/trigger";

/// Where the agent of a state directory listens for other users, to whom the state directory is closed. The name follows
/// from the canonical path of the directory, because these users may be unable to read the configuration.
pub(crate) fn shared_path(state_dir: &Path) -> PathBuf {
    let name = Uuid::new_v5(&Uuid::NAMESPACE_URL, state_dir.as_os_str().as_encoded_bytes());
    Path::new(SHARED_DIRECTORY).join(format!("{name}.sock"))
}

/// Why there is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoReply {
    /// No agent listens, or it has ended.
    NoAgent,
    /// The agent is there, but did not answer in time: it was stopped, or its machine is too busy.
    NotInTime,
    /// The agent is there, but is of a version that understands something else.
    NotUnderstood,
}

/// Connects to the agent: as other users do where this process may not use the state directory.
async fn connect(state_dir: &Path) -> io::Result<UnixStream> {
    let own = match address(state_dir) {
        Ok((address, _directory)) => UnixStream::connect(address).await,
        Err(error) => Err(error),
    };
    match own {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            UnixStream::connect(shared_path(state_dir)).await
        }
        own => own,
    }
}

/// Sends a request to the agent of a state directory and returns its reply.
///
/// # Errors
/// [`NoReply`] if no agent is alive, or if it does not answer within `patience`; the caller then does the work itself.
pub async fn ask(state_dir: &Path, request: &Request, patience: Duration) -> Result<Reply, NoReply> {
    let exchange = async {
        let mut stream = connect(state_dir).await?;
        let mut text = serde_json::to_string(request)?;
        text.push('\n');
        // An agent that refuses a caller does not read all that it sends.
        let sent = stream.write_all(text.as_bytes()).await;
        let mut line = String::new();
        let read = BufReader::new(stream).read_line(&mut line).await;
        if line.is_empty() {
            sent?;
            read?;
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        Ok::<_, io::Error>(line)
    };
    match tokio::time::timeout(patience, exchange).await {
        Ok(Ok(line)) => serde_json::from_str(&line).map_err(|error| {
            tracing::debug!(state_dir = %state_dir.display(), %error, "the agent's answer is not understood");
            NoReply::NotUnderstood
        }),
        Ok(Err(error)) => {
            tracing::debug!(state_dir = %state_dir.display(), %error, "no agent answers");
            Err(NoReply::NoAgent)
        }
        Err(_) => {
            tracing::warn!(state_dir = %state_dir.display(), "the agent does not answer; continuing without it");
            Err(NoReply::NotInTime)
        }
    }
}
