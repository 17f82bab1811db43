//! An event that this node's outbox has and the backend has not.

use std::io;

use trigger_core::delivery::DeliveryState;
use trigger_core::identity::{Certname, EventId};
use trigger_core::publication::Publication;
use trigger_core::status::DeliveryStatus;
use trigger_fleet::status::EventStatus;

use trigger_node::Warnings;
use trigger_node::failure::Failure;
use trigger_node::state::{EXPIRED, Outbox, StateDir};

pub(super) struct SpooledEvent {
    pub(super) publication: Publication,
    /// Spooled; or refused or expired, where it was quarantined.
    pub(super) state: DeliveryState,
    pub(super) reason: String,
}

/// Nothing where this node does not know the event, or does not let this user look.
pub(super) fn find(
    state: &StateDir,
    event: EventId,
    warnings: &Warnings,
) -> Result<Option<SpooledEvent>, Failure> {
    let found = match Outbox::find(state, event) {
        Err(error) if error.source.kind() == io::ErrorKind::PermissionDenied => {
            warnings.push(format!("whether this node's outbox has the event is not known: {error}"));
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
                if why == EXPIRED { DeliveryState::Expired } else { DeliveryState::Refused },
                format!("quarantined on this node and never published: {why}"),
            ),
        };
        SpooledEvent { publication, state, reason }
    }))
}

impl SpooledEvent {
    /// Where its deliveries to nodes stand. Who the members of its groups are only the backend knows.
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
        EventStatus { event, targets, unreadable_parts: Vec::new() }
    }
}
