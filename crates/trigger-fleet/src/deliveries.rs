//! Reading what is pending at a node.

use std::collections::{BTreeMap, HashMap};

use trigger_core::delivery::Delivery;
use trigger_core::event::{Part, Target, Targets};
use trigger_core::identity::{Certname, EventId, GroupName, Revision};
use trigger_core::keyspace::{Key, Keyspace};
use trigger_core::node::HeldDelivery;
use trigger_core::run::record::Cause;
use trigger_core::wire::{Stored, WireError};

use trigger_store::store::{Entry, KeyRange, Store, StoreError};

/// Deliveries read in one request: each needs its part and, perhaps, its outcome.
pub(crate) const PER_READ: usize = 60;

/// A delivery, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// To be run for.
    Pending(Box<Cause>),
    /// It has an outcome already: to be deleted without a run.
    HasOutcome {
        /// Which event.
        event: EventId,
        /// The delivery.
        target: Target,
    },
    /// Written by a newer version of Trigger.
    TooNew(HeldDelivery),
    /// Nothing this program could use; it stays where it is and is reported.
    Unreadable {
        /// Where it lies.
        key: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// The keys whose entries are deliveries to this node.
pub fn ranges(
    keyspace: &Keyspace,
    certname: &Certname,
    groups: impl IntoIterator<Item = GroupName>,
) -> Vec<KeyRange> {
    let mut ranges = vec![KeyRange::Prefix(keyspace.host_deliveries(certname))];
    ranges.extend(groups.into_iter().map(|group| KeyRange::Prefix(keyspace.group_deliveries(&group))));
    ranges
}

/// A delivery's key taken apart, with where its event is.
struct Addressed {
    key: String,
    event: EventId,
    target: Target,
    part_key: String,
}

/// Reads the events behind deliveries. `joined` tells since when this node belongs to its groups: what was
/// fired at a group before is not its own.
pub async fn read(
    store: &dyn Store,
    keyspace: &Keyspace,
    certname: &Certname,
    joined: &BTreeMap<GroupName, Revision>,
    entries: &[Entry],
) -> Result<Vec<Arrival>, StoreError> {
    let mut arrivals = Vec::new();
    let mut addressed = Vec::new();
    for entry in entries {
        match address(keyspace, joined, entry) {
            Ok(Some(delivery)) => addressed.push(delivery),
            Ok(None) => {}
            Err(arrival) => arrivals.push(arrival),
        }
    }
    for chunk in addressed.chunks(PER_READ) {
        let keys: Vec<KeyRange> = chunk
            .iter()
            .flat_map(|delivery| [delivery.part_key.clone(), keyspace.outcome(delivery.event, certname)])
            .map(KeyRange::Key)
            .collect();
        let found = store.read(&keys).await?;
        let found: HashMap<&str, &str> = found.iter().map(|e| (e.key.as_str(), e.value.as_str())).collect();
        arrivals.extend(chunk.iter().map(|delivery| {
            if found.contains_key(keyspace.outcome(delivery.event, certname).as_str()) {
                return Arrival::HasOutcome { event: delivery.event, target: delivery.target.clone() };
            }
            resolve(certname, delivery, found.get(delivery.part_key.as_str()).copied())
        }));
    }
    Ok(arrivals)
}

/// Takes an entry apart: nothing for one that is none of ours to run, an arrival for one to report.
fn address(
    keyspace: &Keyspace,
    joined: &BTreeMap<GroupName, Revision>,
    entry: &Entry,
) -> Result<Option<Addressed>, Arrival> {
    let (event, target) = match keyspace.place(&entry.key) {
        Some(Key::HostDelivery { certname, event }) => (event, Target::Node(certname)),
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
    match Delivery::from_wire(&entry.value) {
        Ok(delivery) => {
            let part_key = keyspace.part(event, delivery.part);
            Ok(Some(Addressed { key: entry.key.clone(), event, target, part_key }))
        }
        Err(error) => Err(unusable(entry.key.clone(), event, &error)),
    }
}

fn unusable(key: String, event: EventId, error: &WireError) -> Arrival {
    match error {
        WireError::TooNew { .. } => Arrival::TooNew(HeldDelivery { event, reason: error.to_string() }),
        WireError::Unreadable { .. } => Arrival::Unreadable { key, detail: error.to_string() },
    }
}

fn resolve(certname: &Certname, delivery: &Addressed, part: Option<&str>) -> Arrival {
    let unreadable = |detail: String| Arrival::Unreadable { key: delivery.key.clone(), detail };
    let Some(text) = part else {
        return unreadable(format!("its event is missing at {}", delivery.part_key));
    };
    let part = match Part::from_wire(text) {
        Ok(part) => part,
        Err(error) => return unusable(delivery.part_key.clone(), delivery.event, &error),
    };
    let meant = match &delivery.target {
        Target::Node(_) => part.event.targets.hosts.contains(certname),
        Target::Group(group) => part.event.targets.groups.contains(group),
    };
    if part.event.id != delivery.event || !meant {
        return unreadable(format!("the event at {} does not name this target", delivery.part_key));
    }
    let mut event = part.event;
    // What the other targets are is nobody's business from here on, and would cost memory.
    event.targets = Targets::default();
    Arrival::Pending(Box::new(Cause {
        event,
        addressed_as: [delivery.target.clone()].into(),
        interruptions: 0,
    }))
}
