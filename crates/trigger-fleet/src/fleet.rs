//! The handle that everything above the store goes through.

use std::fmt;
use std::sync::Arc;

use trigger_core::identity::{Certname, KeyPrefix, Revision};
use trigger_core::keyspace::{Key, Keyspace, Range};
use trigger_core::wire::{Stored, WireError};
use trigger_store::store::{Entry, KeyRange, Store, StoreError};

use crate::codec::Codec;

/// The events, deliveries, outcomes and registrations of one fleet in one backend.
///
/// Its methods are in the modules that they belong to; each is correct in any interleaving with those of other
/// processes. A clone is cheap and shares the store. What acts for a node (storing outcomes, claiming, sweeping) needs
/// the identity that [`Self::acting_as`] gives, and panics without it, because its caller has a mistake; reading and
/// publishing need none.
#[derive(Clone)]
pub struct Fleet {
    store: Arc<dyn Store>,
    keyspace: Keyspace,
    identity: Option<Certname>,
    codec: Codec,
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet")
            .field("store", &self.store.address())
            .field("prefix", self.prefix())
            .field("identity", &self.identity)
            .finish()
    }
}

/// A stored value that is below a key of the fleet.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) key: Key,
    pub(crate) text: String,
    pub(crate) revision: Revision,
}

impl Fleet {
    /// The fleet whose keys are in `keyspace` of `store`. It acts for no node.
    pub fn new(store: Arc<dyn Store>, keyspace: Keyspace) -> Self {
        Self { store, keyspace, identity: None, codec: Codec::default() }
    }

    /// The same fleet, acting for the node `certname`.
    #[must_use]
    pub fn acting_as(self, certname: Certname) -> Self {
        Self { identity: Some(certname), ..self }
    }

    /// The same fleet, which signs and verifies with `codec`. Without this it does neither.
    #[must_use]
    pub fn with_codec(self, codec: Codec) -> Self {
        Self { codec, ..self }
    }

    /// The fleet below another prefix of the same store.
    #[must_use]
    pub fn below(&self, prefix: KeyPrefix) -> Self {
        Self { keyspace: Keyspace::new(prefix), ..self.clone() }
    }

    /// The store behind it.
    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// Its keys.
    pub fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// The prefix of its keys.
    pub fn prefix(&self) -> &KeyPrefix {
        self.keyspace.prefix()
    }

    /// The node that it acts for, if any.
    pub fn identity(&self) -> Option<&Certname> {
        self.identity.as_ref()
    }

    /// How its values are encoded.
    pub fn codec(&self) -> &Codec {
        &self.codec
    }

    /// The node that it acts for.
    ///
    /// # Panics
    /// Without [`Self::acting_as`]: the caller has forgotten it.
    pub(crate) fn own(&self) -> &Certname {
        match &self.identity {
            Some(certname) => certname,
            None => panic!("{self:?} acts for no node: Fleet::acting_as was not called"),
        }
    }

    pub(crate) fn key(&self, key: &Key) -> String {
        self.keyspace.key(key)
    }

    pub(crate) fn one(&self, key: &Key) -> KeyRange {
        KeyRange::Key(self.keyspace.key(key))
    }

    pub(crate) fn all(&self, range: &Range) -> KeyRange {
        KeyRange::Prefix(self.keyspace.range(range))
    }

    /// The key and the value of an entry to write, of a kind that is not signed.
    pub(crate) fn entry<T: Stored>(&self, key: &Key, value: &T) -> (String, String) {
        (self.key(key), self.codec.encode(value))
    }

    pub(crate) fn decode<T: Stored>(&self, text: &str) -> Result<T, WireError> {
        self.codec.decode(text)
    }

    /// Reads what is in `ranges`, less what is under keys that are not Trigger's.
    pub(crate) async fn read(&self, ranges: &[KeyRange]) -> Result<Vec<Record>, StoreError> {
        Ok(self.records(self.store.read(ranges).await?))
    }

    /// The records among entries, less what is under keys that are not Trigger's.
    pub(crate) fn records(&self, entries: Vec<Entry>) -> Vec<Record> {
        let record = |entry: Entry| {
            let key = self.keyspace.parse(&entry.key)?;
            Some(Record { key, text: entry.value, revision: entry.revision })
        };
        entries.into_iter().filter_map(record).collect()
    }

    /// Lists the keys in `ranges` that are Trigger's, with their revisions.
    pub(crate) async fn list(&self, ranges: &[KeyRange]) -> Result<Vec<(Key, Revision)>, StoreError> {
        let keys = self.store.list(ranges).await?.into_iter();
        Ok(keys.filter_map(|(key, revision)| Some((self.keyspace.parse(&key)?, revision))).collect())
    }

    /// Stores entries; asks for nothing where there are none.
    ///
    /// # Errors
    /// Of the first of them that is not stored; others may be.
    pub(crate) async fn put_all(&self, entries: Vec<(String, String)>) -> Result<(), StoreError> {
        if entries.is_empty() {
            Ok(())
        } else {
            self.store.put_many(entries).await.into_iter().try_for_each(|put| put.map(drop))
        }
    }

    /// Stores entries in the place of keys; asks for nothing where there are neither.
    pub(crate) async fn replace(
        &self,
        keys: Vec<String>,
        entries: Vec<(String, String)>,
    ) -> Result<(), StoreError> {
        if keys.is_empty() && entries.is_empty() {
            Ok(())
        } else {
            self.store.replace(keys, entries).await.map(drop)
        }
    }

    /// Deletes keys; asks for nothing where there are none.
    pub(crate) async fn delete(&self, keys: Vec<Key>) -> Result<(), StoreError> {
        let keys: Vec<String> = keys.iter().map(|key| self.key(key)).collect();
        if keys.is_empty() { Ok(()) } else { self.store.delete_many(keys).await }
    }

    /// The backend did not keep what it had taken, or changes while it is asked.
    pub(crate) fn ambiguous(&self, detail: String) -> StoreError {
        StoreError::Ambiguous { backend: self.store.address().to_owned(), detail: detail.into() }
    }
}
