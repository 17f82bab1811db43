//! Reading the deliveries to a node, with their events.

use std::collections::{BTreeMap, HashMap};

use trigger_core::delivery::Delivery;
use trigger_core::event::{Part, Target, Targets};
use trigger_core::identity::{Certname, EventId, GroupName, Revision};
use trigger_core::keyspace::{Key, Range};
use trigger_core::node::HeldDelivery;
use trigger_core::run::record::Cause;
use trigger_core::signer::Signer;
use trigger_core::wire::WireError;
use trigger_store::store::{Entry, KeyRange, StoreError};

use crate::fleet::Fleet;

/// Deliveries read in one request: each needs its part and, perhaps, its outcome.
pub(crate) const PER_READ: usize = 60;

/// A delivery as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// It waits for a run.
    Pending(Box<Cause>),
    /// It has an outcome already: it is to be deleted without a run.
    HasOutcome {
        /// The event that was delivered.
        event: EventId,
        /// The delivery that brought it.
        target: Target,
    },
    /// A newer version of Trigger wrote it.
    TooNew(HeldDelivery),
    /// This program cannot use it. It stays where it is and is reported.
    Unreadable {
        /// The key of the delivery.
        key: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// A delivery's key, parsed, with the key of its event.
struct Addressed {
    key: String,
    event: EventId,
    target: Target,
    part: Key,
}

impl Fleet {
    /// The ranges of keys whose entries are deliveries to this node, a member of `groups`.
    pub fn delivery_ranges(&self, groups: impl IntoIterator<Item = GroupName>) -> Vec<KeyRange> {
        let own = Range::Deliveries(self.own().clone());
        let groups = groups.into_iter().map(Range::GroupDeliveries);
        std::iter::once(own).chain(groups).map(|range| self.all(&range)).collect()
    }

    /// Lists the events whose deliveries to a node by its certname have not ended.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn open_deliveries(&self, certname: &Certname) -> Result<Vec<EventId>, StoreError> {
        let keys = self.list(&[self.all(&Range::Deliveries(certname.clone()))]).await?;
        let event = |(key, _)| match key {
            Key::Delivery { event, .. } => Some(event),
            _ => None,
        };
        Ok(keys.into_iter().filter_map(event).collect())
    }

    /// Reads the events behind deliveries to this node. `joined` has the revision at which it joined each of its
    /// groups: what was fired at a group before is not for it.
    ///
    /// # Errors
    /// When the backend does not answer. A delivery that cannot be used is an [`Arrival`], not an error.
    pub async fn read_deliveries(
        &self,
        joined: &BTreeMap<GroupName, Revision>,
        entries: &[Entry],
    ) -> Result<Vec<Arrival>, StoreError> {
        let mut arrivals = Vec::new();
        let mut addressed = Vec::new();
        for entry in entries {
            match self.address(joined, entry) {
                Ok(Some(delivery)) => addressed.push(delivery),
                Ok(None) => {}
                Err(arrival) => arrivals.push(arrival),
            }
        }
        let outcome = |event| Key::Outcome { event, certname: self.own().clone() };
        for chunk in addressed.chunks(PER_READ) {
            let keys = chunk
                .iter()
                .flat_map(|delivery| [self.one(&delivery.part), self.one(&outcome(delivery.event))]);
            let found = self.read(&keys.collect::<Vec<_>>()).await?;
            let found: HashMap<&Key, &str> =
                found.iter().map(|record| (&record.key, record.text.as_str())).collect();
            arrivals.extend(chunk.iter().map(|delivery| {
                if found.contains_key(&outcome(delivery.event)) {
                    return Arrival::HasOutcome { event: delivery.event, target: delivery.target.clone() };
                }
                self.resolve(delivery, found.get(&delivery.part).copied())
            }));
        }
        Ok(arrivals)
    }

    /// Parses an entry: `None` for one that is not for this node, an arrival for one to report.
    fn address(
        &self,
        joined: &BTreeMap<GroupName, Revision>,
        entry: &Entry,
    ) -> Result<Option<Addressed>, Arrival> {
        let (event, target) = match self.keyspace().parse(&entry.key) {
            Some(Key::Delivery { certname, event }) => (event, Target::Node(certname)),
            Some(Key::GroupDelivery { group, event }) => {
                if joined.get(&group).is_none_or(|since| entry.revision <= *since) {
                    return Ok(None);
                }
                (event, Target::Group(group))
            }
            _ => {
                return Err(Arrival::Unreadable {
                    key: entry.key.clone(),
                    detail: "not the key of a delivery".to_owned(),
                });
            }
        };
        match self.decode::<Delivery>(&entry.value) {
            Ok(delivery) => {
                let part = Key::Part { event, index: delivery.part };
                Ok(Some(Addressed { key: entry.key.clone(), event, target, part }))
            }
            Err(error) => Err(unusable(entry.key.clone(), event, &error)),
        }
    }

    fn resolve(&self, delivery: &Addressed, part: Option<&str>) -> Arrival {
        let unreadable = |detail: String| Arrival::Unreadable { key: delivery.key.clone(), detail };
        let part_key = || self.key(&delivery.part);
        let Some(text) = part else {
            return unreadable(format!("its event is missing at {}", part_key()));
        };
        let part: Part = match self.decode(text) {
            Ok(part) => part,
            Err(error) => return unusable(part_key(), delivery.event, &error),
        };
        let is_target = match &delivery.target {
            Target::Node(_) => part.event.targets.hosts.contains(self.own()),
            Target::Group(group) => part.event.targets.groups.contains(group),
        };
        if part.event.id != delivery.event || !is_target {
            return unreadable(format!("the event at {} does not name this target", part_key()));
        }
        let mut event = part.event;
        // The other targets do not matter from here on, and would cost memory.
        event.targets = Targets::default();
        Arrival::Pending(Box::new(Cause {
            event,
            addressed_as: [delivery.target.clone()].into(),
            interruptions: 0,
            signer: verified_signer(),
        }))
    }
}

/// What is verified of a part's signature. Stored values are not signed yet.
fn verified_signer() -> Signer {
    Signer::Unsigned
}

fn unusable(key: String, event: EventId, error: &WireError) -> Arrival {
    match error {
        WireError::TooNew { .. } => Arrival::TooNew(HeldDelivery { event, reason: error.to_string() }),
        WireError::Unreadable { .. } => Arrival::Unreadable { key, detail: error.to_string() },
    }
}
