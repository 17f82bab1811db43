//! Removing what nobody needs any more. Idempotent, so that it does no harm when two do it; a note under
//! `sweep` keeps a fleet from doing it all at once.

use trigger_core::identity::{Certname, EventId, Revision};
use trigger_core::layout::Layout;
use trigger_core::outcome::End;
use trigger_core::sweep::{believable_now, may_expire, may_remove};
use trigger_core::time::Timestamp;
use trigger_core::wire::Stored;

use crate::outcomes::StoredEvent;
use crate::registry;
use crate::store::{KeyRange, Store, StoreError, Swap};

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
pub async fn take_turn(
    store: &dyn Store,
    layout: &Layout,
    certname: &Certname,
    last_seen: Option<Revision>,
    is_first_look: bool,
) -> Result<(bool, Option<Revision>), StoreError> {
    let key = layout.sweep();
    let note = store.read(&[KeyRange::Key(key.clone())]).await?.into_iter().next();
    let present = note.map(|note| note.revision);
    if present != last_seen || (is_first_look && present.is_some()) {
        return Ok((false, present));
    }
    match store.put_if_unchanged(&key, certname.as_str(), present).await? {
        Swap::Written(revision) => Ok((true, Some(revision))),
        Swap::Changed(entry) => Ok((false, entry.map(|entry| entry.revision))),
    }
}

/// Sweeps everything below the layout's prefix once. `now` is the sweeper's own clock.
pub async fn sweep(store: &dyn Store, layout: &Layout, now: Timestamp) -> Result<Swept, StoreError> {
    let nodes = registry::read_all(store, layout).await?;
    let now = believable_now(now, nodes.values());
    let entries = store.read(&[KeyRange::Folder(layout.events())]).await?;
    let events = StoredEvent::read(layout, &entries);
    drop(entries);
    let mut swept = Swept::default();
    for (id, mut stored) in events {
        // Nothing is due before this, and most events are younger.
        if !may_expire(stored.event(), None, now) {
            continue;
        }
        let outcomes = store.read(&[KeyRange::Folder(layout.outcomes(id))]).await?;
        stored.add_outcomes(layout, &outcomes);
        let open = stored.open_targets();
        let overdue: Vec<&Certname> =
            open.iter().filter(|certname| may_expire(stored.event(), nodes.get(*certname), now)).collect();
        swept.expired += expire(store, layout, id, &overdue).await?;
        if open.is_empty() && may_remove(stored.event(), now) {
            remove(store, layout, id, &stored).await?;
            swept.removed += 1;
        }
    }
    Ok(swept)
}

/// Gives deliveries the outcome `expired`, unless their target has just given them another, and deletes them.
async fn expire(
    store: &dyn Store,
    layout: &Layout,
    event: EventId,
    targets: &[&Certname],
) -> Result<usize, StoreError> {
    let mut expired = 0;
    for certname in targets {
        let outcome = layout.outcome(event, certname);
        if let Swap::Written(_) = store.put_if_unchanged(&outcome, &End::Expired.to_wire(), None).await? {
            expired += 1;
        }
        store.delete_many(vec![layout.host_delivery(certname, event)]).await?;
    }
    Ok(expired)
}

/// Removes an event: its deliveries first and its parts last, so that a sweep that is cut off is repeated.
async fn remove(
    store: &dyn Store,
    layout: &Layout,
    id: EventId,
    stored: &StoredEvent,
) -> Result<(), StoreError> {
    let mut keys: Vec<String> =
        stored.event().targets.groups.iter().map(|group| layout.group_delivery(group, id)).collect();
    for certname in stored.targets() {
        keys.push(layout.host_delivery(certname, id));
        keys.push(layout.outcome(id, certname));
    }
    store.delete_many(keys).await?;
    let parts = store.read(&[KeyRange::Folder(layout.event(id))]).await?;
    store.delete_many(parts.into_iter().map(|part| part.key).collect()).await
}
