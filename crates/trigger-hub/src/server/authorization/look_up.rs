//! Looks up in the store what a decision depends on.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use trigger_core::authorization::{Actor, Facts, Fired, Question};
use trigger_core::event::Part;
use trigger_core::identity::{Certname, EventId, Revision};
use trigger_core::keyspace::{Key, Keyspace, Range};
use trigger_core::wire::Stored;
use trigger_store::store::{KeyRange, StoreError};

use super::latest::Latest;
use crate::served_store::ServedStore;

/// What is remembered of the events that were asked for latest.
#[derive(Debug, Default)]
pub(super) struct KnownEvents {
    /// An event keeps its origin.
    fired: Latest<EventId, Fired>,
    /// Who was a target of an event, or has ended it, does not become a stranger to it.
    involved: Latest<(EventId, Certname), ()>,
}

impl KnownEvents {
    /// Forgets all events: some are not stored any more.
    pub(super) fn forget(&self) {
        self.fired.clear();
        self.involved.clear();
    }
}

/// What was found out for one request.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    pub(super) facts: Facts,
    /// The outcomes that were found to be stored, and where.
    pub(super) outcomes: BTreeMap<(EventId, Certname), Revision>,
}

impl Lookup {
    /// Forgets what the store has said, because that may have changed.
    pub(super) fn forget_stored(&mut self) {
        self.facts.forget_stored();
        self.outcomes.clear();
    }

    /// The revision of an outcome that was found to be stored.
    pub(super) fn outcome(&self, key: &Key) -> Option<Revision> {
        match key {
            Key::Outcome { event, certname } => self.outcomes.get(&(*event, certname.clone())).copied(),
            _ => None,
        }
    }
}

/// Answers `questions` in a few reads, however many they are.
pub(super) async fn look_up(
    store: &dyn ServedStore,
    keyspace: &Keyspace,
    known: &KnownEvents,
    actor: &Actor,
    questions: BTreeSet<Question>,
    lookup: &mut Lookup,
) -> Result<(), StoreError> {
    let of_actor = |event: EventId| {
        let certname = actor.certname.clone();
        [Key::Delivery { certname: certname.clone(), event }, Key::Outcome { event, certname }]
    };
    let (mut parts, mut present) = (Vec::new(), Vec::new());
    // Asked once: what is remembered may be forgotten meanwhile.
    let (mut fired_by, mut involved) = (HashMap::new(), BTreeSet::new());
    for question in &questions {
        match question {
            Question::Origin(event) => match known.fired.get(event) {
                Some(fired) => drop(fired_by.insert(*event, fired)),
                None => parts.push(Key::Part { event: *event, index: 0 }),
            },
            Question::Part(event, index) => parts.push(Key::Part { event: *event, index: *index }),
            Question::Involved(event) => match known.involved.get(&(*event, actor.certname.clone())) {
                Some(()) => drop(involved.insert(*event)),
                None => present.extend(of_actor(*event)),
            },
            Question::HasOutcome(event, certname) => {
                present.push(Key::Outcome { event: *event, certname: certname.clone() });
            }
        }
    }
    let parts = read_parts(store, keyspace, parts).await?;
    let present = list(store, keyspace, present).await?;
    let mut without_first_part = Vec::new();
    for question in questions {
        match question {
            Question::Origin(event) => {
                let stored = parts.get(&(event, 0)).map(fired);
                if let Some(fired) = &stored {
                    known.fired.remember(event, fired.clone());
                }
                match stored.or_else(|| fired_by.remove(&event)) {
                    Some(fired) => lookup.facts.origin_is(event, Some(fired)),
                    None => without_first_part.push(event),
                }
            }
            Question::Part(event, index) => {
                let part = parts.get(&(event, index)).cloned().flatten();
                lookup.facts.part_is(event, index, part);
            }
            Question::Involved(event) => {
                if of_actor(event).iter().any(|key| present.contains_key(&key.to_string())) {
                    known.involved.remember((event, actor.certname.clone()), ());
                    involved.insert(event);
                }
                lookup.facts.involved_is(event, involved.contains(&event));
            }
            Question::HasOutcome(event, certname) => {
                let key = Key::Outcome { event, certname: certname.clone() };
                let stored = present.get(&key.to_string()).copied();
                lookup.facts.outcome_is(event, certname.clone(), stored.is_some());
                lookup.outcomes.extend(stored.map(|revision| ((event, certname), revision)));
            }
        }
    }
    find_other_parts(store, keyspace, without_first_part, &mut lookup.facts).await
}

/// Finds who fired events of which the first part is not stored: the parts of a large event come in any order.
async fn find_other_parts(
    store: &dyn ServedStore,
    keyspace: &Keyspace,
    events: Vec<EventId>,
    facts: &mut Facts,
) -> Result<(), StoreError> {
    if events.is_empty() {
        return Ok(());
    }
    let ranges: Vec<KeyRange> =
        events.iter().map(|event| KeyRange::Prefix(keyspace.range(&Range::Event(*event)))).collect();
    let mut any_part: BTreeMap<EventId, Key> = BTreeMap::new();
    for (key, _) in store.list(&ranges).await? {
        if let Some(key @ Key::Part { event, .. }) = keyspace.parse(&key) {
            any_part.entry(event).or_insert(key);
        }
    }
    let found = read_parts(store, keyspace, any_part.into_values().collect()).await?;
    let mut found: HashMap<EventId, Fired> =
        found.iter().map(|((event, _), part)| (*event, fired(part))).collect();
    for event in events {
        facts.origin_is(event, found.remove(&event));
    }
    Ok(())
}

/// Reads parts; one that is stored and cannot be read is `None`.
async fn read_parts(
    store: &dyn ServedStore,
    keyspace: &Keyspace,
    keys: Vec<Key>,
) -> Result<HashMap<(EventId, u32), Option<Part>>, StoreError> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let ranges: Vec<KeyRange> = keys.iter().map(|key| KeyRange::Key(keyspace.key(key))).collect();
    let entries = store.read(&ranges).await?;
    let part = |entry: &trigger_store::store::Entry| match keyspace.parse(&entry.key) {
        Some(Key::Part { event, index }) => Some(((event, index), Part::from_wire(&entry.value).ok())),
        _ => None,
    };
    Ok(entries.iter().filter_map(part).collect())
}

/// The keys among `keys` that are stored, without the prefix, and their revisions.
async fn list(
    store: &dyn ServedStore,
    keyspace: &Keyspace,
    keys: Vec<Key>,
) -> Result<HashMap<String, Revision>, StoreError> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let ranges: Vec<KeyRange> = keys.iter().map(|key| KeyRange::Key(keyspace.key(key))).collect();
    let stored = store.list(&ranges).await?;
    let known = |(key, revision): (String, Revision)| Some((keyspace.parse(&key)?.to_string(), revision));
    Ok(stored.into_iter().filter_map(known).collect())
}

fn fired(part: &Option<Part>) -> Fired {
    part.as_ref().map_or_else(Fired::unreadable, Fired::of)
}
