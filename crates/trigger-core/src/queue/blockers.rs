//! What keeps a node from starting runs, and which of several blockers counts.
//!
//! The agent reports what it sees of each blocker ([`Blockers`]); the queue decides which one counts and shows its
//! reason at every delivery that waits. The order is that of [`Blocker`]: a blocker stands before those that matter
//! only once it is gone. A blocker that has to be acquired, such as a slot, belongs behind all of these, since it
//! must not be occupied while something else keeps the run from starting. The one that the queue finds by itself is
//! [`Blocker::Settling`]: it is for the events that wait, and so counts last.

use std::time::Duration;

/// A reason why no run may start. The variants stand in the order in which they count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocker {
    /// The agent has not taken up all runs of earlier agents yet. Until it has, it does not know which events they
    /// have honoured, nor whether one of them is still in progress (C10). Ends by itself.
    Recovering,
    /// Puppet knows this node by another certname than the one that the agent acts for, so that a run would converge
    /// another node than the one that the deliveries address. Ends when an operator moves the node to its new name.
    OtherCertname(String),
    /// Puppet has not reported yet what decides whether a run may start: its certname and its locks. Not to know is no
    /// permission; the agent asks on, and the sentence says what it waits for. Ends by itself.
    Unknown(String),
    /// The same, and the agent asks on, but Puppet fails or its lock cannot be read. Ends when an operator has mended
    /// what the sentence names.
    Broken(String),
    /// The agent may not act for its certname, so the deliveries may be another agent's to run (C11).
    Claim(ClaimBlocker),
    /// Puppet is disabled on this node. The sentence has the operator's message, as in
    /// `puppet agent --disable MESSAGE`.
    Disabled(String),
    /// An operator holds this node. The sentence says until when and why. Ends with its time, or with a release.
    Hold(String),
    /// PuppetDB has not stored the catalogs yet that the events were fired with, so that a run would lack what their
    /// origins export. Ends by itself, at the latest after `settle`.
    Settling {
        /// Whose catalog is awaited and until when, as a sentence.
        reason: String,
        /// When the run starts all the same, on the clock that only goes forward.
        until: Duration,
    },
}

/// What Puppet's own settings and files say against a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PuppetBlocker {
    /// See [`Blocker::OtherCertname`].
    OtherCertname(String),
    /// See [`Blocker::Unknown`].
    Unknown(String),
    /// See [`Blocker::Broken`].
    Broken(String),
    /// See [`Blocker::Disabled`].
    Disabled(String),
}

/// Why an agent may not act for its certname.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimBlocker {
    /// The backend has not answered the registration yet.
    NotRegistered,
    /// Another live agent holds the claim; the sentence says where it runs. An operator has to stop one of the two.
    Contended(String),
    /// Another agent holds the claim, and was not seen to live; the sentence says when this agent takes the claim over.
    Lapsing(String),
    /// The claim was this agent's, but it was renewed too long ago to be relied on; the sentence says why.
    Stale(String),
}

/// What the agent sees of the blockers outside the queue; absent ones keep nothing from running.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Blockers {
    /// See [`Blocker::Claim`].
    pub claim: Option<ClaimBlocker>,
    /// What Puppet's settings and files say against a run.
    pub puppet: Option<PuppetBlocker>,
    /// See [`Blocker::Hold`].
    pub hold: Option<String>,
}

impl Blocker {
    /// The blocker that counts, if there is any.
    pub(super) fn first(is_recovering: bool, reported: &Blockers) -> Option<Self> {
        let claim = || reported.claim.clone().map(Self::Claim);
        match reported.puppet.clone() {
            _ if is_recovering => Some(Self::Recovering),
            Some(PuppetBlocker::OtherCertname(reason)) => Some(Self::OtherCertname(reason)),
            Some(PuppetBlocker::Unknown(reason)) => Some(Self::Unknown(reason)),
            Some(PuppetBlocker::Broken(reason)) => Some(Self::Broken(reason)),
            Some(PuppetBlocker::Disabled(reason)) => Some(claim().unwrap_or(Self::Disabled(reason))),
            None => claim().or_else(|| reported.hold.clone().map(Self::Hold)),
        }
    }

    /// Whether it stays until an operator does something, or for as long as an operator wants. The deliveries behind it are held; behind any other they are
    /// pending.
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::Recovering | Self::Unknown(_) | Self::Settling { .. } => false,
            Self::Claim(claim) => matches!(claim, ClaimBlocker::Contended(_)),
            Self::OtherCertname(_) | Self::Broken(_) | Self::Disabled(_) | Self::Hold(_) => true,
        }
    }

    /// The name of the variant, for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Recovering => "recovering",
            Self::OtherCertname(_) => "other_certname",
            Self::Unknown(_) => "unknown",
            Self::Broken(_) => "broken",
            Self::Claim(_) => "claim",
            Self::Disabled(_) => "disabled",
            Self::Hold(_) => "hold",
            Self::Settling { .. } => "settling",
        }
    }

    /// The reason as a sentence, for the status of the deliveries that wait.
    pub fn reason(&self) -> &str {
        match self {
            Self::Recovering => "this agent takes up the runs of an earlier one",
            Self::Claim(claim) => claim.reason(),
            Self::OtherCertname(reason)
            | Self::Unknown(reason)
            | Self::Broken(reason)
            | Self::Disabled(reason)
            | Self::Hold(reason)
            | Self::Settling { reason, .. } => reason,
        }
    }
}

impl PuppetBlocker {
    /// The reason as a sentence.
    pub fn reason(&self) -> &str {
        match self {
            Self::OtherCertname(reason)
            | Self::Unknown(reason)
            | Self::Broken(reason)
            | Self::Disabled(reason) => reason,
        }
    }
}

impl ClaimBlocker {
    /// The reason as a sentence.
    pub fn reason(&self) -> &str {
        match self {
            Self::NotRegistered => "this agent has not registered with the backend yet",
            Self::Contended(reason) | Self::Lapsing(reason) | Self::Stale(reason) => reason,
        }
    }
}
