//! How a command fails: the exit code and the sentence.

use crate::state::FileError;

/// 1: the operation failed.
pub const FAILED: u8 = 1;
/// 2: the command line cannot be understood (clap uses it too).
pub const USAGE: u8 = 2;
/// 3: the configuration is wrong.
pub const CONFIG: u8 = 3;
/// 4: the backend is unreachable and nothing could be spooled.
pub const UNREACHABLE: u8 = 4;

/// Why a command did not do as asked.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    /// What happened, where, and what to do.
    pub message: String,
}

impl Failure {
    pub fn failed(message: impl Into<String>) -> Self {
        Self { code: FAILED, message: message.into() }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: message.into() }
    }

    pub fn config(message: impl Into<String>) -> Self {
        Self { code: CONFIG, message: message.into() }
    }

    pub fn unreachable(message: impl Into<String>) -> Self {
        Self { code: UNREACHABLE, message: message.into() }
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let hint = match error.source.kind() {
            std::io::ErrorKind::PermissionDenied => " (try as root, or with a --state-dir of your own)",
            _ => "",
        };
        Self::failed(format!("{error}{hint}"))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(format!("{error:#}"))
    }
}
