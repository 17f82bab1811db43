//! An event that this node's outbox has and the backend does not have.

use std::io;

use trigger_core::delivery::DeliveryState;
use trigger_core::identity::{Certname, EventId};
use trigger_core::publication::Publication;
use trigger_core::status::DeliveryStatus;
use trigger_fleet::status::EventStatus;
use trigger_node::state::{Outbox, StateDir, is_of_expiry};

use crate::failure::Failure;
use crate::warnings::Warnings;

pub(super) struct SpooledEvent {
    pub(super) publication: Publication,
    /// Spooled; or refused or expired if it was quarantined.
    pub(super) state: DeliveryState,
    pub(super) reason: String,
}

/// Looks for an event in this node's outbox. Without the permission to look there, it warns and finds nothing.
pub(super) fn find(
    state: &StateDir,
    event: EventId,
    warnings: &Warnings,
) -> Result<Option<SpooledEvent>, Failure> {
    let found = match Outbox::find(state, event) {
        Err(error) if error.source.kind() == io::ErrorKind::PermissionDenied => {
            warnings.push(format!("cannot look for the event in this node's outbox: {error}"));
            return Ok(None);
        }
        found => found?,
    };
    Ok(found.map(|(publication, quarantined)| {
        let (state, reason) = match quarantined {
            None => (
                DeliveryState::Spooled,
                "in this node's outbox: the backend has not committed it yet".to_owned(),
            ),
            Some(why) => (
                if is_of_expiry(&why) { DeliveryState::Expired } else { DeliveryState::Refused },
                format!("quarantined on this node and never published: {why}"),
            ),
        };
        SpooledEvent { publication, state, reason }
    }))
}

impl SpooledEvent {
    /// The states of its deliveries to nodes. The members of its groups are known only to the backend.
    pub(super) fn status(&self) -> EventStatus {
        let status = |certname: &Certname| {
            let (state, reason) = match self.publication.suppressed.get(certname) {
                Some(reason) => (DeliveryState::Suppressed, reason),
                None => (self.state, &self.reason),
            };
            let reason = Some(reason.clone());
            let status = DeliveryStatus { state, run: None, reason, successor: None, last_seen: None };
            (certname.clone(), status)
        };
        let event = self.publication.event.clone();
        let targets = event.targets.hosts.iter().map(status).collect();
        EventStatus {
            event,
            targets,
            unreadable_parts: Vec::new(),
            limited_to: None,
            unverified: Default::default(),
            cancellations: Default::default(),
        }
    }
}
