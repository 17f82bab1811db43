//! Removing a node that is gone: what waits for it ends, and its registration goes.

use std::collections::BTreeSet;

use trigger_core::delivery::DeliveryOutcome;
use trigger_core::identity::{Certname, EventId};
use trigger_core::keyspace::{Key, Range};
use trigger_store::store::{KeyRange, StoreError};

use crate::fleet::Fleet;

/// How many events are looked at together.
const EVENTS_PER_READ: usize = 32;

/// What was removed of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forgotten {
    /// The events whose deliveries to it have expired by this.
    pub expired: Vec<EventId>,
    /// Whether it was registered.
    pub was_registered: bool,
}

impl Fleet {
    /// Ends the deliveries to a node that is gone as `expired` with this reason, then deletes its registration, its run
    /// history and the order to hold it. Its certificates stay, because they verify what the node has signed.
    ///
    /// Idempotent: cut off, it is repeated. A node that lives after all registers again, and a run of it that ends later
    /// replaces the `expired` (C6).
    ///
    /// # Errors
    /// When the backend does not answer, or does not let this node do it.
    pub async fn forget(&self, certname: &Certname, reason: &str) -> Result<Forgotten, StoreError> {
        let mut forgotten = Forgotten::default();
        let registration = Key::Node { certname: certname.clone() };
        forgotten.was_registered = !self.list(&[self.one(&registration)]).await?.is_empty();
        let open: Vec<EventId> = self.open_for(certname).await?.into_iter().collect();
        for events in open.chunks(EVENTS_PER_READ) {
            let stored = self.stored_among(events).await?;
            for event in events {
                // An event that the backend has lost has nobody to show an end to.
                if !stored.contains(event) {
                    self.delete(vec![Key::Delivery { certname: certname.clone(), event: *event }]).await?;
                } else if self.end_for(*event, certname, reason).await? {
                    forgotten.expired.push(*event);
                }
            }
        }
        let hold = Key::Hold { certname: certname.clone() };
        self.delete(vec![Key::RunHistory { certname: certname.clone() }, hold, registration]).await?;
        Ok(forgotten)
    }

    /// The events that wait for a node: those that name it, and those for its groups that were fired when it was a member.
    async fn open_for(&self, certname: &Certname) -> Result<BTreeSet<EventId>, StoreError> {
        let mut open: BTreeSet<EventId> = self.open_deliveries(certname).await?.into_iter().collect();
        let record = self.node(certname).await?;
        let groups = record.into_iter().flat_map(|record| record.groups.into_keys());
        let ranges: Vec<KeyRange> = groups.map(|group| self.all(&Range::GroupDeliveries(group))).collect();
        let of_groups: Vec<EventId> = self
            .list(&ranges)
            .await?
            .into_iter()
            .filter_map(|(key, _)| match key {
                Key::GroupDelivery { event, .. } => Some(event),
                _ => None,
            })
            .collect();
        for events in of_groups.chunks(EVENTS_PER_READ) {
            let statuses = self.statuses(events).await?;
            let waits = statuses.into_iter().filter(|(_, status)| {
                status.targets.get(certname).is_some_and(|target| !target.state.is_end())
            });
            open.extend(waits.map(|(event, _)| event));
        }
        Ok(open)
    }

    /// Ends one delivery. Returns whether this was its end.
    async fn end_for(&self, event: EventId, certname: &Certname, reason: &str) -> Result<bool, StoreError> {
        // A backend that authorises its clients keeps an outcome that is stored, and takes no compare-and-swap of another
        // node's.
        if !self.store().sweeps_itself() {
            return self.expire(event, certname, Some(reason), None).await;
        }
        let key = Key::Outcome { event, certname: certname.clone() };
        let has_ended = !self.list(&[self.one(&key)]).await?.is_empty();
        if !has_ended {
            let outcome = DeliveryOutcome::Expired(Some(reason.to_owned()));
            let entry = self.own_signed_entry(&self.own_signing_key().await?, &key, &outcome).await?;
            self.put_all(vec![entry]).await?;
        }
        self.delete(vec![Key::Delivery { certname: certname.clone(), event }]).await?;
        Ok(!has_ended)
    }
}
