//! The simulated backend: keys with their history, watches, backups. The clients' requests reach it through
//! `requests`, which injects most of the faults.

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;
use std::time::Duration;

use trigger_core::identity::Revision;
use trigger_store::store::{CasOutcome, Change, Entry, KeyRange, StoreError, WatchEvent};

use crate::tasks::ProcessId;

/// The URL of the simulated backend; no connection is ever opened to it.
pub(crate) const BACKEND: &str = "hub+https://simulated:7890";

#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) revision: u64,
    pub(crate) value: Option<String>,
}

/// A watch, as the server and its client's connection know it.
pub(crate) struct Watching {
    pub(crate) client: ProcessId,
    pub(crate) machine: usize,
    pub(crate) ranges: Vec<KeyRange>,
    pub(crate) outgoing: Vec<Change>,
    pub(crate) is_flushing: bool,
    /// Whether the watch reports nothing any more, without either side noticing.
    pub(crate) is_stalled: bool,
    /// The events that have arrived at the client.
    pub(crate) arrived: VecDeque<Result<WatchEvent, StoreError>>,
    pub(crate) is_ended: bool,
    pub(crate) waker: Option<Waker>,
}

/// The backend.
#[derive(Default)]
pub(crate) struct Server {
    pub(crate) keys: BTreeMap<String, Vec<Version>>,
    pub(crate) revision: u64,
    /// The newest revision at each time of a write.
    pub(crate) times: Vec<(Duration, u64)>,
    pub(crate) is_down: bool,
    /// The number of restores from a backup.
    pub(crate) restores: u32,
    pub(crate) watches: BTreeMap<u64, Watching>,
    pub(crate) next_watch: u64,
    /// For each client the newest revision that it wrote: it reads its own writes.
    pub(crate) own_writes: BTreeMap<ProcessId, u64>,
}

impl Server {
    /// Returns the entry that is stored now under a key.
    pub(crate) fn entry(&self, key: &str) -> Option<Entry> {
        self.entry_at(key, self.revision)
    }

    fn entry_at(&self, key: &str, revision: u64) -> Option<Entry> {
        let versions = self.keys.get(key)?;
        entry_of(key, versions, revision)
    }

    /// Returns the entries that were stored at a revision.
    pub(crate) fn read_at(&self, ranges: &[KeyRange], revision: u64) -> Vec<Entry> {
        let in_range = |range: &KeyRange| match range {
            KeyRange::Key(key) => self.entry_at(key, revision).into_iter().collect::<Vec<_>>(),
            KeyRange::Prefix(prefix) => self
                .keys
                .range(prefix.clone()..)
                .take_while(|(key, _)| key.starts_with(prefix.as_str()))
                .filter_map(|(key, versions)| entry_of(key, versions, revision))
                .collect(),
        };
        ranges.iter().flat_map(in_range).collect()
    }

    /// Returns the newest revision at a moment.
    pub(crate) fn revision_at(&self, moment: Duration) -> u64 {
        let known = self.times.partition_point(|(at, _)| *at <= moment);
        known.checked_sub(1).map_or(0, |index| self.times[index].1)
    }

    /// Returns the time at which a revision was written.
    pub(crate) fn time_of(&self, revision: u64) -> Duration {
        let before = self.times.partition_point(|(_, newest)| *newest < revision);
        self.times.get(before).map_or(Duration::ZERO, |(at, _)| *at)
    }

    /// Returns all entries that are stored now below a prefix.
    pub(crate) fn entries_below(&self, prefix: &str) -> Vec<Entry> {
        self.read_at(&[KeyRange::Prefix(prefix.to_owned())], self.revision)
    }

    pub(crate) fn client_gone(&mut self, client: ProcessId) {
        self.own_writes.remove(&client);
        self.watches.retain(|_, watch| watch.client != client);
    }

    pub(crate) fn wrote(&mut self, client: ProcessId, revision: u64) {
        self.own_writes.insert(client, revision);
    }

    /// Returns what the client of a watch can receive; `None` while there is nothing.
    pub(crate) fn take_watched(
        &mut self,
        id: u64,
        waker: &Waker,
    ) -> Option<Option<Result<WatchEvent, StoreError>>> {
        let Some(watch) = self.watches.get_mut(&id) else { return Some(None) };
        match watch.arrived.pop_front() {
            Some(event) => Some(Some(event)),
            None if watch.is_ended => Some(None),
            None => {
                watch.waker = Some(waker.clone());
                None
            }
        }
    }

    pub(crate) fn drop_watch(&mut self, id: u64) {
        self.watches.remove(&id);
    }
}

fn entry_of(key: &str, versions: &[Version], revision: u64) -> Option<Entry> {
    let version = versions.iter().rfind(|version| version.revision <= revision)?;
    let value = version.value.clone()?;
    Some(Entry { key: key.to_owned(), value, revision: Revision(version.revision) })
}

pub(crate) fn unreachable() -> StoreError {
    StoreError::Unreachable { backend: BACKEND.to_owned(), detail: "no server answers".into() }
}

pub(crate) fn ambiguous() -> StoreError {
    StoreError::Ambiguous { backend: BACKEND.to_owned(), detail: "an answer".into() }
}

impl Server {
    pub(crate) fn changes_since(&self, ranges: &[KeyRange], from: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        for (key, versions) in &self.keys {
            if !ranges.iter().any(|range| range.contains(key)) {
                continue;
            }
            for version in versions.iter().filter(|version| version.revision > from) {
                let change = match &version.value {
                    Some(value) => Change::Put(Entry {
                        key: key.clone(),
                        value: value.clone(),
                        revision: Revision(version.revision),
                    }),
                    None => Change::Deleted(key.clone()),
                };
                changes.push((version.revision, change));
            }
        }
        changes.sort_by_key(|(revision, _)| *revision);
        changes.into_iter().map(|(_, change)| change).collect()
    }

    /// Checks the condition of a compare-and-swap.
    pub(crate) fn is_unchanged(&self, key: &str, expected: Option<Revision>) -> Result<(), CasOutcome> {
        let present = self.entry(key);
        if present.as_ref().map(|entry| entry.revision) == expected {
            Ok(())
        } else {
            Err(CasOutcome::Changed(present))
        }
    }
}
