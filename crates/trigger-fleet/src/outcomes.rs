//! How deliveries ended: stored by their target, read by everybody else.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use trigger_core::delivery::{Completion, DeliveryOutcome, Members};
use trigger_core::event::{Event, Part, Target};
use trigger_core::identity::{Certname, EventId, Revision};
use trigger_core::keyspace::{Key, Keyspace};
use trigger_core::node::NodeRecord;
use trigger_core::run::history::RunHistory;
use trigger_core::status::{DeliveryStatus, delivery_status};
use trigger_core::wire::Stored;

use crate::registry;
use trigger_store::store::{CasOutcome, Entry, KeyRange, MAX_ORDERED_ENTRIES, Store, StoreError};

/// Ends that are stored at the same time where each has to look at what is there.
const SWAPS_IN_FLIGHT: usize = 16;

/// Stores how deliveries ended, then deletes them: the last two steps of the order at a run's end
/// (C4). Idempotent. A group's delivery belongs to all its members and stays.
pub async fn finish(
    store: &dyn Store,
    keyspace: &Keyspace,
    certname: &Certname,
    completions: &[Completion],
) -> Result<(), StoreError> {
    finish_runs(store, keyspace, certname, completions, None).await
}

/// The same at the end of runs, with what the node tells of its latest ones. That goes first, so that whoever
/// sees an outcome finds its run; it explains and decides nothing, so a backend that refuses it holds up no
/// outcome.
pub async fn finish_runs(
    store: &dyn Store,
    keyspace: &Keyspace,
    certname: &Certname,
    completions: &[Completion],
    history: Option<&RunHistory>,
) -> Result<(), StoreError> {
    let told = history.map(|history| (keyspace.runs(certname), history.to_wire()));
    let (done, others): (Vec<&Completion>, Vec<&Completion>) =
        completions.iter().partition(|completion| matches!(completion.outcome, DeliveryOutcome::Done(_)));
    let outcomes = done
        .iter()
        .map(|completion| (keyspace.outcome(completion.event, certname), completion.outcome.to_wire()));
    let told_of_runs = usize::from(told.is_some());
    let entries: Vec<(String, String)> = told.into_iter().chain(outcomes).collect();
    let keys: Vec<String> = entries.iter().map(|(key, _)| key.clone()).collect();
    let mut newest: Option<(Revision, String)> = None;
    for (index, (key, result)) in keys.into_iter().zip(store.put_many(entries).await).enumerate() {
        match result {
            Err(error) if index < told_of_runs && !error.is_transient() => {}
            result => newest = newest.max(Some((result?, key))),
        }
    }
    let told = others.into_iter().map(|completion| {
        let key = keyspace.outcome(completion.event, certname);
        tell_unless_done(store, key, &completion.outcome)
    });
    let told: Vec<_> = told.collect();
    let told: Vec<Option<(Revision, String)>> =
        stream::iter(told).buffer_unordered(SWAPS_IN_FLIGHT).try_collect().await?;
    newest = newest.max(told.into_iter().max().flatten());
    let addressed_as = completions.iter().map(|completion| (completion.event, &completion.addressed_as));
    delete(store, keyspace, certname, addressed_as).await?;
    let has_deleted =
        completions.iter().any(|completion| completion.addressed_as.iter().any(Target::is_node));
    match newest {
        Some((_, key)) if has_deleted => check_kept(store, key).await,
        _ => Ok(()),
    }
}

/// A backend that was restored from a backup between the outcomes and the deletions has lost the former, and nobody
/// would ever tell them again: they are stored anew. What was written last is lost first, so one look is enough.
async fn check_kept(store: &dyn Store, newest: String) -> Result<(), StoreError> {
    if !store.list(&[KeyRange::Key(newest)]).await?.is_empty() {
        return Ok(());
    }
    let detail = "it has lost an outcome that it had taken".to_owned();
    Err(StoreError::Ambiguous { backend: store.address().to_owned(), detail })
}

/// Stores an end that says less than `done`. Written blindly it could come late, from an agent that was killed
/// while it asked or that lost its claim in the middle of its run, and undo what its successor has told. So one
/// that needed no run is told only where none is, and a failed run's never in the place of a `done`
/// (C6: a later `done` wins). Returns what it has written, if anything.
async fn tell_unless_done(
    store: &dyn Store,
    key: String,
    end: &DeliveryOutcome,
) -> Result<Option<(Revision, String)>, StoreError> {
    let text = end.to_wire();
    let gives_way = |known: &Entry| {
        matches!(end, DeliveryOutcome::Failed(_))
            && !matches!(DeliveryOutcome::from_wire(&known.value), Ok(DeliveryOutcome::Done(_)))
    };
    let mut expected = None;
    loop {
        match store.compare_and_swap(&key, &text, expected).await? {
            CasOutcome::Written(revision) => return Ok(Some((revision, key))),
            CasOutcome::Changed(Some(known)) if !gives_way(&known) => return Ok(None),
            CasOutcome::Changed(found) => expected = found.map(|known| known.revision),
        }
    }
}

/// Deletes a node's own deliveries of events that ended.
pub async fn delete<'a>(
    store: &dyn Store,
    keyspace: &Keyspace,
    certname: &Certname,
    ended: impl IntoIterator<Item = (EventId, &'a BTreeSet<Target>)>,
) -> Result<(), StoreError> {
    let own = ended.into_iter().filter(|(_, addressed_as)| addressed_as.iter().any(Target::is_node));
    let keys: Vec<String> = own.map(|(event, _)| keyspace.host_delivery(certname, event)).collect();
    if keys.is_empty() { Ok(()) } else { store.delete_many(keys).await }
}

