//! Reading the deliveries to a node, with their events.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use trigger_core::cancellation::SignedCancellation;
use trigger_core::delivery::{Delivery, DeliveryOutcome};
use trigger_core::event::{Event, Part, Target, Targets};
use trigger_core::holds::SignedHoldOrder;
use trigger_core::identity::{Certname, EventId, GroupName, Revision};
use trigger_core::keyspace::{Key, Range};
use trigger_core::node::HeldDelivery;
use trigger_core::run::record::Cause;
use trigger_core::signature::Authors;
use trigger_core::signer::Signer;
use trigger_core::wire::WireError;
use trigger_store::store::{Entry, KeyRange, StoreError};

use crate::certificates::Certificates;
use crate::codec::Opened;
use crate::fleet::Fleet;

/// Deliveries read at a time: each needs its part and, perhaps, its outcome and its cancellation.
pub(crate) const PER_READ: usize = 60;

/// A delivery as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// It waits for a run.
    Pending(Box<Cause>),
    /// It waits for a run, and the origin of its event or another node has signed the request to end it.
    Cancelled {
        /// The delivery.
        cause: Box<Cause>,
        /// The request. Whether it counts is for the node's policy to say.
        cancellation: Box<SignedCancellation>,
    },
    /// Its event is not what its origin signed, or does not name this target: it never becomes a run.
    Refused {
        /// The event that was to be delivered.
        event: EventId,
        /// The delivery that brought it.
        target: Target,
        /// Why, as a sentence.
        reason: String,
    },
    /// It cannot be known now whether its event is what its origin signed: it waits, and is judged again.
    Unverified(HeldDelivery),
    /// It has an outcome already: it is to be deleted without a run.
    HasOutcome {
        /// The event that was delivered.
        event: EventId,
        /// The delivery that brought it.
        target: Target,
    },
    /// It has been refused: it is to be deleted without a run, unless what was refused was not what is stored now.
    WasRefused {
        /// The event that was delivered.
        event: EventId,
        /// The delivery that brought it.
        target: Target,
        /// The event that counts now. A forgery under its id may have been refused before it was published.
        genuine: Option<Box<Cause>>,
    },
    /// It is no delivery: the order to hold or release this node.
    Ordered(Box<SignedHoldOrder>),
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

/// How a delivery has ended, as its stored outcome says.
enum StoredEnd {
    Refused,
    /// In any other way.
    Final,
}

/// The part that a delivery points to, as it was read.
enum FoundPart {
    Accepted(Box<AcceptedPart>),
    Refused(String),
    Waits(String),
    Unusable(WireError),
    Missing,
}

