//! An event, assembled from its parts, the members of its groups and its outcomes.

use std::collections::{BTreeMap, BTreeSet};

use trigger_core::delivery::{DeliveryOutcome, Members};
use trigger_core::event::{Event, Part};
use trigger_core::identity::{Certname, EventId};
use trigger_core::keyspace::Key;

use crate::fleet::{Fleet, Record};

/// An event with its stored entries.
#[derive(Debug)]
pub(crate) struct StoredEvent {
    pub(crate) event: Event,
    pub(crate) targets: BTreeSet<Certname>,
    pub(crate) outcomes: BTreeMap<Certname, DeliveryOutcome>,
    parts_found: BTreeSet<u32>,
    parts_expected: u32,
}

impl StoredEvent {
    fn new(part: &Part) -> Self {
        Self {
            event: part.event.clone(),
            targets: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            parts_found: BTreeSet::new(),
            parts_expected: part.count,
        }
    }

    fn add_part(&mut self, part: Part) {
        self.parts_found.insert(part.index);
        self.targets.extend(part.event.targets.hosts.iter().cloned());
        self.event.targets.hosts.extend(part.event.targets.hosts);
        self.event.targets.groups.extend(part.event.targets.groups);
    }

    /// The targets that have no outcome yet.
    pub(crate) fn open_targets(&self) -> Vec<&Certname> {
        self.targets.iter().filter(|certname| !self.outcomes.contains_key(*certname)).collect()
    }

    /// Parts that are missing or cannot be decoded.
    pub(crate) fn missing_parts(&self) -> Vec<u32> {
        (0..self.parts_expected).filter(|index| !self.parts_found.contains(index)).collect()
    }
}

impl Fleet {
    /// The events among `records`, of which at least one part can be decoded.
    pub(crate) fn stored_events(&self, records: Vec<Record>) -> BTreeMap<EventId, StoredEvent> {
        let mut events: BTreeMap<EventId, StoredEvent> = BTreeMap::new();
        let mut others = Vec::new();
        for record in records {
            match record.key {
                Key::Part { event, index } => {
                    let Ok(part) = self.decode::<Part>(&record.text) else { continue };
                    let stored = events.entry(event).or_insert_with(|| StoredEvent::new(&part));
                    stored.add_part(Part { index, ..part });
                }
                _ => others.push(record),
            }
        }
        for Record { key, text, .. } in others {
            match key {
                Key::Members { event, .. } => {
                    if let (Some(stored), Ok(members)) =
                        (events.get_mut(&event), self.decode::<Members>(&text))
                    {
                        stored.targets.extend(members.0);
                    }
                }
                Key::Outcome { event, certname } => {
                    if let (Some(stored), Ok(outcome)) = (events.get_mut(&event), self.decode(&text)) {
                        // A member that joined between the listing and the delivery ran too.
                        stored.targets.insert(certname.clone());
                        stored.outcomes.insert(certname, outcome);
                    }
                }
                _ => {}
            }
        }
        events
    }
}
