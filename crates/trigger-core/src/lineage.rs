//! Lineage: the chains of triggers and nodes that led to an event (C7). The loop guard decides by it.

use crate::identity::{Certname, EventId, TriggerName};

/// The most chains that one event carries. Chains with different hops come first, since the members of a group decide
/// by the hops alone; then the shortest ones, since they permit the most.
pub const MAX_CHAINS: usize = 8;

/// Whether a trigger may make a target run again in the same chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Loops {
    /// The event is suppressed at that target.
    #[default]
    Avoid,
    /// The event is delivered. Only the limits on hops and on fires for one root event end the loop.
    Allow,
}

/// One step of a chain: `trigger` made `certname` run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hop {
    /// The trigger that fired.
    pub trigger: TriggerName,
    /// The node that ran because of it.
    pub certname: Certname,
}

/// The hops from a root event to the node on which the next event is fired.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chain {
    /// The event at the start of the chain, which was fired outside any supervised run.
    pub root: EventId,
    /// The hops, oldest first; empty for the root event itself.
    pub hops: Vec<Hop>,
}

/// What led to an event: chains through the causes of the run that fired it, as far as they permit the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// At least one chain and at most [`MAX_CHAINS`], shortest first.
    pub chains: Vec<Chain>,
}

impl Lineage {
    /// The lineage of a root event.
    pub fn root(id: EventId) -> Self {
        Self { chains: vec![Chain { root: id, hops: Vec::new() }] }
    }

    /// Whether this is the lineage of a root event.
    pub fn is_root(&self) -> bool {
        self.chains.iter().all(|chain| chain.hops.is_empty())
    }

    /// Whether two events have the same past. Two root events do, although each is a root of its own.
    pub fn is_same_past(&self, other: &Self) -> bool {
        (self.is_root() && other.is_root()) || self.chains == other.chains
    }
}
