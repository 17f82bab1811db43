//! The failure of a command: an exit code, and a sentence that says what happened, where, and what to do.
//!
//! The layers below return errors that name the failed operation and keep its source. Only this module decides
//! which exit code an error has.

use std::fmt;
use std::io;

use trigger_hub::{BackupError, HubError, SqliteError};
use trigger_node::agent::AgentError;
use trigger_node::fire_chain::WaitError;
use trigger_node::fire_error::{BackendError, FireError, FireErrorKind};
use trigger_node::state::FileError;
use trigger_store::store::StoreError;

/// The exit codes, as `trigger --help` documents them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The operation failed.
    Failed = 1,
    /// The command line cannot be understood; clap uses the same code.
    Usage = 2,
    /// The configuration is wrong.
    Config = 3,
    /// The backend is unreachable and the event could not be spooled.
    Unreachable = 4,
    /// The hub's data are gone: it must not be started again before an operator has restored them.
    DataGone = 5,
}

/// The error of a command.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// What happened, where, and what to do.
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }

    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self { exit: Exit::Config, message: message.into() }
    }

    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self { exit: Exit::Unreachable, message: message.into() }
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        file_failure(&error)
    }
}

/// The commands that read the backend: they have nothing to spool, so a backend that fails is unreachable for them.
impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::unreachable(error.to_string())
    }
}

fn file_failure(error: &FileError) -> Failure {
    let hint = match error.source.kind() {
        io::ErrorKind::PermissionDenied => " (try as root, or with a --state-dir of your own)",
        _ => "",
    };
    Failure::failed(format!("{error}{hint}"))
}

/// For logs, where an exit code means nothing.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        match error {
            HubError::InvalidListen(_) => Self::config(error.to_string()),
            HubError::Store(
                SqliteError::Gone(_) | SqliteError::Lost { .. } | SqliteError::Missing { .. },
            ) => Self { exit: Exit::DataGone, message: error.to_string() },
            _ => Self::failed(error.to_string()),
        }
    }
}

/// Opening a backend only reads the configuration.
impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        Self::config(error.to_string())
    }
}

impl From<FireError> for Failure {
    fn from(error: FireError) -> Self {
        let exit = match error.kind() {
            FireErrorKind::Failed => Exit::Failed,
            FireErrorKind::Configuration => Exit::Config,
            FireErrorKind::Unreachable => Exit::Unreachable,
        };
        match &error {
            FireError::File(file) => file_failure(file),
            error => Self { exit, message: error.to_string() },
        }
    }
}

impl From<WaitError> for Failure {
    fn from(error: WaitError) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::OtherOwner { .. } | AgentError::WriteOnlyBackend { .. } => {
                Self::config(error.to_string())
            }
            AgentError::Backend(error) => error.into(),
            AgentError::File(error) => error.into(),
            _ => Self::failed(error.to_string()),
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