/// The same, of those events alone whose outcome is stored now: a backend that did not answer may have come back
/// from a backup without them, and their deliveries are all that is left then.
pub async fn delete_told(
    store: &dyn Store,
    keyspace: &Keyspace,
    certname: &Certname,
    ended: &[(EventId, BTreeSet<Target>)],
) -> Result<(), StoreError> {
    let mut told = BTreeSet::new();
    for chunk in ended.chunks(MAX_ORDERED_ENTRIES) {
        let keys = chunk.iter().map(|(event, _)| KeyRange::Key(keyspace.outcome(*event, certname)));
        let found = store.list(&keys.collect::<Vec<_>>()).await?;
        told.extend(found.into_iter().map(|(key, _)| key));
    }
    let is_told = |(event, _): &&(EventId, _)| told.contains(&keyspace.outcome(*event, certname));
    let ended = ended.iter().filter(is_told).map(|(event, addressed_as)| (*event, addressed_as));
    delete(store, keyspace, certname, ended).await
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
    keyspace: &Keyspace,
    id: EventId,
) -> Result<Option<EventStatus>, StoreError> {
    let ranges = [KeyRange::Prefix(keyspace.event(id)), KeyRange::Prefix(keyspace.outcomes(id))];
    let entries = store.read(&ranges).await?;
    let Some(mut stored) = StoredEvent::read(keyspace, &entries).remove(&id) else { return Ok(None) };
    stored.add_outcomes(keyspace, &entries);
    let open = stored.open_targets();
    let nodes =
        if open.is_empty() { BTreeMap::new() } else { registry::read(store, keyspace, &open).await? };
    Ok(Some(stored.into_status(&nodes)))
}

/// The latest events in the backend's own order, newest first, at most `limit`.
pub async fn latest_events(
    store: &dyn Store,
    keyspace: &Keyspace,
    limit: usize,
) -> Result<Vec<EventStatus>, StoreError> {
    // All there are would be too much: the parts of one event for ten thousand targets are 280 kB.
    let parts = list_parts(store, keyspace).await?;
    let newest = |parts: Vec<(u32, Revision)>| parts.into_iter().map(|(_, revision)| revision).max();
    let mut ids: Vec<_> = parts.into_iter().map(|(event, parts)| (newest(parts), event)).collect();
    ids.sort_unstable();
    let wanted: Vec<EventId> = ids.into_iter().rev().take(limit).map(|(_, event)| event).collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }

    let prefixes = wanted.iter().flat_map(|id| [keyspace.event(*id), keyspace.outcomes(*id)]);
    let entries = store.read(&prefixes.map(KeyRange::Prefix).collect::<Vec<_>>()).await?;
    let nodes = registry::read_all(store, keyspace).await?;
    let mut events = StoredEvent::read(keyspace, &entries);
    for entry in &entries {
        if let Some(Key::Outcome { event, .. }) = keyspace.place(&entry.key)
            && let Some(stored) = events.get_mut(&event)
        {
            stored.add_outcomes(keyspace, std::slice::from_ref(entry));
        }
    }
    let statuses = wanted.iter().filter_map(|id| Some(events.remove(id)?.into_status(&nodes)));
    Ok(statuses.collect())
}

/// The events there are, each with the parts of it that are stored and their revisions.
pub(crate) async fn list_parts(
    store: &dyn Store,
    keyspace: &Keyspace,
) -> Result<BTreeMap<EventId, Vec<(u32, Revision)>>, StoreError> {
    let mut parts: BTreeMap<EventId, Vec<(u32, Revision)>> = BTreeMap::new();
    for (key, revision) in store.list(&[KeyRange::Prefix(keyspace.events())]).await? {
        if let Some(Key::Part { event, index }) = keyspace.place(&key) {
            parts.entry(event).or_default().push((index, revision));
        }
    }
    Ok(parts)
}

/// An event as its parts and outcomes come out of the backend.
pub(crate) struct StoredEvent {
    event: Event,
    parts_found: BTreeSet<u32>,
    parts_expected: u32,
    targets: BTreeSet<Certname>,
    ends: BTreeMap<Certname, DeliveryOutcome>,
}

impl StoredEvent {
    pub(crate) fn read(keyspace: &Keyspace, entries: &[Entry]) -> BTreeMap<EventId, Self> {
        let mut events: BTreeMap<EventId, Self> = BTreeMap::new();
        for entry in entries {
            let Some(Key::Part { event: id, index }) = keyspace.place(&entry.key) else { continue };
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
            let Some(Key::Members { event: id, .. }) = keyspace.place(&entry.key) else { continue };
            if let (Some(stored), Ok(members)) = (events.get_mut(&id), Members::from_wire(&entry.value)) {
                stored.targets.extend(members.0);
            }
        }
        events
    }

    fn add_outcomes(&mut self, keyspace: &Keyspace, entries: &[Entry]) {
        for entry in entries {
            let Some(Key::Outcome { event, certname }) = keyspace.place(&entry.key) else { continue };
            if event != self.event.id {
                continue;
            }
            if let Ok(end) = DeliveryOutcome::from_wire(&entry.value) {
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
    fn open_targets(&self) -> Vec<Certname> {
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
