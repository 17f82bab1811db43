//! Questions that a backend may answer by itself, because it knows who asks and what concerns the asker. All other backends
//! leave them to the layers above, which read what they need.

use trigger_core::identity::{Certname, EventId};

use crate::entry::Entry;

/// The most events that one question asks for.
pub const MAX_EVENTS: usize = 100;

/// Events that are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WantedEvents {
    /// These.
    These(Vec<EventId>),
    /// The latest, so many.
    Latest(usize),
}

/// What the asker may see of the events that it asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VisibleEvents {
    /// Those that are stored, in the order that was asked for; the latest ones newest first.
    pub events: Vec<VisibleEvent>,
    /// All that the asker may see of the events that it does not see whole.
    pub entries: Vec<Entry>,
    /// The asker, where the backend knows it.
    pub asker: Option<Certname>,
    /// Whether the asker may read what concerns other nodes alone, as far as the backend says.
    pub sees_all: bool,
}

/// An event that the asker may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VisibleEvent {
    /// The event.
    pub event: EventId,
    /// Whether the asker may read all that is stored of it; otherwise what concerns the asker is among the entries.
    pub is_whole: bool,
}
