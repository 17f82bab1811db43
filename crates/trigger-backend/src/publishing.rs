//! From a fired event to deliveries at its targets. Idempotent by event id: doing it twice, whole or in
//! part, leaves what doing it once leaves (invariant 5).

use std::collections::{BTreeMap, BTreeSet};

use trigger_core::event::Part;
use trigger_core::identity::{Certname, EventId, GroupName, Revision};
use trigger_core::layout::Layout;
use trigger_core::outcome::End;
use trigger_core::wire::{Delivery, Members, Publication, Stored};

use crate::registry;
use crate::store::{Store, StoreError};

/// Members listed in one stored record.
const MEMBERS_PER_RECORD: usize = 1024;

/// Why an event was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The backend did not do its part; publishing again may.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nobody could ever receive it.
    #[error(
        "no agent is registered under the key prefix {prefix}: the event would reach nobody; check the resource's keyprefix and the agents' prefix setting"
    )]
    NobodyThere {
        /// The prefix asked for.
        prefix: String,
    },
}

impl PublishError {
    /// Whether publishing again may succeed without anything being changed by a person.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient(),
            Self::NobodyThere { .. } => false,
        }
    }
}

/// Publishes an event: its parts, then its deliveries. Returns once all is committed.
///
/// `check_prefix` first makes sure that anybody is registered below the event's prefix.
pub async fn publish(
    store: &dyn Store,
    publication: &Publication,
    check_prefix: bool,
) -> Result<Revision, PublishError> {
    let layout = Layout::new(publication.prefix.clone());
    let event = &publication.event;
    let nodes = if check_prefix || !event.targets.groups.is_empty() {
        registry::read_all(store, &layout).await?
    } else {
        BTreeMap::new()
    };
    if check_prefix && nodes.is_empty() {
        return Err(PublishError::NobodyThere { prefix: publication.prefix.to_string() });
    }
    let parts = event.clone().into_parts();
    let is_member =
        |groups: &BTreeMap<GroupName, Revision>| event.targets.groups.iter().any(|g| groups.contains_key(g));
    let members: BTreeSet<Certname> =
        nodes.into_iter().filter(|(_, node)| is_member(&node.groups)).map(|(certname, _)| certname).collect();

    let mut first = members_entries(&layout, event.id, members);
    first.extend(parts.iter().map(|part| (layout.part(event.id, part.index), part.to_wire())));
    let then = deliveries(&layout, publication, &parts);

    // A small event goes out in one call, which becomes visible in its order (see `Store::put_many`).
    if first.len() + then.len() <= crate::store::ORDERED_AT_MOST {
        first.extend(then);
        return commit(store, first).await;
    }
    commit(store, first).await?;
    commit(store, then).await
}

fn members_entries(layout: &Layout, event: EventId, members: BTreeSet<Certname>) -> Vec<(String, String)> {
    let members: Vec<Certname> = members.into_iter().collect();
    let records = members.chunks(MEMBERS_PER_RECORD).enumerate().map(|(index, chunk)| {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        (layout.members(event, index), Members(chunk.iter().cloned().collect()).to_wire())
    });
    records.collect()
}

fn deliveries(layout: &Layout, publication: &Publication, parts: &[Part]) -> Vec<(String, String)> {
    let event = publication.event.id;
    let mut entries = Vec::new();
    for part in parts {
        let delivery = Delivery { part: part.index }.to_wire();
        for host in &part.event.targets.hosts {
            entries.push(match publication.suppressed.get(host) {
                Some(reason) => (layout.outcome(event, host), End::Suppressed(reason.clone()).to_wire()),
                None => (layout.host_delivery(host, event), delivery.clone()),
            });
        }
        for group in &part.event.targets.groups {
            entries.push((layout.group_delivery(group, event), delivery.clone()));
        }
    }
    entries
}

/// Writes all entries or says why not: the newest revision, or the error that matters most.
async fn commit(store: &dyn Store, entries: Vec<(String, String)>) -> Result<Revision, PublishError> {
    let mut newest = Revision::default();
    let mut transient = None;
    for result in store.put_many(entries).await {
        match result {
            Ok(revision) => newest = newest.max(revision),
            Err(error) if error.is_transient() => transient = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    match transient {
        Some(error) => Err(error.into()),
        None => Ok(newest),
    }
}
