//! Why a client may not do what it asked for.

use std::fmt;

use super::actor::Actor;

/// A denied action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Denial {
    /// Whether the same request may be allowed later.
    pub kind: DenialKind,
    /// What the client may not do, and why, for people.
    pub sentence: String,
}

/// Whether a denied request may be allowed later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialKind {
    /// The client has no right to it.
    Forbidden,
    /// It depends on something that is not stored yet, or on a clock or a version that has to be set right.
    NotYet,
    /// The value is larger than any of its kind.
    TooLarge,
}

impl Denial {
    /// `actor` has no right to `act`, such as "delete nodes/a". `rule` says what it may do.
    pub(super) fn forbidden(actor: &Actor, act: impl fmt::Display, rule: impl fmt::Display) -> Self {
        Self { kind: DenialKind::Forbidden, sentence: format!("{actor} may not {act}: {rule}") }
    }

    /// `actor` cannot do it now, and `reason` says why.
    pub(super) fn not_yet(actor: &Actor, act: impl fmt::Display, reason: impl fmt::Display) -> Self {
        Self { kind: DenialKind::NotYet, sentence: format!("{actor} cannot {act} yet: {reason}") }
    }
}
