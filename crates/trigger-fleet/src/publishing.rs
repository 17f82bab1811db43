//! Publishes a fired event: stores its parts and its deliveries. Publishing is idempotent by event id: twice, whole or
//! in part, has the same result as once (C1).

use std::collections::{BTreeMap, BTreeSet};

use trigger_core::delivery::{Delivery, DeliveryOutcome, Members};
use trigger_core::event::{Event, Part};
use trigger_core::identity::{Certname, EventId, GroupName, Revision};
use trigger_core::keyspace::{Key, Range};
use trigger_core::loop_guard::{Suppression, repeats_in_every_chain};
use trigger_core::node::NodeRecord;
use trigger_core::publication::Publication;
use trigger_core::wire::Stored;
use trigger_store::store::{MAX_ORDERED_BYTES, MAX_ORDERED_ENTRIES, StoreError};

use crate::codec::{SigningError, SigningKey};
use crate::fleet::Fleet;

/// Members listed in one stored value.
const MEMBERS_PER_PORTION: usize = 1024;

/// How often the rest of an event is offered to a backend that takes some of it.
const MAX_OFFERS: u32 = 8;

/// An event was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The backend did not take all of the event. Publishing it again completes it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The event cannot be signed now.
    #[error("the event cannot be signed: {0}")]
    Signing(SigningError),
    /// No agent is registered where the event would be delivered.
    #[error(
        "no agent is registered under the key prefix {prefix}: no node would receive the event; check the resource's keyprefix and the agents' prefix setting"
    )]
    NobodyThere {
        /// The prefix asked for.
        prefix: String,
    },
}

impl PublishError {
    /// Whether the backend has answered, and does not allow this to the node.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Store(StoreError::Denied { .. }))
    }

    /// Whether publishing again may succeed later. A right that is missing may be granted.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) => error.is_transient() || self.is_denied(),
            Self::Signing(SigningError::Failed(_)) => true,
            Self::Signing(SigningError::OtherAuthor { .. }) | Self::NobodyThere { .. } => false,
        }
    }
}

/// The result of publishing an event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Published {
    /// The newest revision of the written entries.
    pub revision: Revision,
    /// Groups of the event to which no agent belongs.
    pub empty_groups: Vec<GroupName>,
    /// Members of the groups whose own loop guard will suppress the event: for a warning only, because each of them
    /// decides for itself.
    pub repeating_members: BTreeMap<Certname, Suppression>,
}

/// The members of groups when an event is fired, from the registrations.
struct Membership(BTreeMap<Certname, NodeRecord>);

impl Membership {
    fn of(&self, group: &GroupName) -> BTreeSet<Certname> {
        let members = self.0.iter().filter(|(_, node)| node.groups.contains_key(group));
        members.map(|(certname, _)| certname.clone()).collect()
    }
}

/// The result of writing the entries of an event.
struct Committed {
    /// The newest revision of the entries.
    revision: Revision,
    /// How many calls that took.
    calls: u32,
}

impl Fleet {
    /// Publishes an event under the prefix of its publication: its parts, then its deliveries. Returns once all of it
    /// is committed. `check_prefix` first makes sure that an agent is registered below that prefix.
    ///
    /// # Errors
    /// [`PublishError::NobodyThere`] where `check_prefix` finds no agent; [`PublishError::Store`] when the backend does
    /// not take all of it. It may have taken some: publishing again completes it, and harms nothing.
    pub async fn publish(
        &self,
        publication: &Publication,
        check_prefix: bool,
    ) -> Result<Published, PublishError> {
        if publication.prefix == *self.prefix() {
            return self.publish_here(publication, check_prefix).await;
        }
        self.below(publication.prefix.clone()).publish_here(publication, check_prefix).await
    }

    async fn publish_here(
        &self,
        publication: &Publication,
        check_prefix: bool,
    ) -> Result<Published, PublishError> {
        let event = &publication.event;
        let has_groups = !event.targets.groups.is_empty() || !publication.suppressed_groups.is_empty();
        let nodes = if check_prefix || has_groups { self.nodes().await? } else { BTreeMap::new() };
        if check_prefix && nodes.is_empty() {
            return Err(PublishError::NobodyThere { prefix: publication.prefix.to_string() });
        }
        let groups = Membership(nodes);
        let mut members: BTreeSet<Certname> =
            event.targets.groups.iter().flat_map(|group| groups.of(group)).collect();
        let empty_groups =
            event.targets.groups.iter().filter(|group| groups.of(group).is_empty()).cloned().collect();
        let repeating_members = repeating(event, &members);
        let mut suppressed = publication.suppressed.clone();
        for (group, reason) in &publication.suppressed_groups {
            for member in groups.of(group) {
                // A member that is also a target by name gets its delivery.
                if !event.targets.hosts.contains(&member) && members.insert(member.clone()) {
                    suppressed.insert(member, reason.clone());
                }
            }
        }

        let parts = event.clone().into_parts();
        // The readers need it, so it comes first. It is written every time where no agent of this node watches the backend
        // and keeps it there.
        let signing_key = self.codec().signing_key(&event.origin).map_err(PublishError::Signing)?;
        let mut first: Vec<(String, String)> =
            self.certificate_entry(&signing_key).map(|(_, entry)| entry).into_iter().collect();
        first.extend(self.first_entries(&signing_key, event, members, &parts, &suppressed).await?);
        let then = self.delivery_entries(event.id, &parts, &suppressed);

        // A small event goes out in one call, which becomes visible in its order (see `Store::put_many`).
        let bytes: usize = first.iter().chain(&then).map(|(key, value)| key.len() + value.len()).sum();
        let committed = if first.len() + then.len() <= MAX_ORDERED_ENTRIES && bytes <= MAX_ORDERED_BYTES {
            first.extend(then);
            self.commit(first).await?
        } else {
            let parts = self.commit(first).await?;
            let deliveries = self.commit(then).await?;
            Committed {
                revision: parts.revision.max(deliveries.revision),
                calls: parts.calls + deliveries.calls,
            }
        };
        if committed.calls > 1 {
            self.check_parts(event.id, &parts).await?;
        }
        Ok(Published { revision: committed.revision, empty_groups, repeating_members })
    }

