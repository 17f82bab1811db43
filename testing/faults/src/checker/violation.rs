//! The finding of a check.

use std::fmt;

/// A violation of the contract, with its proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The sentence of the contract that is violated.
    pub(crate) rule: &'static str,
    /// The finding.
    pub(crate) found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.found)
    }
}
