//! Asking for the end of deliveries, and reading such requests beside the deliveries that they are for.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use trigger_core::cancellation::{Cancellation, SignedCancellation};
use trigger_core::event::{Event, Target};
use trigger_core::identity::{Certname, EventId, GroupName};
use trigger_core::keyspace::Key;
use trigger_core::node::NodeRecord;
use trigger_core::signature::Authors;
use trigger_core::time::Timestamp;
use trigger_store::store::{Entry, KeyRange, StoreError};

use crate::certificates::Certificates;
use crate::codec::Opened;
use crate::deliveries::{Arrival, PER_READ};
use crate::fleet::Fleet;
use crate::status::EventStatus;

/// Where an event is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope<'a> {
    /// At all of its targets, less those that have ended already.
    AllBut(&'a BTreeSet<Certname>),
    /// At these nodes, which it names or which belong to its groups.
    Nodes(&'a BTreeSet<Certname>),
}

/// When and why a node asks for the end of deliveries.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// When, by the clock of that node.
    pub at: Timestamp,
    /// Why, in the words of an operator.
    pub reason: Option<&'a str>,
}

impl Fleet {
    /// Asks, in the name of the node that this fleet acts for, that deliveries of an event end before a run covers them.
    /// Each target decides whether that counts, and ends the delivery by itself. Idempotent.
    ///
    /// # Errors
    /// When the backend does not answer, or does not let this node do it.
    pub async fn cancel(
        &self,
        event: &Event,
        scope: Scope<'_>,
        Asked { at, reason }: Asked<'_>,
    ) -> Result<(), StoreError> {
        let members = match scope {
            Scope::AllBut(_) => BTreeMap::new(),
            Scope::Nodes(nodes) => {
                let members = nodes.iter().filter(|node| !event.targets.hosts.contains(*node));
                self.nodes_of(&members.collect::<Vec<_>>()).await?
            }
        };
        let signing_key = self.own_signing_key().await?;
        let mut entries = Vec::new();
        for (key, part) in places(event, scope, &members) {
            let cancellation = Cancellation::new(part, self.own().clone(), at, reason);
            entries.push(self.own_signed_entry(&signing_key, &key, &cancellation).await?);
        }
        self.put_all(entries).await
    }