    /// A backend that was restored from a backup between two calls has taken the deliveries and lost the parts that
    /// they point to: then the event is not committed, and is published again.
    async fn check_parts(&self, event: EventId, parts: &[Part]) -> Result<(), PublishError> {
        let found = self.list(&[self.all(&Range::Event(event))]).await?;
        let found: BTreeSet<u32> = found
            .into_iter()
            .filter_map(|(key, _)| match key {
                Key::Part { index, .. } => Some(index),
                _ => None,
            })
            .collect();
        if parts.iter().all(|part| found.contains(&part.index)) {
            return Ok(());
        }
        Err(self.ambiguous("it has lost a part of the event that it had taken".to_owned()).into())
    }

    /// The entries that come before the deliveries, which the event's origin signs.
    async fn first_entries(
        &self,
        signing_key: &SigningKey,
        event: &Event,
        members: BTreeSet<Certname>,
        parts: &[Part],
        suppressed: &BTreeMap<Certname, String>,
    ) -> Result<Vec<(String, String)>, PublishError> {
        let id = event.id;
        let mut entries = Vec::new();
        // The parts come first: a backend that knows its clients takes the rest from the origin alone, which they name.
        for part in parts {
            entries.push(self.signed(signing_key, &Key::Part { event: id, index: part.index }, part).await?);
        }
        let members: Vec<Certname> = members.into_iter().collect();
        for (portion, index) in members.chunks(MEMBERS_PER_PORTION).zip(0..) {
            let members = Members(portion.iter().cloned().collect());
            entries.push(self.signed(signing_key, &Key::Members { event: id, index }, &members).await?);
        }
        for (certname, reason) in suppressed {
            let key = Key::Outcome { event: id, certname: certname.clone() };
            let outcome = DeliveryOutcome::Suppressed(reason.clone());
            entries.push(self.signed(signing_key, &key, &outcome).await?);
        }
        Ok(entries)
    }

    /// An entry, signed by the event's origin.
    async fn signed<T: Stored>(
        &self,
        signing_key: &SigningKey,
        key: &Key,
        value: &T,
    ) -> Result<(String, String), PublishError> {
        let key = self.key(key);
        let text = signing_key.encode(&key, value).await.map_err(PublishError::Signing)?;
        Ok((key, text))
    }

    fn delivery_entries(
        &self,
        event: EventId,
        parts: &[Part],
        suppressed: &BTreeMap<Certname, String>,
    ) -> Vec<(String, String)> {
        let mut entries = Vec::new();
        for part in parts {
            let delivery = self.codec().encode(&Delivery { part: part.index });
            let hosts = part.event.targets.hosts.iter().filter(|host| !suppressed.contains_key(*host));
            let keys = hosts.map(|host| Key::Delivery { certname: host.clone(), event });
            let groups = part.event.targets.groups.iter();
            let keys = keys.chain(groups.map(|group| Key::GroupDelivery { group: group.clone(), event }));
            entries.extend(keys.map(|key| (self.key(&key), delivery.clone())));
        }
        entries
    }

    /// Writes all entries, or fails with the error that matters most. What a backend failed to take while it took
    /// others is offered again, so that one lost answer does not cost a huge event all that was written before.
    async fn commit(&self, mut entries: Vec<(String, String)>) -> Result<Committed, PublishError> {
        let mut committed = Committed { revision: Revision::default(), calls: 0 };
        for offer in 1.. {
            committed.calls = offer;
            let mut left = Vec::new();
            let mut transient = None;
            let offered = entries.len();
            for (entry, result) in entries.iter().zip(self.store().put_many(entries.clone()).await) {
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
                // The backend took no entry, so it counts as unreachable.
                Some(error) if left.len() == offered || offer == MAX_OFFERS => return Err(error.into()),
                Some(_) => entries = left,
                None => break,
            }
        }
        Ok(committed)
    }
}

/// The members of an event's groups that are reached in no other way, and that its trigger made run in each of its
/// chains already.
fn repeating(event: &Event, members: &BTreeSet<Certname>) -> BTreeMap<Certname, Suppression> {
    let reached_as_members = members.iter().filter(|member| !event.targets.hosts.contains(*member));
    let repeats = reached_as_members.filter_map(|member| {
        let suppression = repeats_in_every_chain(&event.trigger, member, &event.lineage, event.loops)?;
        Some((member.clone(), suppression))
    });
    repeats.collect()
}
