//! The state of events and their deliveries, which is computed from the stored entries and never stored itself (C6).

use std::collections::{BTreeMap, BTreeSet};

use trigger_core::event::Event;
use trigger_core::identity::{Certname, EventId};
use trigger_core::keyspace::Range;
use trigger_core::node::NodeRecord;
use trigger_core::status::{DeliveryStatus, delivery_status};
use trigger_store::inquiry::WantedEvents;
use trigger_store::store::{StoreError, Watch};

use crate::fleet::Fleet;
use crate::stored_event::StoredEvent;
use crate::verifying::Unverified;

/// An event with the state of each of its deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventStatus {
    /// The event, with all its targets; group members as they were when it was fired are among the targets.
    pub event: Event,
    /// Each target, by certname.
    pub targets: BTreeMap<Certname, DeliveryStatus>,
    /// Parts that are missing or cannot be read: their targets are unknown.
    pub unreadable_parts: Vec<String>,
    /// The only target that is shown, where the backend shows no other to the node that asks.
    pub limited_to: Option<Certname>,
    /// What is stored of the event and does not count, because its node has not signed it, or not for certain, because its
    /// certificate is not trusted any more.
    pub unverified: Unverified,
    /// Who has asked for the end of deliveries that have not ended, by their target; see [`Fleet::note_cancellations`].
    pub cancellations: BTreeMap<Certname, Certname>,
}

impl EventStatus {
    /// Whether all its deliveries have ended.
    pub fn is_over(&self) -> bool {
        self.unreadable_parts.is_empty() && self.targets.values().all(|status| status.state.is_end())
    }

    pub(crate) fn of(stored: StoredEvent, nodes: &BTreeMap<Certname, NodeRecord>) -> Self {
        let id = stored.event.id;
        let unreadable_parts = stored.missing_parts().iter().map(|index| format!("part {index}")).collect();
        let outcomes = &stored.outcomes;
        let status = |certname: Certname| {
            let status = delivery_status(id, outcomes.get(&certname), nodes.get(&certname));
            (certname, status)
        };
        let targets = stored.targets.into_iter().map(status).collect();
        let (event, unverified) = (stored.event, stored.unverified);
        let cancellations = BTreeMap::new();
        Self { event, targets, unreadable_parts, limited_to: None, unverified, cancellations }
    }
}

impl Fleet {
    /// Reads one event and computes its state; `None` for an event that the backend does not know.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn event_status(&self, id: EventId) -> Result<Option<EventStatus>, StoreError> {
        let wanted = WantedEvents::These(vec![id]);
        if let Some(visible) = self.store().visible_events(self.prefix(), &wanted).await? {
            return Ok(self.visible_statuses(visible).await?.pop());
        }
        Ok(self.statuses(&[id]).await?.remove(&id))
    }

    /// The latest events in the backend's own order, newest first, at most `limit`.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn latest_events(&self, limit: usize) -> Result<Vec<EventStatus>, StoreError> {
        let wanted = WantedEvents::Latest(limit);
        if let Some(visible) = self.store().visible_events(self.prefix(), &wanted).await? {
            return self.visible_statuses(visible).await;
        }
        let mut wanted = self.newest_events().await?;
        wanted.truncate(limit);
        let mut events = self.statuses(&wanted).await?;
        Ok(wanted.iter().filter_map(|id| events.remove(id)).collect())
    }

    /// Reads some events and computes the states of those that are stored.
    pub(crate) async fn statuses(
        &self,
        wanted: &[EventId],
    ) -> Result<BTreeMap<EventId, EventStatus>, StoreError> {
        if wanted.is_empty() {
            return Ok(BTreeMap::new());
        }
        let ranges = wanted.iter().flat_map(|id| [Range::Event(*id), Range::Outcomes(*id)]);
        let records = self.read(&ranges.map(|range| self.all(&range)).collect::<Vec<_>>()).await?;
        let events = self.stored_events(records).await?;
        // A target with an outcome needs no registration to explain its state.
        let open: BTreeSet<&Certname> = events.values().flat_map(StoredEvent::open_targets).collect();
        let nodes = self.nodes_of(&open.into_iter().collect::<Vec<_>>()).await?;
        Ok(events.into_iter().map(|(id, stored)| (id, EventStatus::of(stored, &nodes))).collect())
    }

    /// Watches the outcomes of one event.
    ///
    /// # Errors
    /// When the backend cannot be watched now.
    pub async fn watch_outcomes(&self, event: EventId) -> Result<Watch, StoreError> {
        self.store().watch(vec![self.all(&Range::Outcomes(event))]).await
    }
}
