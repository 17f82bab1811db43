//! Why an event exists, and whether it may: the loop guard (C7).

use crate::identity::{Certname, EventId, TriggerName};

/// Chains one event carries at the most: one of each list of hops first, since the members of a group are judged by
/// the hops alone, then the shortest, since they permit the most.
pub const MAX_CHAINS: usize = 8;

/// What becomes of an event whose trigger already made its target run in the same chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Loops {
    /// It is suppressed.
    #[default]
    Avoid,
    /// It is delivered: only the length of the chain and the budget of its root end the loop.
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

/// The hops from a root event to the node that fires now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chain {
    /// The event at the start, fired outside any run of ours.
    pub root: EventId,
    /// Oldest first; empty for the root event itself.
    pub hops: Vec<Hop>,
}

/// All that led to an event: one chain for each cause that permitted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// At least one, at most [`MAX_CHAINS`], shortest first.
    pub chains: Vec<Chain>,
}

impl Lineage {
    /// The lineage of an event that no run of ours led to.
    pub fn root(id: EventId) -> Self {
        Self { chains: vec![Chain { root: id, hops: Vec::new() }] }
    }

    /// Whether nothing led to this event.
    pub fn is_root(&self) -> bool {
        self.chains.iter().all(|chain| chain.hops.is_empty())
    }

    /// Whether two events have the same past; two root events do, though each is its own root.
    pub fn is_same_past(&self, other: &Self) -> bool {
        (self.is_root() && other.is_root()) || self.chains == other.chains
    }
}
