//! What one node may see of the fleet's events, where the backend knows its clients: all of the events that it has fired,
//! and of the others what concerns it. The backend's side and the node's own.

use std::collections::BTreeMap;

use trigger_core::delivery::Members;
use trigger_core::event::Part;
use trigger_core::identity::{Certname, EventId, Revision};
use trigger_core::keyspace::{Key, Range};
use trigger_store::inquiry::VisibleEvents;
use trigger_store::store::{Entry, StoreError};

use crate::fleet::Fleet;
use crate::status::EventStatus;

impl Fleet {
    /// Lists all events in the backend's own order, newest first. Reading them would be too much: the parts of one event
    /// for ten thousand targets are 280 kB.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn newest_events(&self) -> Result<Vec<EventId>, StoreError> {
        // By revision, not by id: an id is only as right as the clock of its origin (C12).
        let mut newest: BTreeMap<EventId, Revision> = BTreeMap::new();
        for (key, revision) in self.list(&[self.all(&Range::Events)]).await? {
            if let Key::Part { event, .. } = key {
                let known = newest.entry(event).or_insert(revision);
                *known = revision.max(*known);
            }
        }
        let mut ids: Vec<_> = newest.into_iter().map(|(event, revision)| (revision, event)).collect();
        ids.sort_unstable();
        Ok(ids.into_iter().rev().map(|(_, event)| event).collect())
    }

    /// Returns those of `events` that are stored, in their order.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn stored_among(&self, events: &[EventId]) -> Result<Vec<EventId>, StoreError> {
        let ranges: Vec<_> = events.iter().map(|event| self.all(&Range::Event(*event))).collect();
        let mut stored = Vec::new();
        for (key, _) in self.list(&ranges).await? {
            if let Key::Part { event, .. } = key
                && !stored.contains(&event)
            {
                stored.push(event);
            }
        }
        Ok(stored)
    }

    /// Reads what concerns `certname` of an event that another node has fired: the parts and the lists of members that
    /// name it, and its outcome. The first part is always among them, because it has the groups.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn entries_about(&self, event: EventId, certname: &Certname) -> Result<Vec<Entry>, StoreError> {
        let outcome = Key::Outcome { event, certname: certname.clone() };
        let mut entries = self.store().read(&[self.all(&Range::Event(event)), self.one(&outcome)]).await?;
        entries.retain(|entry| match self.keyspace().parse(&entry.key) {
            Some(Key::Part { index, .. }) => {
                let names_it = |part: Part| part.event.targets.hosts.contains(certname);
                index == 0 || self.decode(&entry.value).is_ok_and(names_it)
            }
            Some(Key::Members { .. }) => {
                self.decode(&entry.value).is_ok_and(|Members(members)| members.contains(certname))
            }
            Some(Key::Outcome { .. }) => true,
            _ => false,
        });
        Ok(entries)
    }

    /// The states of the events that the backend shows to this node.
    pub(crate) async fn visible_statuses(
        &self,
        visible: VisibleEvents,
    ) -> Result<Vec<EventStatus>, StoreError> {
        let whole: Vec<EventId> =
            visible.events.iter().filter(|shown| shown.is_whole).map(|shown| shown.event).collect();
        let mut statuses = self.statuses(&whole).await?;
        if let Some(asker) = &visible.asker {
            let nodes = self.nodes_of(&[asker]).await?;
            for (id, mut stored) in self.stored_events(self.records(visible.entries)).await? {
                stored.targets.retain(|target| target == asker);
                let status = EventStatus::of(stored, &nodes);
                let (limited_to, unreadable_parts) = (Some(asker.clone()), Vec::new());
                statuses.insert(id, EventStatus { limited_to, unreadable_parts, ..status });
            }
        }
        Ok(visible.events.iter().filter_map(|shown| statuses.remove(&shown.event)).collect())
    }
}
