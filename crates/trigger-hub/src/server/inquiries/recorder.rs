//! A store that remembers what was read from it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use trigger_core::identity::Revision;
use trigger_core::keyspace::{Key, Keyspace};
use trigger_store::store::{CasOutcome, Entry, KeyRange, Store, StoreError, Watch};

/// A store that remembers what was read from it, and does not write.
pub(super) struct Recorder {
    store: Arc<dyn Store>,
    keyspace: Keyspace,
    seen: Mutex<HashMap<String, Entry>>,
}

impl Recorder {
    pub(super) fn new(store: Arc<dyn Store>, keyspace: Keyspace) -> Self {
        Self { store, keyspace, seen: Mutex::default() }
    }

    /// Whether an explanation is made of such values. All else of an event is only looked at.
    fn keeps(&self, key: &str) -> bool {
        !matches!(self.keyspace.parse(key), Some(Key::Part { index: 1.., .. } | Key::Members { .. }))
    }

    /// All that was read, each key once, by key.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        let mut entries: Vec<Entry> = seen.into_values().collect();
        entries.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        entries
    }

    fn refuse(&self) -> StoreError {
        let detail = "nothing is written to answer a question".into();
        StoreError::Refused { backend: self.address().to_owned(), detail }
    }
}

#[async_trait]
impl Store for Recorder {
    async fn put_many(&self, entries: Vec<(String, String)>) -> Vec<Result<Revision, StoreError>> {
        entries.iter().map(|_| Err(self.refuse())).collect()
    }

    async fn delete_many(&self, _: Vec<String>) -> Result<(), StoreError> {
        Err(self.refuse())
    }

    async fn compare_and_swap(
        &self,
        _: &str,
        _: &str,
        _: Option<Revision>,
    ) -> Result<CasOutcome, StoreError> {
        Err(self.refuse())
    }

    async fn read(&self, ranges: &[KeyRange]) -> Result<Vec<Entry>, StoreError> {
        let entries = self.store.read(ranges).await?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = entries.iter().filter(|entry| self.keeps(&entry.key));
        seen.extend(kept.map(|entry| (entry.key.clone(), entry.clone())));
        Ok(entries)
    }

    async fn watch(&self, _: Vec<KeyRange>) -> Result<Watch, StoreError> {
        Err(self.refuse())
    }

    fn address(&self) -> &str {
        self.store.address()
    }
}
