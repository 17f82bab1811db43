//! Deliveries that end, and what the queue remembers of them.

use std::collections::BTreeSet;

use crate::dedup::HonouredEvent;
use crate::delivery::DeliveryOutcome;
use crate::event::Target;
use crate::identity::EventId;
use crate::run::record::Cause;
use crate::time::Timestamp;

/// An event that ended here.
#[derive(Debug, Clone)]
pub(super) struct CompletedEvent {
    pub(super) honoured: HonouredEvent,
    /// The outcome, where no run produced it. It is stored again when the delivery is read again without an outcome,
    /// because a backend that was restored from a backup has lost it. The outcome of a run is in the run's record.
    pub(super) without_run: Option<DeliveryOutcome>,
}

/// A delivery that ends.
pub(super) struct Ended {
    pub(super) event: EventId,
    pub(super) addressed_as: BTreeSet<Target>,
    pub(super) outcome: DeliveryOutcome,
    /// Until when the event could run; absent for one that never could.
    pub(super) expires_at: Option<Timestamp>,
}

impl From<(Cause, DeliveryOutcome)> for Ended {
    fn from((cause, outcome): (Cause, DeliveryOutcome)) -> Self {
        let expires_at = Some(cause.event.expires_at());
        Self { event: cause.event.id, addressed_as: cause.addressed_as, outcome, expires_at }
    }
}
