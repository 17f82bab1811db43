//! From a fired event to deliveries at its targets. Idempotent by event id: doing it twice, whole or in
//! part, leaves what doing it once leaves (C1).

use std::collections::{BTreeMap, BTreeSet};

use trigger_core::delivery::{Delivery, DeliveryOutcome, Members};
use trigger_core::event::{Event, Part};
use trigger_core::identity::{Certname, EventId, GroupName, Revision};
use trigger_core::keyspace::Keyspace;
use trigger_core::loop_guard::{Suppression, repeats_in_every_chain};
use trigger_core::publication::Publication;
use trigger_core::wire::Stored;

use crate::registry;
use trigger_store::store::{KeyRange, MAX_ORDERED_BYTES, MAX_ORDERED_ENTRIES, Store, StoreError};

/// Members listed in one stored record.
const MEMBERS_PER_RECORD: usize = 1024;

/// How often what is left of an event is offered to a backend that takes some of it.
const OFFERS: u32 = 8;

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

/// What publishing came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Published {
    /// The newest revision of what was written.
    pub revision: Revision,
    /// Groups of the event to which no agent belongs.
    pub empty_groups: Vec<GroupName>,
    /// Members of the groups who will find that they are in a loop: only to be told, for each judges for itself.
    pub repeating_members: BTreeMap<Certname, Suppression>,
}

/// Publishes an event: its parts, then its deliveries. Returns once all is committed.
///
/// `check_prefix` first makes sure that anybody is registered below the event's prefix.
pub async fn publish(
    store: &dyn Store,
    publication: &Publication,
    check_prefix: bool,
) -> Result<Published, PublishError> {
    let keyspace = Keyspace::new(publication.prefix.clone());
    let event = &publication.event;
    let has_groups = !event.targets.groups.is_empty() || !publication.suppressed_groups.is_empty();
    let nodes = if check_prefix || has_groups {
        registry::read_all(store, &keyspace).await?
    } else {
        BTreeMap::new()
    };
    if check_prefix && nodes.is_empty() {
        return Err(PublishError::NobodyThere { prefix: publication.prefix.to_string() });
    }
    let members_of = |group: &GroupName| -> BTreeSet<Certname> {
        let members = nodes.iter().filter(|(_, node)| node.groups.contains_key(group));
        members.map(|(certname, _)| certname.clone()).collect()
    };
    let mut members: BTreeSet<Certname> = event.targets.groups.iter().flat_map(members_of).collect();
    let empty_groups =
        event.targets.groups.iter().filter(|group| members_of(group).is_empty()).cloned().collect();
    let repeating_members = repeating(event, &members);
    let mut suppressed = publication.suppressed.clone();
    for (group, reason) in &publication.suppressed_groups {
        for member in members_of(group) {
            // Who is meant in another way too gets its delivery.
            if !event.targets.hosts.contains(&member) && members.insert(member.clone()) {
                suppressed.insert(member, reason.clone());
            }
        }
    }

    let parts = event.clone().into_parts();
    let mut first = members_entries(&keyspace, event.id, members);
    first.extend(parts.iter().map(|part| (keyspace.part(event.id, part.index), part.to_wire())));
    first.extend(suppressed.iter().map(|(certname, reason)| {
        (keyspace.outcome(event.id, certname), DeliveryOutcome::Suppressed(reason.clone()).to_wire())
    }));
    let then = deliveries(&keyspace, event.id, &parts, &suppressed);

    // A small event goes out in one call, which becomes visible in its order (see `Store::put_many`).
    let bytes: usize = first.iter().chain(&then).map(|(key, value)| key.len() + value.len()).sum();
    let committed = if first.len() + then.len() <= MAX_ORDERED_ENTRIES && bytes <= MAX_ORDERED_BYTES {
        first.extend(then);
        commit(store, first).await?
    } else {
        let parts = commit(store, first).await?;
        let deliveries = commit(store, then).await?;
        Committed { revision: parts.revision.max(deliveries.revision), calls: parts.calls + deliveries.calls }
    };
    if committed.calls > 1 {
        check_parts(store, &keyspace, event.id, &parts).await?;
    }
    Ok(Published { revision: committed.revision, empty_groups, repeating_members })
}

