//! Events on their way from the node that fired them to the backend.

use std::collections::BTreeMap;

use crate::event::Event;
use crate::identity::{Certname, GroupName, KeyPrefix};

/// An event on its way to a backend, with all that publishing it needs: what an outbox file holds, and
/// what `trigger fire` hands to the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The backend's URL, as configured where it was fired.
    pub backend: String,
    /// Where in the backend.
    pub prefix: KeyPrefix,
    /// The event with all its targets, the suppressed ones too.
    pub event: Event,
    /// Targets that the loop guard left out, with its reasons: they get an outcome and no delivery.
    pub suppressed: BTreeMap<Certname, String>,
    /// Groups that the loop guard left out: their members get an outcome and no delivery.
    pub suppressed_groups: BTreeMap<GroupName, String>,
}
