//! How a command fails: an exit code, and a sentence that says what happened, where, and what to do.
//!
//! The layers below return errors that name the failed operation and keep its source. Only this module decides
//! which exit code an error has.

use std::io;

use trigger_hub::{BackupError, HubError};
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
}

/// Why a command did not do what it was asked for.
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
        Self::failed(with_hint(&error))
    }
}

/// The commands that read the backend: they have nothing to spool, so a backend that fails is unreachable for them.
impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::unreachable(error.to_string())
    }
}

fn with_hint(error: &FileError) -> String {
    let hint = match error.source.kind() {
        io::ErrorKind::PermissionDenied => " (try as root, or with a --state-dir of your own)",
        _ => "",
    };
    format!("{error}{hint}")
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
            _ => Self::failed(error.to_string()),
        }
    }
}

impl From<trigger_node::failure::Failure> for Failure {
    fn from(failure: trigger_node::failure::Failure) -> Self {
        let exit = match failure.code {
            2 => Exit::Usage,
            3 => Exit::Config,
            4 => Exit::Unreachable,
            _ => Exit::Failed,
        };
        Self { exit, message: failure.message }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<Failure> for trigger_node::failure::Failure {
    fn from(failure: Failure) -> Self {
        Self { code: failure.exit as u8, message: failure.message }
    }
}