/// A part that counts.
struct AcceptedPart {
    /// The event, without its targets.
    event: Event,
    signer: Signer,
    /// Whether this node is a target by its certname.
    names_node: bool,
    groups: BTreeSet<GroupName>,
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
        self.read_uncancelled(joined, &self.with_cancelled(entries.to_vec()).await?).await
    }

    /// The same for entries of which none is a cancellation.
    pub(crate) async fn read_uncancelled(
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
        for chunk in addressed.chunks(PER_READ) {
            match self.resolve_all(chunk).await {
                // One that this node may not read keeps it from no other.
                Err(StoreError::Refused { .. } | StoreError::Denied { .. }) => {
                    for delivery in chunk {
                        arrivals.extend(self.resolve_alone(delivery).await?);
                    }
                }
                resolved => arrivals.extend(resolved?),
            }
        }
        Ok(arrivals)
    }

    async fn resolve_alone(&self, delivery: &Addressed) -> Result<Vec<Arrival>, StoreError> {
        match self.resolve_all(std::slice::from_ref(delivery)).await {
            Err(error @ (StoreError::Refused { .. } | StoreError::Denied { .. })) => {
                Ok(vec![Arrival::Unreadable { key: delivery.key.clone(), detail: error.to_string() }])
            }
            resolved => resolved,
        }
    }

    async fn resolve_all(&self, chunk: &[Addressed]) -> Result<Vec<Arrival>, StoreError> {
        let outcome = |event| Key::Outcome { event, certname: self.own().clone() };
        let cancellations =
            chunk.iter().map(|delivery| self.cancellation_keys(delivery.event, &delivery.target));
        let cancellations: Vec<Vec<Key>> = cancellations.collect();
        let keys =
            chunk.iter().flat_map(|delivery| [self.one(&delivery.part), self.one(&outcome(delivery.event))]);
        let keys = keys.chain(cancellations.iter().flatten().map(|key| self.one(key)));
        // How these deliveries end will be signed: this node's own certificate is looked up with them.
        let own = self.unannounced_certificate();
        let keys = keys.chain(own.iter().map(|(_, (key, _))| KeyRange::Key(key.clone())));
        let found = self.read(&keys.collect::<Vec<_>>()).await?;
        if let Some(own) = &own {
            self.note_announced(own, &found);
        }
        let certificates = self.read_certificates(found.iter().map(|record| record.text.as_str())).await?;
        let found: HashMap<&Key, &str> =
            found.iter().map(|record| (&record.key, record.text.as_str())).collect();
        // A part that several deliveries point to is verified once.
        let mut parts: HashMap<&Key, FoundPart> = HashMap::new();
        let mut arrivals = Vec::with_capacity(chunk.len());
        for (delivery, cancellations) in chunk.iter().zip(&cancellations) {
            let found_part = || self.found_part(delivery, &found, &certificates);
            let part = parts.entry(&delivery.part).or_insert_with(found_part);
            let end = outcome(delivery.event);
            // Only the origin of an event that is for this node may have suppressed it here.
            let origin = part.of(delivery).map(|(event, _)| &event.origin);
            let ended = found.get(&end).and_then(|text| self.stored_end(&end, text, &certificates, origin));
            let (event, target) = (delivery.event, delivery.target.clone());
            let arrival = match ended {
                None => match self.resolve(delivery, part) {
                    Arrival::Pending(cause) => {
                        match self.found_cancellation(cancellations, &found, &certificates, &mut arrivals) {
                            Some(request) => Arrival::Cancelled { cause, cancellation: Box::new(request) },
                            None => Arrival::Pending(cause),
                        }
                    }
                    arrival => arrival,
                },
                Some(StoredEnd::Final) => Arrival::HasOutcome { event, target },
                Some(StoredEnd::Refused) => Arrival::WasRefused {
                    event,
                    target,
                    genuine: match self.resolve(delivery, part) {
                        Arrival::Pending(cause) => Some(cause),
                        _ => None,
                    },
                },
            };
            arrivals.push(arrival);
        }
        Ok(arrivals)
    }

    fn found_part(
        &self,
        delivery: &Addressed,
        found: &HashMap<&Key, &str>,
        certificates: &Certificates,
    ) -> FoundPart {
        let Some(text) = found.get(&delivery.part) else { return FoundPart::Missing };
        // Its origin is known once it has been read, and may only be the node that signed it.
        let by_origin = |part: &Part| Authors::Node(part.event.origin.clone());
        match self.open::<Part>(&delivery.part, text, certificates, by_origin) {
            Ok(Opened::Accepted { value, signer, .. }) => FoundPart::accepted(value, signer, self.own()),
            Ok(Opened::Refused(why) | Opened::Outdated { why, .. }) => FoundPart::Refused(why),
            Ok(Opened::Waits(why)) => FoundPart::Waits(why),
            Err(error) => FoundPart::Unusable(error),
        }
    }

    /// What a text under the key of one of this node's outcomes says, if it counts as one. An outcome that cannot be decoded
    /// or verified now may be this node's own: the delivery then counts as ended where nothing is verified, and is judged
    /// again otherwise. A run that has been is never repeated for that, because the node remembers it.
    fn stored_end(
        &self,
        key: &Key,
        text: &str,
        certificates: &Certificates,
        origin: Option<&Certname>,
    ) -> Option<StoredEnd> {
        let authors = |outcome: &DeliveryOutcome| Authors::of_outcome(outcome, self.own(), origin);
        match self.open(key, text, certificates, authors) {
            Ok(Opened::Accepted { value: DeliveryOutcome::Refused(_), .. }) => Some(StoredEnd::Refused),
            Ok(Opened::Accepted { .. }) => Some(StoredEnd::Final),
            Ok(Opened::Refused(_) | Opened::Waits(_) | Opened::Outdated { .. }) => None,
            Err(_) => (!self.codec().requires_signatures()).then_some(StoredEnd::Final),
        }
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

    fn resolve(&self, delivery: &Addressed, part: &FoundPart) -> Arrival {
        let part_key = || self.key(&delivery.part);
        let refused = |reason: String| Arrival::Refused {
            event: delivery.event,
            target: delivery.target.clone(),
            reason,
        };
        match part {
            FoundPart::Accepted(_) => {}
            FoundPart::Missing => {
                let detail = format!("its event is missing at {}", part_key());
                return Arrival::Unreadable { key: delivery.key.clone(), detail };
            }
            FoundPart::Refused(why) => {
                return refused(format!("what is stored at {} does not count: {why}", part_key()));
            }
            FoundPart::Waits(why) => {
                let reason = format!("what is stored at {} cannot be verified yet: {why}", part_key());
                return Arrival::Unverified(HeldDelivery { event: delivery.event, reason });
            }
            FoundPart::Unusable(error) => return unusable(part_key(), delivery.event, error),
        }
        let Some((event, signer)) = part.of(delivery) else {
            return refused(format!("the event at {} does not name this target", part_key()));
        };
        Arrival::Pending(Box::new(Cause {
            event: event.clone(),
            addressed_as: [delivery.target.clone()].into(),
            interruptions: 0,
            without_catalog: false,
            signer: signer.clone(),
        }))
    }
}

impl FoundPart {
    /// Keeps what matters to the node `own`: the other targets would cost memory.
    fn accepted(part: Part, signer: Signer, own: &Certname) -> Self {
        let Targets { hosts, groups } = part.event.targets;
        let event = Event { targets: Targets::default(), ..part.event };
        Self::Accepted(Box::new(AcceptedPart { event, signer, names_node: hosts.contains(own), groups }))
    }

    /// The event and its signer, if it is what the delivery says.
    fn of(&self, delivery: &Addressed) -> Option<(&Event, &Signer)> {
        let Self::Accepted(part) = self else { return None };
        let is_target = match &delivery.target {
            Target::Node(_) => part.names_node,
            Target::Group(group) => part.groups.contains(group),
        };
        (part.event.id == delivery.event && is_target).then_some((&part.event, &part.signer))
    }
}

fn unusable(key: String, event: EventId, error: &WireError) -> Arrival {
    match error {
        WireError::TooNew { .. } => Arrival::TooNew(HeldDelivery { event, reason: error.to_string() }),
        WireError::Unreadable { .. } => Arrival::Unreadable { key, detail: error.to_string() },
    }
}
