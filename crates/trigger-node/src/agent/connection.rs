//! Whether the agent reaches its backend.

/// Whether the backend is watched now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Connection {
    Up,
    Down(String),
}
