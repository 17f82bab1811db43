//! An event, assembled from its parts, the members of its groups and its outcomes.

use std::collections::{BTreeMap, BTreeSet};

use trigger_core::delivery::{DeliveryOutcome, Members};
use trigger_core::event::{Event, Part};
use trigger_core::identity::{Certname, EventId, Revision};
use trigger_core::keyspace::Key;
use trigger_core::signature::Authors;
use trigger_core::wire::WireError;
use trigger_store::store::StoreError;

use crate::codec::Opened;
use crate::fleet::{Fleet, Record};
use crate::verifying::Unverified;

/// Outcomes that are verified together, each with another certificate: what is known of certificates is bounded.
const OUTCOMES_AT_A_TIME: usize = 256;

/// An event with its stored entries.
#[derive(Debug)]
pub(crate) struct StoredEvent {
    pub(crate) event: Event,
    pub(crate) targets: BTreeSet<Certname>,
    pub(crate) outcomes: BTreeMap<Certname, DeliveryOutcome>,
    /// Whether its origin has signed it, as far as signatures are required, with a certificate that is or was trusted.
    pub(crate) is_verified: bool,
    /// What is stored of the event and does not count.
    pub(crate) unverified: Unverified,
    parts_found: BTreeSet<u32>,
    parts_expected: u32,
}

impl StoredEvent {
    fn new(part: &Part) -> Self {
        Self {
            event: part.event.clone(),
            targets: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            is_verified: false,
            unverified: Unverified::default(),
            parts_found: BTreeSet::new(),
            parts_expected: part.count,
        }
    }

    /// Why a part is not one of this event, of which others are known.
    fn objection(&self, part: &Part) -> Option<String> {
        let whole = Event { targets: self.event.targets.clone(), ..part.event.clone() };
        (whole != self.event || part.count != self.parts_expected)
            .then(|| format!("it is of another event of the same id, fired by {}", part.event.origin))
    }

    fn add_part(&mut self, part: Part) {
        self.parts_found.insert(part.index);
        self.targets.extend(part.event.targets.hosts.iter().cloned());
        self.event.targets.hosts.extend(part.event.targets.hosts);
        self.event.targets.groups.extend(part.event.targets.groups);
    }

