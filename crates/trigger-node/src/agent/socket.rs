//! Serves the commands of this node on the agent's sockets: its own, and where the configuration names groups another one
//! for their members.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::Instrument;

use super::Service;
use super::callers::{Callers, Rights};
use super::error::AgentError;
use super::requests::{Caller, answer, refused, too_large};
use crate::agent_socket::{Reply, address, path_in, shared_path};
use crate::host::Host;

/// The largest request on the agent's own socket: an event for a hundred thousand targets.
const MAX_REQUEST_BYTES: u64 = 64 * 1024 * 1024;
/// The largest request on the shared socket, so that other users cannot make the agent use much memory.
const MAX_SHARED_REQUEST_BYTES: u64 = 1024 * 1024;
/// Connections served at once on each socket.
const CONNECTIONS: usize = 32;
/// A client that sends nothing for this long is disconnected.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often the agent checks that its socket's file is in place.
const PLACE_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// After how many failures in a row to accept a connection the log says so again: about once in a minute.
const FAILURES_PER_WARNING: u32 = 600;

/// A socket of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// In the state directory, for those who may use that.
    Own,
    /// In a directory that everyone may enter. Everyone may connect, and [`Callers`] decides.
    Shared,
}

impl Access {
    fn path(self, state_dir: &Path) -> PathBuf {
        match self {
            Self::Own => path_in(state_dir),
            Self::Shared => shared_path(state_dir),
        }
    }

    fn max_request_bytes(self) -> u64 {
        match self {
            Self::Own => MAX_REQUEST_BYTES,
            Self::Shared => MAX_SHARED_REQUEST_BYTES,
        }
    }
}

/// Listens on a socket. The agent holds its lock, so an existing socket file belongs to a dead agent and is removed.
pub(super) fn listen(access: Access, state_dir: &Path) -> Result<UnixListener, AgentError> {
    let path = access.path(state_dir);
    let listen = || match access {
        Access::Own => {
            remove(&path)?;
            let (address, _directory) = address(state_dir)?;
            let listener = UnixListener::bind(address)?;
            // Until now the directory has kept other users away.
            trigger_files::restrict(&path)?;
            Ok(listener)
        }
        Access::Shared => {
            open_shared_directory(path.parent().unwrap_or(Path::new("/")))?;
            remove(&path)?;
            let listener = UnixListener::bind(&path)?;
            fs::set_permissions(&path, Permissions::from_mode(0o666))?;
            Ok(listener)
        }
    };
    listen().map_err(|source| AgentError::Listen { path: path.clone(), source })
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Creates the directory of the shared sockets, in which nobody but its owner may put one.
fn open_shared_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o755))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let metadata = fs::symlink_metadata(path)?;
    let own = rustix::process::geteuid().as_raw();
    let is_ours = metadata.uid() == 0 || metadata.uid() == own;
    if metadata.is_dir() && is_ours && metadata.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{} belongs to another user, or others may write there: remove it, and the agent creates it again",
        path.display()
    )))
}

/// Removes the shared socket of an agent that shares nothing any more.
pub(super) fn close_shared(state_dir: &Path) {
    if let Err(error) = remove(&shared_path(state_dir)) {
        tracing::debug!(%error, "the shared socket of an earlier agent stays");
    }
}

/// Serves a socket, and listens again if something else has removed its file.
pub(super) async fn serve<H: Host>(
    access: Access,
    mut listener: UnixListener,
    service: Arc<Service<H>>,
    callers: Callers,
) {
    let state_dir = service.node.settings.state.path();
    let mut file = identity(access, state_dir);
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
                if identity(access, state_dir) != file {
                    match listen(access, state_dir) {
                        Ok(new) => listener = new,
                        Err(error) => tracing::warn!(%error, "the agent's socket is gone"),
                    }
                    file = identity(access, state_dir);
                }
                continue;
            }
        };
        let (service, callers) = (Arc::clone(&service), callers.clone());
        let conversation = async move {
            if let Err(error) = converse(access, stream, &service, callers).await {
                tracing::debug!(%error, "a command closed its connection");
            }
            drop(place);
        };
        tokio::spawn(conversation.in_current_span());
    }
}

