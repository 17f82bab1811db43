//! The fires that a node counts for the loop guard.

use crate::identity::{EventId, TriggerName};
use crate::time::Timestamp;

/// A line of the file that counts fires for the loop guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FireNote {
    /// The event at the start of the chain.
    pub root: EventId,
    /// When, by this node's clock.
    pub noted_at: Timestamp,
    /// What fired.
    pub trigger: TriggerName,
    /// Whether this takes back an earlier note of the same fire.
    pub is_taken_back: bool,
}
