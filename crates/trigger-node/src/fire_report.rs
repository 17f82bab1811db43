//! What became of a fired event.

use trigger_core::identity::Revision;

/// What became of an event, and what its firer should know besides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FireReport {
    pub fired: Fired,
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
