//! What a client asks of a store, as far as its admission depends on it.

use crate::cancellation::Cancellation;
use crate::certificate::CertificateRef;
use crate::delivery::{Delivery, DeliveryOutcome};
use crate::event::Part;
use crate::holds::HoldOrder;
use crate::keyspace::{Key, Range};

/// One key or range of a request, and what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write a value, whatever is stored.
    Put {
        /// Where.
        key: Key,
        /// What.
        value: Value,
    },
    /// Write a value if the stored one is as expected.
    CompareAndSwap {
        /// Where.
        key: Key,
    },
    /// Delete a value.
    Delete {
        /// Which.
        key: Key,
    },
    /// Read values, or list their keys.
    Read(Scope),
    /// Read values, and receive their changes.
    Watch(Scope),
}

/// What is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// One value.
    Key(Key),
    /// All values of a range.
    Range(Range),
    /// More than any range: all that is stored of the fleet, or of one kind.
    All,
}

/// A value to write, as far as it decides who may write it. Its stored form is read by the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A part of an event.
    Part(Box<Part>),
    /// A delivery.
    Delivery(Delivery),
    /// The request to end a delivery.
    Cancellation(Box<Cancellation>),
    /// An order to hold or release a node.
    Hold(Box<HoldOrder>),
    /// How a delivery ended.
    Outcome(Box<DeliveryOutcome>),
    /// A portion of an event's members, so many.
    Members(usize),
    /// A request for the output of a run.
    LogRequest {
        /// Whether its reader asks as an operator.
        as_operator: bool,
    },
    /// A certificate that the fleet's CA has signed, by its node and its fingerprint.
    Certificate(CertificateRef),
    /// A value that this program cannot read, with what is wrong with it.
    Unreadable(String),
    /// A value of another kind. Only its key decides.
    Other,
}

impl Value {
    /// How many targets it names for which a sweep may store an outcome.
    pub fn targets(&self) -> usize {
        match self {
            Self::Part(part) => part.event.targets.hosts.len(),
            Self::Members(count) => *count,
            _ => 0,
        }
    }
}