/// What sets the socket's file apart from any other.
fn identity(access: Access, state_dir: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(access.path(state_dir)).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

async fn converse<H: Host>(
    access: Access,
    mut stream: UnixStream,
    service: &Service<H>,
    callers: Callers,
) -> io::Result<()> {
    let credentials = stream.peer_cred()?;
    let (uid, gid) = (credentials.uid(), credentials.gid());
    let groups = callers.groups().join(", ");
    let rights = if callers.include(uid) {
        Rights::All
    } else {
        tokio::task::spawn_blocking(move || callers.rights(uid, gid)).await?
    };
    let (reader, mut writer) = stream.split();
    let mut line = String::new();
    // Who may do nothing here is answered without being read.
    let reply = if rights == Rights::Nothing {
        refused(uid, &groups)
    } else {
        let most = access.max_request_bytes();
        // One byte more shows that the request is too large.
        read_line(BufReader::new(reader.take(most + 1)), &mut line).await?;
        if line.len() as u64 > most {
            too_large(most)
        } else {
            answer(&line, service, &Caller { uid, rights }).await
        }
    };
    write(&mut writer, &reply).await
}

async fn read_line(mut reader: impl AsyncBufReadExt + Unpin, line: &mut String) -> io::Result<()> {
    tokio::time::timeout(TIMEOUT, reader.read_line(line)).await?.map(drop)
}

async fn write(writer: &mut (impl AsyncWriteExt + Unpin), reply: &Reply) -> io::Result<()> {
    let mut text = serde_json::to_string(reply)?;
    text.push('\n');
    tokio::time::timeout(TIMEOUT, writer.write_all(text.as_bytes())).await?
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, watch};
    use trigger_core::keyspace::Keyspace;
    use trigger_fleet::Fleet;
    use trigger_fleet::claim::ClaimState;
    use trigger_store::memory::MemoryStore;

    use super::super::connection::Connection;
    use super::super::metrics::Metrics;
    use super::super::recent_fires::RecentFires;
    use super::super::{Node, testing};
    use super::*;
    use crate::firing::Publisher;
    use crate::os::Os;
    use crate::state::Outbox;

    /// The requests to an agent that has no other task.
    fn service(dir: &Path) -> Service<Os> {
        let (settings, host) = (testing::settings(dir), Os::start());
        let outbox = Outbox::open(&settings.state).unwrap();
        let backends = settings.node_backends();
        let publisher = Publisher::new(host, None, Default::default(), Default::default(), backends);
        let fleet = Fleet::new(Arc::new(MemoryStore::default()), Keyspace::default());
        Service {
            node: Arc::new(Node { settings, metrics: Metrics::new(), fleet, host }),
            publisher: Arc::new(publisher),
            questions: mpsc::channel(1).0,
            outbox,
            recent_fires: RecentFires::new(host.wall()),
            link: watch::channel(Connection::NotTried).1,
            claim: watch::channel(ClaimState::Unregistered { trouble: None }).1,
            log_requests: None,
        }
    }

    /// The reply to a request whose line has so many bytes, its end included.
    async fn reply(access: Access, service: &Service<Os>, bytes: usize) -> Reply {
        let (agents, mut commands) = UnixStream::pair().unwrap();
        let request = r#"{"ask":"identity"}"#;
        let line = format!("{request}{}\n", " ".repeat(bytes - request.len() - 1));
        let asking = async move {
            // An agent that refuses a request does not read it to its end.
            let _ = commands.write_all(line.as_bytes()).await;
            let mut reply = String::new();
            BufReader::new(commands).read_line(&mut reply).await.unwrap();
            serde_json::from_str(&reply).unwrap()
        };
        let serving = converse(access, agents, service, Callers::new(Vec::new()));
        let (served, reply) = tokio::join!(serving, asking);
        served.unwrap();
        reply
    }

    #[tokio::test]
    async fn a_request_is_as_large_as_its_socket_takes_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let service = service(dir.path());
        for (access, most) in [(Access::Shared, 1024 * 1024), (Access::Own, 64 * 1024 * 1024)] {
            let largest = reply(access, &service, most).await;
            assert!(matches!(largest, Reply::Identity { .. }), "{largest:?}");
            match reply(access, &service, most + 1).await {
                Reply::Failed { message, .. } => {
                    assert!(message.contains(&format!("takes {most} bytes")), "{message}")
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