/// A backend that was restored from a backup between two calls has taken the deliveries and lost the parts that
/// they point to: the event is not committed, and published again.
async fn check_parts(
    store: &dyn Store,
    keyspace: &Keyspace,
    event: EventId,
    parts: &[Part],
) -> Result<(), PublishError> {
    let found = store.list(&[KeyRange::Prefix(keyspace.event(event))]).await?;
    let found: BTreeSet<String> = found.into_iter().map(|(key, _)| key).collect();
    if parts.iter().all(|part| found.contains(&keyspace.part(event, part.index))) {
        return Ok(());
    }
    Err(PublishError::Store(StoreError::Ambiguous {
        backend: store.address().to_owned(),
        detail: "it has lost a part of the event that it had taken".to_owned(),
    }))
}

/// What was written.
struct Committed {
    /// The newest revision of it.
    revision: Revision,
    /// How many calls that took.
    calls: u32,
}

/// The members of an event's groups who are reached in no other way, and whom its trigger made run in each of its
/// chains already.
fn repeating(event: &Event, members: &BTreeSet<Certname>) -> BTreeMap<Certname, Suppression> {
    let reached_as_members = members.iter().filter(|member| !event.targets.hosts.contains(*member));
    let judged = reached_as_members.filter_map(|member| {
        let verdict = repeats_in_every_chain(&event.trigger, member, &event.lineage, event.loops);
        Some((member.clone(), verdict?))
    });
    judged.collect()
}

fn members_entries(
    keyspace: &Keyspace,
    event: EventId,
    members: BTreeSet<Certname>,
) -> Vec<(String, String)> {
    let members: Vec<Certname> = members.into_iter().collect();
    let records = members.chunks(MEMBERS_PER_RECORD).enumerate().map(|(index, chunk)| {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        (keyspace.members(event, index), Members(chunk.iter().cloned().collect()).to_wire())
    });
    records.collect()
}

fn deliveries(
    keyspace: &Keyspace,
    event: EventId,
    parts: &[Part],
    suppressed: &BTreeMap<Certname, String>,
) -> Vec<(String, String)> {
    let mut entries = Vec::new();
    for part in parts {
        let delivery = Delivery { part: part.index }.to_wire();
        let hosts = part.event.targets.hosts.iter().filter(|host| !suppressed.contains_key(*host));
        entries.extend(hosts.map(|host| (keyspace.host_delivery(host, event), delivery.clone())));
        let groups = part.event.targets.groups.iter();
        entries.extend(groups.map(|group| (keyspace.group_delivery(group, event), delivery.clone())));
    }
    entries
}

/// Writes all entries or says why not, by the error that matters most. What a backend
/// failed to take while it took others is offered again, so that one lost answer does not cost a huge event
/// all that was written before.
async fn commit(store: &dyn Store, mut entries: Vec<(String, String)>) -> Result<Committed, PublishError> {
    let mut committed = Committed { revision: Revision::default(), calls: 0 };
    for offer in 1.. {
        committed.calls = offer;
        let mut left = Vec::new();
        let mut transient = None;
        let offered = entries.len();
        for (entry, result) in entries.iter().zip(store.put_many(entries.clone()).await) {
            match result {
                Ok(revision) => committed.revision = committed.revision.max(revision),
                Err(error) if error.is_transient() => {
                    left.push(entry.clone());
                    transient = Some(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        match transient {
            // Nothing at all was taken: the backend is away.
            Some(error) if left.len() == offered || offer == OFFERS => return Err(error.into()),
            Some(_) => entries = left,
            None => break,
        }
    }
    Ok(committed)
}
