//! Cancellations: the origin of an event, or an operator, ends deliveries that no run has covered yet (C6, C13).
//!
//! A cancellation stands beside the delivery that it ends, signed by the node that asks for it. The target decides whether
//! it counts ([`Policy::judge_cancellation`](crate::policy::Policy::judge_cancellation)).

use crate::delivery::DeliveryOutcome;
use crate::identity::Certname;
use crate::reason::one_line;
use crate::signer::Signer;
use crate::time::Timestamp;

/// The longest reason that an operator may give, in characters.
pub const MAX_REASON_CHARS: usize = 200;

/// The request to end a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancellation {
    /// The part of the event that lists the target, as in the delivery.
    pub part: u32,
    /// The node that asks for it, and signs it.
    pub by: Certname,
    /// When it was asked for, by the clock of that node. For display only.
    pub at: Timestamp,
    /// Why, in the words of an operator: one line of at most [`MAX_REASON_CHARS`] characters.
    pub reason: Option<String>,
}

impl Cancellation {
    /// A cancellation whose reason is brought to one line of bounded length.
    pub fn new(part: u32, by: Certname, at: Timestamp, reason: Option<&str>) -> Self {
        Self { part, by, at, reason: one_line(reason, MAX_REASON_CHARS) }
    }

    /// The outcome of a delivery that it ends.
    pub fn outcome(&self) -> DeliveryOutcome {
        DeliveryOutcome::Cancelled { by: self.by.clone(), reason: self.reason.clone() }
    }
}

/// A cancellation whose signature has been looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCancellation {
    /// The cancellation.
    pub cancellation: Cancellation,
    /// What is verified of the node that asks for it.
    pub signer: Signer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_of_bounded_length() {
        let reason = |text: &str| {
            Cancellation::new(0, "ops01".parse().unwrap(), Timestamp::from_unix_ms(0), Some(text)).reason
        };
        assert_eq!(reason(" wrong\nnode\u{1b}[2J ").as_deref(), Some("wrong node [2J"));
        assert_eq!(reason("  "), None);
        assert_eq!(reason(&"x".repeat(500)).map(|text| text.chars().count()), Some(MAX_REASON_CHARS + 1));
    }
}
