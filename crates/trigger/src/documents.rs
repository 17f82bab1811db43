//! The JSON documents that the commands print with `--output json`: one type for each document, and nothing else
//! builds JSON for users.
//!
//! A document always has all its fields, in the order of its type: a value that is absent is `null` or an empty
//! list. Golden files (`documents/golden/`) pin the text of each document. The JSON Schemas in `docs/schema/` are
//! generated from these types, whose comments become the descriptions. After a change, write both again with
//! `SNAPSHOTS=overwrite cargo test -p trigger`.
//!
//! The agent answers `trigger queue` over its socket with a [`trigger_node::queue_view::QueueView`]. That form belongs to
//! the socket's protocol and may change with every version; [`Queue`] is the documented form of the same facts.

mod diagnosis;
mod etcd_roles;
mod event;
mod facts;
mod hold;
mod log;
mod nodes;
mod policy;
mod queue;
mod rename;
mod text;
mod why;

use serde::Serialize;

pub(crate) use diagnosis::Diagnosis;
pub(crate) use etcd_roles::EtcdRoles;
pub(crate) use event::{
    CancelledEvent, Event, EventStatus, FireState, FireTarget, Fired, FollowedEvent, LatestEvents,
    SuppressedGroup, unreadable_parts,
};
pub(crate) use facts::Facts;
pub(crate) use hold::{HoldOrders, OrderState, OrderedNode};
pub(crate) use log::RunLog;
pub(crate) use nodes::{ForgottenNode, Nodes, OpenDelivery};
pub(crate) use policy::PolicyDecision;
pub(crate) use queue::{OutboxChange, OutboxList, QuarantinedFile, Queue, SpooledEvent};
pub(crate) use rename::Renamed;
pub(crate) use text::{Text, Time};
pub(crate) use why::Why;

/// What `trigger hub backup` prints.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Backup {
    /// The hub's data directory.
    pub(crate) data_dir: String,
    /// The file that the data was copied into.
    pub(crate) file: String,
    /// What the reader should know besides.
    pub(crate) warnings: Vec<String>,
}

/// What every command prints when it fails; the exit code says what kind of failure it is.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Error {
    /// What happened, where, and what to do.
    pub(crate) error: String,
    /// What the command found out before it failed.
    pub(crate) warnings: Vec<String>,
}

#[cfg(test)]
mod tests;
