//! Events on their way from the node that fired them to the backend.

use std::collections::BTreeMap;

use crate::event::Event;
use crate::identity::{Certname, GroupName, KeyPrefix};

/// An event with everything that is needed to publish it. It is the content of an outbox file, and what
/// `trigger fire` submits to the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The backend's URL, as configured where the event was fired. If nothing was configured there: empty, or the bare
    /// name of a kind; the event is then for the backend that its node gets configured.
    pub backend: String,
    /// The prefix of the fleet's keys in the backend.
    pub prefix: KeyPrefix,
    /// The event with all its targets, including the suppressed nodes. Suppressed groups are no longer among them.
    pub event: Event,
    /// Nodes that the loop guard suppressed, with its reasons. They get an outcome and no delivery.
    pub suppressed: BTreeMap<Certname, String>,
    /// Groups that the loop guard suppressed, with its reasons. Their members get an outcome and no delivery.
    pub suppressed_groups: BTreeMap<GroupName, String>,
}
