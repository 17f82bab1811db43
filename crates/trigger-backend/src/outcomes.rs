//! How deliveries ended: stored by their target, read by everybody else.

use std::collections::{BTreeMap, BTreeSet};

use trigger_core::event::{Event, Part};
use trigger_core::identity::{Certname, EventId};
use trigger_core::layout::{Layout, Place};
use trigger_core::outcome::End;
use trigger_core::queue::{Ending, Source};
use trigger_core::status::{DeliveryStatus, NodeRecord, delivery_status};
use trigger_core::wire::{Members, Stored};

use crate::registry;
use crate::store::{Entry, KeyRange, Store, StoreError};

/// Stores how deliveries ended, then deletes them: the last two steps of the order at a run's end
/// (contract 4). Idempotent. A group's delivery belongs to all its members and stays.
pub async fn finish(
    store: &dyn Store,
    layout: &Layout,
    certname: &Certname,
    endings: &[Ending],
) -> Result<(), StoreError> {
    let outcomes =
        endings.iter().map(|ending| (layout.outcome(ending.event, certname), ending.end.to_wire())).collect();
    for result in store.put_many(outcomes).await {
        result?;
    }
    let sources = endings.iter().map(|ending| (ending.event, &ending.sources));
    delete(store, layout, certname, sources).await
}

/// Deletes a node's own deliveries of events that ended.
pub async fn delete<'a>(
    store: &dyn Store,
    layout: &Layout,
    certname: &Certname,
    ended: impl IntoIterator<Item = (EventId, &'a BTreeSet<Source>)>,
) -> Result<(), StoreError> {
    let own = ended.into_iter().filter(|(_, sources)| sources.contains(&Source::Host));
    let keys: Vec<String> = own.map(|(event, _)| layout.host_delivery(certname, event)).collect();
    if keys.is_empty() { Ok(()) } else { store.delete_many(keys).await }
}

/// An event with where each of its deliveries stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventStatus {
    /// The event, with all its targets; group members as they were when it was fired are among the targets.
    pub event: Event,
    /// Each target, by certname.
    pub targets: BTreeMap<Certname, DeliveryStatus>,
    /// Parts that are missing or cannot be read: their targets are unknown.
    pub unreadable_parts: Vec<String>,
}

impl EventStatus {
    /// Whether nothing more will happen.
    pub fn is_over(&self) -> bool {
        self.unreadable_parts.is_empty() && self.targets.values().all(|status| status.state.is_end())
    }
}

/// Reads one event and computes where it stands; nothing for an event the backend does not know.
pub async fn event_status(
    store: &dyn Store,
    layout: &Layout,
    id: EventId,
) -> Result<Option<EventStatus>, StoreError> {
    let ranges = [KeyRange::Folder(layout.event(id)), KeyRange::Folder(layout.outcomes(id))];
    let entries = store.read(&ranges).await?;
    let Some(mut stored) = StoredEvent::read(layout, &entries).remove(&id) else { return Ok(None) };
    stored.add_outcomes(layout, &entries);
    let open = stored.open_targets();
    let nodes = if open.is_empty() { BTreeMap::new() } else { registry::read(store, layout, &open).await? };
    Ok(Some(stored.into_status(&nodes)))
}

/// The latest events in the backend's own order, newest first, at most `limit`.
pub async fn latest_events(
    store: &dyn Store,
    layout: &Layout,
    limit: usize,
) -> Result<Vec<EventStatus>, StoreError> {
    let entries = store.read(&[KeyRange::Folder(layout.events())]).await?;
    let newest: BTreeMap<EventId, _> = entries.iter().fold(BTreeMap::new(), |mut newest, entry| {
        if let Some(Place::Part { event, .. }) = layout.place(&entry.key) {
            newest.entry(event).and_modify(|r| *r = entry.revision.max(*r)).or_insert(entry.revision);
        }
        newest
    });
    let mut ids: Vec<_> = newest.into_iter().map(|(event, revision)| (revision, event)).collect();
    ids.sort_unstable();
    let wanted: Vec<EventId> = ids.into_iter().rev().take(limit).map(|(_, event)| event).collect();

    let folders: Vec<KeyRange> = wanted.iter().map(|id| KeyRange::Folder(layout.outcomes(*id))).collect();
    let outcomes = if folders.is_empty() { Vec::new() } else { store.read(&folders).await? };
    let nodes = registry::read_all(store, layout).await?;
    let mut events = StoredEvent::read(layout, &entries);
    let statuses = wanted.iter().filter_map(|id| {
        let mut stored = events.remove(id)?;
        stored.add_outcomes(layout, &outcomes);
        Some(stored.into_status(&nodes))
    });
    Ok(statuses.collect())
}

/// An event as its parts and outcomes come out of the backend.
pub(crate) struct StoredEvent {
    event: Event,
    parts_found: BTreeSet<u32>,
    parts_expected: u32,
    targets: BTreeSet<Certname>,
    ends: BTreeMap<Certname, End>,
}

impl StoredEvent {
    pub(crate) fn read(layout: &Layout, entries: &[Entry]) -> BTreeMap<EventId, Self> {
        let mut events: BTreeMap<EventId, Self> = BTreeMap::new();
        for entry in entries {
            let Some(Place::Part { event: id, index }) = layout.place(&entry.key) else { continue };
            let Ok(part) = Part::from_wire(&entry.value) else { continue };
            let stored = events.entry(id).or_insert_with(|| Self {
                event: part.event.clone(),
                parts_found: BTreeSet::new(),
                parts_expected: part.count,
                targets: BTreeSet::new(),
                ends: BTreeMap::new(),
            });
            stored.parts_found.insert(index);
            stored.targets.extend(part.event.targets.hosts.iter().cloned());
            stored.event.targets.hosts.extend(part.event.targets.hosts);
            stored.event.targets.groups.extend(part.event.targets.groups);
        }
        for entry in entries {
            let Some(Place::Members { event: id, .. }) = layout.place(&entry.key) else { continue };
            if let (Some(stored), Ok(members)) = (events.get_mut(&id), Members::from_wire(&entry.value)) {
                stored.targets.extend(members.0);
            }
        }
        events
    }

    pub(crate) fn add_outcomes(&mut self, layout: &Layout, entries: &[Entry]) {
        for entry in entries {
            let Some(Place::Outcome { event, certname }) = layout.place(&entry.key) else { continue };
            if event != self.event.id {
                continue;
            }
            if let Ok(end) = End::from_wire(&entry.value) {
                // A member that joined between the listing and the delivery ran too.
                self.targets.insert(certname.clone());
                self.ends.insert(certname, end);
            }
        }
    }

    pub(crate) fn event(&self) -> &Event {
        &self.event
    }

    pub(crate) fn targets(&self) -> &BTreeSet<Certname> {
        &self.targets
    }

    /// The targets that have no outcome yet.
    pub(crate) fn open_targets(&self) -> Vec<Certname> {
        self.targets.iter().filter(|certname| !self.ends.contains_key(*certname)).cloned().collect()
    }

    fn into_status(self, nodes: &BTreeMap<Certname, NodeRecord>) -> EventStatus {
        let id = self.event.id;
        let status = |certname: Certname| {
            let status = delivery_status(id, self.ends.get(&certname), nodes.get(&certname));
            (certname, status)
        };
        let missing = (0..self.parts_expected).filter(|index| !self.parts_found.contains(index));
        EventStatus {
            targets: self.targets.iter().cloned().map(status).collect(),
            unreadable_parts: missing.map(|index| format!("part {index}")).collect(),
            event: self.event,
        }
    }
}
