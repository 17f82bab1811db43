//! The request to `trigger fire`, and its result.

use std::collections::BTreeSet;
use std::time::Duration;

use trigger_core::event::RunOptions;
use trigger_core::identity::{Certname, GroupName, RunId, TriggerName};
use trigger_core::lineage::Loops;
use trigger_node::fire_error::FireError;
use trigger_node::firing::Fired;

/// The request to a `trigger fire`.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) trigger: TriggerName,
    pub(crate) hosts: BTreeSet<Certname>,
    pub(crate) groups: BTreeSet<GroupName>,
    pub(crate) options: RunOptions,
    pub(crate) ttl: u32,
    pub(crate) loops: Loops,
    pub(crate) expires_in: Duration,
    /// The run that the environment names.
    pub(crate) run: Option<RunId>,
}

/// The result of a `trigger fire`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Committed,
    Spooled,
    Failed(String),
}

impl From<Result<Fired, FireError>> for Answer {
    fn from(fired: Result<Fired, FireError>) -> Self {
        match fired {
            Ok(Fired::Committed(_)) => Self::Committed,
            Ok(Fired::Spooled(_)) => Self::Spooled,
            Err(error) => Self::Failed(error.to_string()),
        }
    }
}
