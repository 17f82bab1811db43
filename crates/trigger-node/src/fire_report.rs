//! What became of a fired event.

use trigger_core::identity::Revision;

/// Where a fired event is, and what its user should know besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FireReport {
    /// Where the event is.
    pub fired: Fired,
    /// Sentences for the user. A warning does not make the fire fail.
    pub warnings: Vec<String>,
}

impl From<Fired> for FireReport {
    fn from(fired: Fired) -> Self {
        Self { fired, warnings: Vec::new() }
    }
}

/// Where an event is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fired {
    /// The backend has it.
    Committed(Revision),
    /// It is safe in the outbox; the reason says why it is not in the backend yet.
    Spooled(String),
}
