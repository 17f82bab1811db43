//! Why an event could not be fired.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use trigger_fleet::publishing::PublishError;
use trigger_store::backend::OpenError;
use trigger_store::url::InvalidUrl;

use crate::file_error::FileError;

/// A backend could not be opened. No server has been asked yet: the configuration is wrong.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The URL selects no backend.
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    /// The backend refuses the URL or the credentials.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The program was built without the feature `clients`.
    #[error("'{url}' cannot be opened: this program was built without backends")]
    NotBuiltIn {
        /// The backend's URL.
        url: String,
    },
}

/// An event was not fired, or is quarantined.
#[derive(Debug, thiserror::Error)]
pub enum FireError {
    /// The event's backend cannot be opened. Nothing was stored.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The backend can never take the event, and the event is not in the outbox.
    #[error(transparent)]
    Publish(PublishError),
    /// The backend could not be reached, and the outbox could not be written.
    #[error("{source}; and nothing could be spooled ({reason}): fire again")]
    NotSpooled {
        /// Why the outbox could not be written.
        reason: String,
        /// What became of publishing.
        source: PublishError,
    },
    /// The backend can never take the event, which was in the outbox.
    #[error("{source} (the event is kept in {})", path.display())]
    Quarantined {
        /// The file that keeps the event.
        path: PathBuf,
        /// What became of publishing.
        source: PublishError,
    },
    /// The outbox could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// This node's agent could not fire the event.
    #[error("{message}")]
    ByAgent {
        /// The kind of the agent's error.
        kind: FireErrorKind,
        /// The agent's error as a sentence.
        message: String,
    },
}

/// What a fire failed at. Commands have an exit code for each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FireErrorKind {
    /// The operation failed.
    Failed,
    /// The configuration is wrong.
    Configuration,
    /// The backend is unreachable and the event could not be spooled.
    Unreachable,
}

impl FireError {
    /// What the fire failed at.
    pub fn kind(&self) -> FireErrorKind {
        match self {
            Self::Backend(_) => FireErrorKind::Configuration,
            Self::NotSpooled { .. } => FireErrorKind::Unreachable,
            Self::ByAgent { kind, .. } => *kind,
            Self::Publish(_) | Self::Quarantined { .. } | Self::File(_) => FireErrorKind::Failed,
        }
    }
}
