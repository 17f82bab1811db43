//! Orders to hold and release nodes: giving them, and reading those to this node (C13).

use std::collections::BTreeMap;

use trigger_core::holds::{Demand, HoldOrder, SignedHoldOrder, next_number};
use trigger_core::identity::Certname;
use trigger_core::keyspace::Key;
use trigger_core::node::NodeRecord;
use trigger_core::signature::Authors;
use trigger_core::time::Timestamp;
use trigger_store::store::{Entry, KeyRange, StoreError};

use crate::codec::Opened;
use crate::deliveries::{Arrival, PER_READ};
use crate::fleet::Fleet;

/// An order to this node, as it was read.
pub(crate) struct ReadOrder {
    /// The order, or what is wrong with it.
    pub(crate) arrival: Arrival,
    /// Whether it may count later although it does not now.
    pub(crate) waits: bool,
}

/// The orders of one command.
#[derive(Debug, Default)]
pub struct GivenOrders {
    /// The number of the order at each node that has got one.
    pub numbers: BTreeMap<Certname, u64>,
    /// The nodes whose order is not stored, or not for certain.
    pub failed: Vec<(Certname, StoreError)>,
}

impl Fleet {
    /// Gives each of these nodes an order, in the name of the node that this fleet acts for. With each node comes its
    /// registration, if there is one. Whether the order counts, the node decides.
    ///
    /// # Errors
    /// When no order is stored, that of the first. When this node cannot sign.
    pub async fn order_hold(
        &self,
        nodes: &BTreeMap<Certname, Option<NodeRecord>>,
        demand: &Demand,
        at: Timestamp,
    ) -> Result<GivenOrders, StoreError> {
        let signing_key = self.own_signing_key().await?;
        let stored = self.stored_numbers(nodes.keys()).await?;
        let (mut ordered, mut entries) = (Vec::new(), Vec::new());
        for (certname, record) in nodes {
            let report = record.as_ref().and_then(|record| record.activity.hold.as_ref());
            let reported = report.and_then(|report| report.accepted);
            let number = next_number(at, stored.get(certname).copied(), reported);
            let order = HoldOrder { number, by: self.own().clone(), at, demand: demand.clone() };
            let key = Key::Hold { certname: certname.clone() };
            entries.push(self.own_signed_entry(&signing_key, &key, &order).await?);
            ordered.push((certname.clone(), number));
        }
        let stored = self.store().put_many(entries).await;
        let mut given = GivenOrders::default();
        for ((certname, number), stored) in ordered.into_iter().zip(stored) {
            match stored {
                Ok(_) => drop(given.numbers.insert(certname, number)),
                Err(error) => given.failed.push((certname, error)),
            }
        }
        match given.failed.first() {
            Some(_) if given.numbers.is_empty() => Err(given.failed.remove(0).1),
            _ => Ok(given),
        }
    }

    /// The numbers of the stored orders whose signature counts. A node that may not read them may not write them either, and
    /// the backend says so then.
    async fn stored_numbers(
        &self,
        certnames: impl Iterator<Item = &Certname>,
    ) -> Result<BTreeMap<Certname, u64>, StoreError> {
        let keys: Vec<KeyRange> =
            certnames.map(|certname| self.one(&Key::Hold { certname: certname.clone() })).collect();
        let mut numbers = BTreeMap::new();
        for chunk in keys.chunks(PER_READ) {
            let records = match self.read(chunk).await {
                Err(StoreError::Refused { .. } | StoreError::Denied { .. }) => continue,
                read => read?,
            };
            let certificates =
                self.read_certificates(records.iter().map(|record| record.text.as_str())).await?;
            for record in records {
                let Key::Hold { certname } = &record.key else { continue };
                let opened = self.open(&record.key, &record.text, &certificates, by_issuer);
                if let Ok(Opened::Accepted { value, .. } | Opened::Outdated { value, .. }) = opened {
                    numbers.insert(certname.clone(), value.number);
                }
            }
        }
        Ok(numbers)
    }

    /// Reads the order to this node that an entry holds.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub(crate) async fn read_order(&self, entry: &Entry) -> Result<ReadOrder, StoreError> {
        let certificates = self.read_certificates([entry.value.as_str()]).await?;
        let key = Key::Hold { certname: self.own().clone() };
        let (why, waits) = match self.open(&key, &entry.value, &certificates, by_issuer) {
            Ok(Opened::Accepted { value: order, signer, .. }) => {
                let arrival = Arrival::Ordered(Box::new(SignedHoldOrder { order, signer }));
                return Ok(ReadOrder { arrival, waits: false });
            }
            Ok(Opened::Waits(why)) => (why, true),
            Ok(Opened::Refused(why) | Opened::Outdated { why, .. }) => (why, false),
            Err(error) => (error.to_string(), false),
        };
        let detail = format!("it neither holds nor releases this node: {why}");
        Ok(ReadOrder { arrival: Arrival::Unreadable { key: self.key(&key), detail }, waits })
    }
}

fn by_issuer(order: &HoldOrder) -> Authors {
    Authors::Node(order.by.clone())
}
