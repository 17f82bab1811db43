//! The registrations of the fleet's agents. How an agent keeps its own is in [`crate::claim`].

use std::collections::BTreeMap;

use trigger_core::identity::Certname;
use trigger_core::keyspace::{Key, Range};
use trigger_core::node::NodeRecord;
use trigger_store::store::{MAX_ORDERED_ENTRIES, StoreError};

use crate::fleet::{Fleet, Record};

impl Fleet {
    /// Reads every registration except those that cannot be decoded.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn nodes(&self) -> Result<BTreeMap<Certname, NodeRecord>, StoreError> {
        Ok(self.registrations(self.read(&[self.all(&Range::Nodes)]).await?))
    }

    /// Reads the registration of one node, if there is one that can be decoded.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn node(&self, certname: &Certname) -> Result<Option<NodeRecord>, StoreError> {
        Ok(self.nodes_of(&[certname]).await?.remove(certname))
    }

    /// Reads the registrations of these nodes; absent where there is none that can be decoded.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn nodes_among(
        &self,
        certnames: &[&Certname],
    ) -> Result<BTreeMap<Certname, Option<NodeRecord>>, StoreError> {
        let mut found = self.nodes_of(certnames).await?;
        Ok(certnames.iter().map(|certname| ((*certname).clone(), found.remove(*certname))).collect())
    }

    /// Reads the registrations of some nodes: one by one if they are few, otherwise all registrations.
    pub(crate) async fn nodes_of(
        &self,
        certnames: &[&Certname],
    ) -> Result<BTreeMap<Certname, NodeRecord>, StoreError> {
        if certnames.is_empty() {
            return Ok(BTreeMap::new());
        }
        if certnames.len() > MAX_ORDERED_ENTRIES {
            return self.nodes().await;
        }
        let key = |certname: &&Certname| self.one(&Key::Node { certname: (*certname).clone() });
        let keys: Vec<_> = certnames.iter().map(key).collect();
        Ok(self.registrations(self.read(&keys).await?))
    }

    /// The registrations among `records` that can be decoded.
    pub(crate) fn registrations(
        &self,
        records: impl IntoIterator<Item = Record>,
    ) -> BTreeMap<Certname, NodeRecord> {
        let registration = |record: Record| match record.key {
            Key::Node { certname } => Some((certname, self.decode(&record.text).ok()?)),
            _ => None,
        };
        records.into_iter().filter_map(registration).collect()
    }
}