    /// The same event as if it had no targets.
    pub(crate) fn without_targets(self) -> Self {
        Self { targets: BTreeSet::new(), ..self }
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

/// What is stored of how the deliveries of an event have ended.
#[derive(Debug, Default)]
pub(crate) struct StoredEnds {
    /// The targets that have ended.
    pub(crate) ended: BTreeSet<Certname>,
    /// The targets of which an outcome is stored that does not count, with its revision.
    pub(crate) forged: BTreeMap<Certname, Revision>,
}

/// The records of one event.
#[derive(Debug, Default)]
struct Records {
    parts: Vec<Record>,
    members: Vec<Record>,
    outcomes: Vec<Record>,
}

impl Fleet {
    /// The events among `records`, of which at least one part can be decoded. Only what its node has signed counts.
    ///
    /// # Errors
    /// When the backend does not answer: certificates are read.
    pub(crate) async fn stored_events(
        &self,
        records: Vec<Record>,
    ) -> Result<BTreeMap<EventId, StoredEvent>, StoreError> {
        let mut by_event: BTreeMap<EventId, Records> = BTreeMap::new();
        for record in records {
            match record.key {
                Key::Part { event, .. } => by_event.entry(event).or_default().parts.push(record),
                Key::Members { event, .. } => by_event.entry(event).or_default().members.push(record),
                Key::Outcome { event, .. } => by_event.entry(event).or_default().outcomes.push(record),
                _ => {}
            }
        }
        let mut events = BTreeMap::new();
        for (id, records) in by_event {
            if let Some(event) = self.stored_event(records).await? {
                events.insert(id, event);
            }
        }
        Ok(events)
    }

    async fn stored_event(&self, records: Records) -> Result<Option<StoredEvent>, StoreError> {
        let Records { parts, members, outcomes } = records;
        let texts = parts.iter().chain(&members).map(|record| record.text.as_str());
        let certificates = self.read_certificates(texts).await?;
        let mut unverified = Unverified::default();
        let mut stored: Option<StoredEvent> = None;
        for record in &parts {
            let Key::Part { index, .. } = record.key else { continue };
            let by_origin = |part: &Part| Authors::Node(part.event.origin.clone());
            let opened = self.open_or_note(record, &certificates, by_origin, &mut unverified);
            let Some((part, _)) = opened else { continue };
            // A node may sign anything as its own, and put it beside the parts of another node's event.
            if let Some(why) = stored.as_ref().and_then(|stored| stored.objection(&part)) {
                unverified.add(&self.key(&record.key), &why);
                continue;
            }
            let stored = stored.get_or_insert_with(|| StoredEvent::new(&part));
            stored.add_part(Part { index, ..part });
        }
        // An event of which nothing counts is shown as it is written, with that warning: its targets have refused it.
        let is_verified = stored.is_some();
        let Some(mut stored) = stored.or_else(|| self.stored_event_as_written(&parts)) else {
            return Ok(None);
        };
        let origin = is_verified.then(|| stored.event.origin.clone());
        for record in &members {
            let by_origin = |_: &Members| Authors::Node(stored.event.origin.clone());
            if let Some((members, _)) = self.open_or_note(record, &certificates, by_origin, &mut unverified) {
                stored.targets.extend(members.0);
            }
        }
        for records in outcomes.chunks(OUTCOMES_AT_A_TIME) {
            let texts = records.iter().map(|record| record.text.as_str());
            let certificates = self.read_certificates(texts).await?;
            for record in records {
                let Key::Outcome { certname, .. } = &record.key else { continue };
                let authors =
                    |outcome: &DeliveryOutcome| Authors::of_outcome(outcome, certname, origin.as_ref());
                let opened = self.open_or_note(record, &certificates, authors, &mut unverified);
                let Some((outcome, by)) = opened else { continue };
                // A member that joined between the listing and the delivery ran too.
                stored.targets.insert(certname.clone());
                stored.outcomes.insert(certname.clone(), with_author(outcome, certname, by));
            }
        }
        stored.is_verified = is_verified;
        stored.unverified = unverified;
        Ok(Some(stored))
    }

    /// The targets of an event that have ended, as far as its stored outcomes count. One of a newer version counts, and one
    /// that cannot be verified now: a target that has ended has not expired.
    pub(crate) async fn stored_ends(
        &self,
        outcomes: Vec<Record>,
        origin: Option<&Certname>,
    ) -> Result<StoredEnds, StoreError> {
        let mut ends = StoredEnds::default();
        for records in outcomes.chunks(OUTCOMES_AT_A_TIME) {
            let texts = records.iter().map(|record| record.text.as_str());
            let certificates = self.read_certificates(texts).await?;
            for Record { key, text, revision } in records {
                let Key::Outcome { certname, .. } = key else { continue };
                let authors = |outcome: &DeliveryOutcome| Authors::of_outcome(outcome, certname, origin);
                let is_forged = match self.open(key, text, &certificates, authors) {
                    Ok(opened) => matches!(opened, Opened::Refused(_)),
                    Err(WireError::TooNew { .. }) => false,
                    Err(WireError::Unreadable { .. }) => self.codec().requires_signatures(),
                };
                if is_forged {
                    ends.forged.insert(certname.clone(), *revision);
                } else {
                    ends.ended.insert(certname.clone());
                }
            }
        }
        Ok(ends)
    }

    /// The event of which these are parts, whether they count or not, without members and outcomes; absent if none can be
    /// decoded.
    pub(crate) fn stored_event_as_written(&self, parts: &[Record]) -> Option<StoredEvent> {
        let mut stored: Option<StoredEvent> = None;
        for record in parts {
            let Key::Part { index, .. } = record.key else { continue };
            let Ok(part) = self.decode::<Part>(&record.text) else { continue };
            stored.get_or_insert_with(|| StoredEvent::new(&part)).add_part(Part { index, ..part });
        }
        stored
    }
}

/// An `expired` that another node has written for its silent target says so.
fn with_author(outcome: DeliveryOutcome, target: &Certname, by: Option<Certname>) -> DeliveryOutcome {
    match (outcome, by) {
        (DeliveryOutcome::Expired(None), Some(by)) if by != *target => {
            DeliveryOutcome::Expired(Some(format!("{by} has noted that, because this node was silent")))
        }
        (outcome, _) => outcome,
    }
}