    /// Notes who has asked for the end of those deliveries of an event that have not ended: their nodes are off, or run for
    /// it now. Whether that counts is for each of them to say. What the backend does not show to this node stays unknown.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn note_cancellations(&self, status: &mut EventStatus) -> Result<(), StoreError> {
        let open = status.targets.iter().filter(|(_, target)| !target.state.is_end());
        let open: Vec<Certname> = open.map(|(certname, _)| certname.clone()).collect();
        let mut keys = BTreeSet::new();
        for certname in &open {
            keys.extend(self.cancellation_keys_of(&status.event, certname));
        }
        let keys: Vec<KeyRange> = keys.into_iter().map(KeyRange::Key).collect();
        let mut found: BTreeMap<String, Certname> = BTreeMap::new();
        for chunk in keys.chunks(PER_READ) {
            let records = match self.read(chunk).await {
                Err(StoreError::Refused { .. } | StoreError::Denied { .. }) => return Ok(()),
                records => records?,
            };
            let certificates =
                self.read_certificates(records.iter().map(|record| record.text.as_str())).await?;
            for record in &records {
                let by_canceller = |cancellation: &Cancellation| Authors::Node(cancellation.by.clone());
                if let Ok(Opened::Accepted { value, .. }) =
                    self.open(&record.key, &record.text, &certificates, by_canceller)
                {
                    found.insert(self.key(&record.key), value.by);
                }
            }
        }
        for certname in open {
            let keys = self.cancellation_keys_of(&status.event, &certname);
            let by = keys.iter().find_map(|key| found.get(key).cloned());
            status.cancellations.extend(by.map(|by| (certname, by)));
        }
        Ok(())
    }

    /// The keys of the cancellations that there may be of an event at one of its targets.
    fn cancellation_keys_of(&self, event: &Event, certname: &Certname) -> Vec<String> {
        let id = event.id;
        if event.targets.hosts.contains(certname) {
            return vec![self.key(&Key::Cancellation { certname: certname.clone(), event: id })];
        }
        let of_group = |group: &GroupName| {
            [None, Some(certname.clone())]
                .map(|member| self.key(&Key::GroupCancellation { group: group.clone(), event: id, member }))
        };
        event.targets.groups.iter().flat_map(of_group).collect()
    }

    /// Puts deliveries in the place of the cancellations among `entries`: those that are for this node, and still stored. A
    /// delivery that was read before is read again for its cancellation.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub(crate) async fn with_cancelled(&self, entries: Vec<Entry>) -> Result<Vec<Entry>, StoreError> {
        let (mut cancelled, mut deliveries) = (BTreeSet::new(), Vec::with_capacity(entries.len()));
        for entry in entries {
            match self.keyspace().parse(&entry.key) {
                Some(Key::Cancellation { certname, event }) => {
                    cancelled.insert(self.key(&Key::Delivery { certname, event }));
                }
                Some(Key::GroupCancellation { group, event, member }) => {
                    if member.is_none_or(|member| member == *self.own()) {
                        cancelled.insert(self.key(&Key::GroupDelivery { group, event }));
                    }
                }
                _ => deliveries.push(entry),
            }
        }
        for delivery in &deliveries {
            cancelled.remove(&delivery.key);
        }
        let cancelled: Vec<KeyRange> = cancelled.into_iter().map(KeyRange::Key).collect();
        for chunk in cancelled.chunks(PER_READ) {
            deliveries.extend(self.store().read(chunk).await?);
        }
        Ok(deliveries)
    }

    /// The keys of the cancellations that there may be of a delivery to this node.
    pub(crate) fn cancellation_keys(&self, event: EventId, target: &Target) -> Vec<Key> {
        match target.clone() {
            Target::Node(certname) => vec![Key::Cancellation { certname, event }],
            Target::Group(group) => [None, Some(self.own().clone())]
                .map(|member| Key::GroupCancellation { group: group.clone(), event, member })
                .into(),
        }
    }

    /// The cancellation of a delivery whose signature is right, among what was found. What is stored there and does not count
    /// is added to `unusable`: it changes nothing.
    pub(crate) fn found_cancellation(
        &self,
        keys: &[Key],
        found: &HashMap<&Key, &str>,
        certificates: &Certificates,
        unusable: &mut Vec<Arrival>,
    ) -> Option<SignedCancellation> {
        let by_canceller = |cancellation: &Cancellation| Authors::Node(cancellation.by.clone());
        for key in keys {
            let Some(text) = found.get(key) else { continue };
            let why = match self.open(key, text, certificates, by_canceller) {
                Ok(Opened::Accepted { value: cancellation, signer, .. }) => {
                    return Some(SignedCancellation { cancellation, signer });
                }
                Ok(Opened::Refused(why) | Opened::Waits(why) | Opened::Outdated { why, .. }) => why,
                Err(error) => error.to_string(),
            };
            let detail = format!("it cancels nothing: {why}");
            unusable.push(Arrival::Unreadable { key: self.key(key), detail });
        }
        None
    }
}

/// The keys of the cancellations of an event, each with the part that lists its target.
fn places(event: &Event, scope: Scope<'_>, members: &BTreeMap<Certname, NodeRecord>) -> Vec<(Key, u32)> {
    let id = event.id;
    let is_wanted = |host: &Certname| match scope {
        Scope::AllBut(ended) => !ended.contains(host),
        Scope::Nodes(nodes) => nodes.contains(host),
    };
    let mut places = Vec::new();
    for part in event.clone().into_parts() {
        let hosts = part.event.targets.hosts.into_iter().filter(is_wanted);
        places.extend(hosts.map(|certname| (Key::Cancellation { certname, event: id }, part.index)));
        let groups = part.event.targets.groups;
        let of_group =
            |group: &GroupName, member| Key::GroupCancellation { group: group.clone(), event: id, member };
        match scope {
            Scope::AllBut(_) => {
                places.extend(groups.iter().map(|group| (of_group(group, None), part.index)));
            }
            Scope::Nodes(nodes) => {
                for node in nodes.iter().filter(|node| !event.targets.hosts.contains(*node)) {
                    // Of one that has not registered, no group is known: it may join any of them.
                    let known = members.get(node).map(|record| &record.groups);
                    let joined =
                        groups.iter().filter(|group| known.is_none_or(|known| known.contains_key(*group)));
                    places.extend(joined.map(|group| (of_group(group, Some(node.clone())), part.index)));
                }
            }
        }
    }
    places
}
