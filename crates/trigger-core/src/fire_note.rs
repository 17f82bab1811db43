//! The fires that a node counts for the loop guard.

use crate::identity::{EventId, TriggerName};
use crate::time::Timestamp;

/// An entry of the log of fires, by which the loop guard counts how often a trigger has fired for a root event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FireNote {
    /// The root event of the chain.
    pub root: EventId,
    /// When the entry was written, by this node's clock.
    pub noted_at: Timestamp,
    /// The trigger that fired.
    pub trigger: TriggerName,
    /// Whether this entry cancels an earlier one, because the fire failed.
    pub is_taken_back: bool,
}
