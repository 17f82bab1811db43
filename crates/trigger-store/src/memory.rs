//! A store in memory, for tests of the layers above the trait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_util::stream;
use tokio::sync::mpsc;
use trigger_core::identity::Revision;

use crate::store::{
    CasOutcome, Change, Entry, KeyRange, Store, StoreError, Watch, WatchEvent, retain_first_of_each_key,
};

/// How many changes a watcher may fall behind before its watch ends.
const MAX_WATCH_BACKLOG: usize = 1024;

/// A store that lives as long as its last handle.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<String, (String, Revision)>,
    revision: u64,
    watchers: Vec<Watcher>,
    unreachable: bool,
}

#[derive(Debug)]
struct Watcher {
    ranges: Vec<KeyRange>,
    events: mpsc::Sender<Result<WatchEvent, StoreError>>,
}

impl MemoryStore {
    /// Makes every request fail, and ends every watch, until switched back.
    pub fn set_unreachable(&self, unreachable: bool) {
        let mut state = self.lock();
        state.unreachable = unreachable;
        if unreachable {
            state.watchers.clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reachable(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.lock();
        if state.unreachable { Err(unreachable()) } else { Ok(state) }
    }
}

fn unreachable() -> StoreError {
    StoreError::Unreachable { backend: "memory:".to_owned(), detail: "it was switched off".into() }
}

impl State {
    fn put(&mut self, key: String, value: String) -> Revision {
        self.revision += 1;
        let revision = Revision(self.revision);
        self.entries.insert(key.clone(), (value.clone(), revision));
        self.notify(Change::Put(Entry { key, value, revision }));
        revision
    }

    fn delete(&mut self, key: String) {
        if self.entries.remove(&key).is_some() {
            self.revision += 1;
            self.notify(Change::Deleted(key));
        }
    }

    fn entry(&self, key: &str) -> Option<Entry> {
        let (value, revision) = self.entries.get(key)?;
        Some(Entry { key: key.to_owned(), value: value.clone(), revision: *revision })
    }

    fn read(&self, ranges: &[KeyRange]) -> Vec<Entry> {
        let in_range = |range: &KeyRange| match range {
            KeyRange::Key(key) => self.entry(key).into_iter().collect::<Vec<_>>(),
            KeyRange::Prefix(prefix) => self
                .entries
                .range(prefix.clone()..)
                .take_while(|(key, _)| key.starts_with(prefix.as_str()))
                .filter_map(|(key, _)| self.entry(key))
                .collect(),
        };
        let mut entries = ranges.iter().flat_map(in_range).collect();
        if ranges.len() > 1 {
            retain_first_of_each_key(&mut entries);
        }
        entries
    }

    fn notify(&mut self, change: Change) {
        let key = match &change {
            Change::Put(entry) => &entry.key,
            Change::Deleted(key) => key,
        };
        // A watcher that fell behind loses its stream, and reads everything again when it comes back.
        self.watchers.retain(|watcher| {
            !watcher.ranges.iter().any(|range| range.contains(key))
                || watcher.events.try_send(Ok(WatchEvent::Changes(vec![change.clone()]))).is_ok()
        });
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn put_many(&self, entries: Vec<(String, String)>) -> Vec<Result<Revision, StoreError>> {
        entries
            .into_iter()
            .map(|(key, value)| self.reachable().map(|mut state| state.put(key, value)))
            .collect()
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        let mut state = self.reachable()?;
        keys.into_iter().for_each(|key| state.delete(key));
        Ok(())
    }

    async fn replace(
        &self,
        keys: Vec<String>,
        entries: Vec<(String, String)>,
    ) -> Result<Vec<Revision>, StoreError> {
        let mut state = self.reachable()?;
        let revisions = entries.into_iter().map(|(key, value)| state.put(key, value)).collect();
        keys.into_iter().for_each(|key| state.delete(key));
        Ok(revisions)
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        value: &str,
        expected: Option<Revision>,
    ) -> Result<CasOutcome, StoreError> {
        let mut state = self.reachable()?;
        let present = state.entry(key);
        if present.as_ref().map(|entry| entry.revision) != expected {
            return Ok(CasOutcome::Changed(present));
        }
        Ok(CasOutcome::Written(state.put(key.to_owned(), value.to_owned())))
    }

    async fn read(&self, ranges: &[KeyRange]) -> Result<Vec<Entry>, StoreError> {
        Ok(self.reachable()?.read(ranges))
    }

    async fn watch(&self, ranges: Vec<KeyRange>) -> Result<Watch, StoreError> {
        let mut state = self.reachable()?;
        let (sender, receiver) = mpsc::channel(MAX_WATCH_BACKLOG);
        let snapshot = WatchEvent::Snapshot(state.read(&ranges));
        state.watchers.push(Watcher { ranges, events: sender });
        // Yields the snapshot, then what the watchers' list sends, then one error.
        let phases = stream::unfold(Some((Some(snapshot), receiver)), |phase| async move {
            let (snapshot, mut receiver) = phase?;
            if let Some(snapshot) = snapshot {
                return Some((Ok(snapshot), Some((None, receiver))));
            }
            match receiver.recv().await {
                Some(event) => Some((event, Some((None, receiver)))),
                None => Some((Err(unreachable()), None)),
            }
        });
        Ok(Box::pin(phases))
    }

    fn address(&self) -> &str {
        "memory:"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_conforms() {
        crate::conformance::check(|| async { MemoryStore::default() }).await;
    }
}
