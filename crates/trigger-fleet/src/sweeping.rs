//! Removing what nobody needs any more. Idempotent, so that it does no harm when two do it; a note under
//! `sweep` keeps a fleet from doing it all at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use trigger_core::delivery::DeliveryOutcome;
use trigger_core::event::{Event, Part};
use trigger_core::identity::{Certname, EventId, Revision};
use trigger_core::keyspace::{Key, Keyspace};
use trigger_core::node::NodeRecord;
use trigger_core::sweep::{may_expire, may_remove, quorum_now};
use trigger_core::time::Timestamp;
use trigger_core::wire::Stored;

use crate::outcomes::{self, StoredEvent};
use crate::registry;
use trigger_store::store::{CasOutcome, Entry, KeyRange, Store, StoreError};

/// Parts read at a time, each of another event.
const PARTS_PER_READ: usize = 128;

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Deliveries that were given the outcome `expired`.
    pub expired: usize,
    /// Events that were removed with all that belonged to them.
    pub removed: usize,
}

/// Takes the next sweep upon us, if nobody swept since `last_seen` was the note's revision. Returns whether
/// to sweep, and the note's revision now.
pub async fn try_acquire_sweep(
    store: &dyn Store,
    keyspace: &Keyspace,
    certname: &Certname,
    last_seen: Option<Revision>,
    is_first_look: bool,
) -> Result<(bool, Option<Revision>), StoreError> {
    let key = keyspace.sweep();
    let note = store.read(&[KeyRange::Key(key.clone())]).await?.into_iter().next();
    let present = note.map(|note| note.revision);
    if present != last_seen || (is_first_look && present.is_some()) {
        return Ok((false, present));
    }
    match store.compare_and_swap(&key, certname.as_str(), present).await? {
        CasOutcome::Written(revision) => Ok((true, Some(revision))),
        CasOutcome::Changed(entry) => Ok((false, entry.map(|entry| entry.revision))),
    }
}

/// Sweeps everything below the layout's prefix once. `now` is the sweeper's own clock; `last` the note's revision
/// before this turn, if there was one: whoever registered since is there.
pub async fn sweep(
    store: &dyn Store,
    keyspace: &Keyspace,
    now: Timestamp,
    last: Option<Revision>,
) -> Result<Swept, StoreError> {
    let entries = store.read(&[KeyRange::Prefix(keyspace.nodes())]).await?;
    let is_late = |entry: &&Entry| last.is_none_or(|last| entry.revision > last);
    let lately = registry::records(keyspace, entries.iter().filter(is_late).cloned().collect());
    let nodes = registry::records(keyspace, entries);
    let seen = |nodes: &BTreeMap<Certname, NodeRecord>| nodes.values().map(|node| node.seen_at).collect();
    let now = quorum_now(now, seen(&lately), seen(&nodes));
    let mut swept = Swept::default();
    // Events are large, so that no more than one is looked at as a whole at any time.
    for event in overdue_events(store, keyspace, now).await? {
        sweep_event(store, keyspace, event, &nodes, now, &mut swept).await?;
    }
    Ok(swept)
}

/// The events of which anything may be due, by one part of each.
async fn overdue_events(
    store: &dyn Store,
    keyspace: &Keyspace,
    now: Timestamp,
) -> Result<Vec<EventId>, StoreError> {
    let events = outcomes::list_parts(store, keyspace).await?;
    let parts = events.into_iter().filter_map(|(event, parts)| {
        let (first, _) = parts.into_iter().min()?;
        Some((event, keyspace.part(event, first)))
    });
    let parts: Vec<(EventId, String)> = parts.collect();
    let mut overdue = Vec::new();
    for chunk in parts.chunks(PARTS_PER_READ) {
        let keys: Vec<KeyRange> = chunk.iter().map(|(_, key)| KeyRange::Key(key.clone())).collect();
        let entries = store.read(&keys).await?;
        let found: HashMap<&str, &str> = entries.iter().map(|e| (e.key.as_str(), e.value.as_str())).collect();
        overdue.extend(chunk.iter().filter_map(|(event, key)| {
            match Part::from_wire(found.get(key.as_str())?) {
                Ok(part) => may_expire(&part.event, None, now).then_some(*event),
                // Another part of it may tell.
                Err(_) => Some(*event),
            }
        }));
    }
    Ok(overdue)
}

async fn sweep_event(
    store: &dyn Store,
    keyspace: &Keyspace,
    id: EventId,
    nodes: &BTreeMap<Certname, NodeRecord>,
    now: Timestamp,
    swept: &mut Swept,
) -> Result<(), StoreError> {
    let entries = store.read(&[KeyRange::Prefix(keyspace.event(id))]).await?;
    let Some(stored) = StoredEvent::read(keyspace, &entries).remove(&id) else { return Ok(()) };
    drop(entries);
    if !may_expire(stored.event(), None, now) {
        return Ok(());
    }
    // How they ended does not matter here, so that an outcome of a newer version is one too.
    let outcomes = store.list(&[KeyRange::Prefix(keyspace.outcomes(id))]).await?;
    let ended: BTreeSet<Certname> = outcomes
        .iter()
        .filter_map(|(key, _)| match keyspace.place(key)? {
            Key::Outcome { certname, .. } => Some(certname),
            _ => None,
        })
        .collect();
    let open: Vec<&Certname> = stored.targets().difference(&ended).collect();
    let is_overdue = |certname: &Certname| may_expire(stored.event(), nodes.get(certname), now);
    let overdue: Vec<&Certname> = open.iter().copied().filter(|certname| is_overdue(certname)).collect();
    swept.expired += expire(store, keyspace, id, &overdue).await?;
    if open.is_empty() && may_remove(stored.event(), now) {
        remove(store, keyspace, stored.event(), &ended).await?;
        swept.removed += 1;
    }
    Ok(())
}

/// Gives deliveries the outcome `expired`, unless their target has just given them another, and deletes them.
async fn expire(
    store: &dyn Store,
    keyspace: &Keyspace,
    event: EventId,
    targets: &[&Certname],
) -> Result<usize, StoreError> {
    let mut expired = 0;
    for certname in targets {
        let outcome = keyspace.outcome(event, certname);
        if let CasOutcome::Written(_) =
            store.compare_and_swap(&outcome, &DeliveryOutcome::Expired.to_wire(), None).await?
        {
            expired += 1;
        }
        store.delete_many(vec![keyspace.host_delivery(certname, event)]).await?;
    }
    Ok(expired)
}

/// Removes an event all of whose targets have `ended`: its deliveries first and its parts last, so that a
/// sweep that is cut off is repeated.
async fn remove(
    store: &dyn Store,
    keyspace: &Keyspace,
    event: &Event,
    ended: &BTreeSet<Certname>,
) -> Result<(), StoreError> {
    let mut keys: Vec<String> =
        event.targets.groups.iter().map(|group| keyspace.group_delivery(group, event.id)).collect();
    for certname in ended {
        keys.push(keyspace.host_delivery(certname, event.id));
        keys.push(keyspace.outcome(event.id, certname));
    }
    store.delete_many(keys).await?;
    let parts = store.list(&[KeyRange::Prefix(keyspace.event(event.id))]).await?;
    store.delete_many(parts.into_iter().map(|(key, _)| key).collect()).await
}
