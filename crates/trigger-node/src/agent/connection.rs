//! The state of the agent's connection to its backend.

/// Whether the agent watches its backend now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Connection {
    /// Deliveries are read only once this agent holds its claim.
    NotTried,
    Up,
    Down(String),
}
