//! The errors of the agent.

use std::io;
use std::path::PathBuf;

use trigger_core::identity::Certname;
use trigger_store::kinds;
use trigger_store::url::BackendUrl;

use crate::file_error::FileError;
use crate::fire_error::BackendError;

/// An agent could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another process runs the agent of the state directory.
    #[error("another agent already runs in {}; give this one a --state-dir of its own", path.display())]
    AlreadyRunning {
        /// The state directory.
        path: PathBuf,
    },
    /// The state directory belongs to another certname than the one that the agent is to have from now on.
    #[error(
        "the state directory {} belongs to {owner}, not to {certname}: to move this node over to {certname}, run \
         'trigger rename'; otherwise give each certname a --state-dir of its own",
        path.display()
    )]
    OtherOwner {
        /// The state directory.
        path: PathBuf,
        /// The certname that the directory belongs to.
        owner: Certname,
        /// The other certname.
        certname: Certname,
    },
    /// The backend takes events and cannot deliver them.
    #[error(
        "backend '{url}' only takes events: an agent needs one that delivers them, such as {}",
        kinds::readable_schemes()
    )]
    WriteOnlyBackend {
        /// The backend's URL.
        url: BackendUrl,
    },
    /// The backend cannot be opened.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The state directory, or the lock in it, is not there any more.
    #[error(
        "{} was removed or replaced while the agent used it: the agent stops, and its next start creates what is missing",
        path.display()
    )]
    StateDirGone {
        /// The state directory.
        path: PathBuf,
    },
    /// The signals that stop or reload the agent cannot be received.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] io::Error),
    /// The processes of a run cannot be found, so a run that takes too long could not be ended.
    #[error("cannot read the processes of this system in /proc: mount it, because runs are ended by it")]
    NoProcessTable,
    /// The node's commands could not reach the agent.
    #[error("cannot listen on {}: {source}", path.display())]
    Listen {
        /// The path of the socket.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A file of the state directory could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A task of the agent ended, by a panic.
    #[error("a part of the agent ended unexpectedly; see its log")]
    PartEnded,
}
