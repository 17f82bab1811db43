//! The simulated backend: keys with their history, watches, backups. What a client asks reaches it through
//! `requests`, which is where most goes wrong.

use std::collections::{BTreeMap, VecDeque};
use std::task::Waker;
use std::time::Duration;

use trigger_core::identity::Revision;
use trigger_store::store::{CasOutcome, Change, Entry, KeyRange, StoreError, WatchEvent};

use crate::executor::ProcessId;
use crate::world::World;

/// How old a stale read is at the most.
const MAX_STALENESS: Duration = Duration::from_secs(90);
/// By how much revisions jump when the backend was restored from a backup.
const JUMP: u64 = 1_000_000;
/// A silent connection is noticed after so long.
const SILENCE: Duration = Duration::from_secs(75);

#[derive(Debug, Clone)]
struct Version {
    revision: u64,
    value: Option<String>,
}

/// A watch as the server and its client's connection know it.
pub(crate) struct Watching {
    client: ProcessId,
    machine: usize,
    ranges: Vec<KeyRange>,
    outgoing: Vec<Change>,
    is_flushing: bool,
    /// Nothing is said any more, and nobody notices.
    is_stalled: bool,
    /// At the client.
    arrived: VecDeque<Result<WatchEvent, StoreError>>,
    is_ended: bool,
    waker: Option<Waker>,
}

/// The backend.
#[derive(Default)]
pub(crate) struct Server {
    keys: BTreeMap<String, Vec<Version>>,
    pub(crate) revision: u64,
    /// Which revision was the newest since when.
    times: Vec<(Duration, u64)>,
    pub(crate) is_down: bool,
    /// How often it was restored from a backup.
    pub(crate) restores: u32,
    watches: BTreeMap<u64, Watching>,
    next_watch: u64,
    /// What a client has written it reads.
    own_writes: BTreeMap<ProcessId, u64>,
}

impl Server {
    /// What is there now.
    pub(crate) fn entry(&self, key: &str) -> Option<Entry> {
        self.entry_at(key, self.revision)
    }

    fn entry_at(&self, key: &str, revision: u64) -> Option<Entry> {
        let versions = self.keys.get(key)?;
        entry_of(key, versions, revision)
    }

    /// What was there at a revision.
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

    /// The newest revision at a moment.
    pub(crate) fn revision_at(&self, moment: Duration) -> u64 {
        let known = self.times.partition_point(|(at, _)| *at <= moment);
        known.checked_sub(1).map_or(0, |index| self.times[index].1)
    }

    /// When a revision was written.
    pub(crate) fn time_of(&self, revision: u64) -> Duration {
        let before = self.times.partition_point(|(_, newest)| *newest < revision);
        self.times.get(before).map_or(Duration::ZERO, |(at, _)| *at)
    }

    /// All that is there now, below a prefix.
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

    /// What the client of a watch can take in; `None` while there is nothing.
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
    StoreError::Unreachable { backend: crate::host::BACKEND.to_owned(), detail: "nobody answers".into() }
}

pub(crate) fn ambiguous() -> StoreError {
    StoreError::Ambiguous { backend: crate::host::BACKEND.to_owned(), detail: "an answer".into() }
}

impl World {
    /// Writes or deletes a key, and lets everybody know who should.
    pub(crate) fn commit(&mut self, key: &str, value: Option<&str>) -> u64 {
        self.server.revision += 1;
        let revision = self.server.revision;
        let version = Version { revision, value: value.map(str::to_owned) };
        self.server.keys.entry(key.to_owned()).or_default().push(version);
        match self.server.times.last_mut() {
            Some((at, newest)) if *at == self.now => *newest = revision,
            _ => self.server.times.push((self.now, revision)),
        }
        match value {
            Some(value) => self.note(format_args!("commit {revision} {key} = {value}")),
            None => self.note(format_args!("commit {revision} {key} deleted")),
        }
        let interested: Vec<u64> = self
            .server
            .watches
            .iter()
            .filter_map(|(id, watch)| {
                (!watch.is_stalled && watch.ranges.iter().any(|range| range.contains(key))).then_some(*id)
            })
            .collect();
        for id in interested {
            let change = match value {
                Some(value) => Change::Put(Entry {
                    key: key.to_owned(),
                    value: value.to_owned(),
                    revision: Revision(revision),
                }),
                None => Change::Deleted(key.to_owned()),
            };
            if let Some(watch) = self.server.watches.get_mut(&id) {
                watch.outgoing.push(change);
            }
            self.flush_later(id);
        }
        revision
    }

    /// Deletes a key that is there.
    pub(crate) fn delete(&mut self, key: &str) -> u64 {
        if self.server.entry(key).is_some() { self.commit(key, None) } else { self.server.revision }
    }

    /// The revision a read sees: the newest, or an older one that the trait allows.
    pub(crate) fn revision_to_read(&mut self, client: ProcessId) -> u64 {
        let newest = self.server.revision;
        let chance = self.plan.stale_read;
        if !self.strikes(chance) {
            return newest;
        }
        let oldest = self.now.saturating_sub(MAX_STALENESS.mul_f64(self.rng.f64()));
        let known = self.server.times.partition_point(|(at, _)| *at <= oldest);
        let then = known.checked_sub(1).map_or(0, |index| self.server.times[index].1);
        let own = self.server.own_writes.get(&client).copied().unwrap_or_default();
        let revision = then.max(own);
        if revision < newest {
            self.count("stale read");
        }
        revision.min(newest)
    }

    /// Opens a watch: its snapshot may be old, what follows it is whole.
    pub(crate) fn open_watch(&mut self, client: ProcessId, machine: usize, ranges: Vec<KeyRange>) -> u64 {
        let from = self.revision_to_read(client);
        let snapshot = WatchEvent::Snapshot(self.server.read_at(&ranges, from));
        let outgoing = self.server.changes_since(&ranges, from);
        self.server.next_watch += 1;
        let id = self.server.next_watch;
        let has_more = !outgoing.is_empty();
        self.server.watches.insert(
            id,
            Watching {
                client,
                machine,
                ranges,
                outgoing,
                is_flushing: false,
                is_stalled: false,
                arrived: [Ok(snapshot)].into(),
                is_ended: false,
                waker: None,
            },
        );
        if has_more {
            self.flush_later(id);
        }
        id
    }

    fn flush_later(&mut self, id: u64) {
        let wait = self.latency();
        if let Some(watch) = self.server.watches.get_mut(&id)
            && !std::mem::replace(&mut watch.is_flushing, true)
        {
            self.after(wait, move |world| world.flush(id));
        }
    }

    /// Brings to the client what a watch has to say, or not.
    fn flush(&mut self, id: u64) {
        let Some(watch) = self.server.watches.get_mut(&id) else { return };
        watch.is_flushing = false;
        if watch.is_stalled || watch.is_ended {
            return;
        }
        let changes = std::mem::take(&mut watch.outgoing);
        let (machine, ranges) = (watch.machine, watch.ranges.clone());
        if !self.is_reachable(machine) {
            return self.break_watch(id, "watch ended by a lost connection");
        }
        let chance = self.plan.bad_watch;
        if !self.strikes(chance) {
            return self.arrive(id, Ok(WatchEvent::Changes(changes)));
        }
        let kind = self.rng.u8(..8);
        let note = |world: &mut Self, what| world.fault(what, format_args!("w{id} of m{machine}"));
        match kind {
            0 => note(self, "watch event lost"),
            1 => {
                note(self, "watch event twice");
                self.arrive(id, Ok(WatchEvent::Changes(changes.clone())));
                self.arrive(id, Ok(WatchEvent::Changes(changes)));
            }
            2 => {
                note(self, "watch event late");
                let wait = Duration::from_millis(self.rng.u64(100..60_000));
                self.after(wait, move |world| world.arrive(id, Ok(WatchEvent::Changes(changes))));
            }
            3 if changes.len() > 1 => {
                note(self, "watch events out of order");
                let mut changes = changes;
                self.rng.shuffle(&mut changes);
                self.arrive(id, Ok(WatchEvent::Changes(changes)));
            }
            4 => {
                note(self, "watch compacted");
                let snapshot = self.server.read_at(&ranges, self.server.revision);
                self.arrive(id, Ok(WatchEvent::Snapshot(snapshot)));
            }
            5 => {
                note(self, "watch ended with an error");
                self.arrive(id, Err(unreachable()));
                self.end_watch(id);
            }
            // What would have been out of order, were it more than one.
            3 | 6 => {
                note(self, "watch ended silently");
                self.end_watch(id);
            }
            _ => {
                note(self, "watch stalled");
                if let Some(watch) = self.server.watches.get_mut(&id) {
                    watch.is_stalled = true;
                }
            }
        }
    }

    fn arrive(&mut self, id: u64, event: Result<WatchEvent, StoreError>) {
        if let Some(watch) = self.server.watches.get_mut(&id)
            && !watch.is_ended
        {
            watch.arrived.push_back(event);
            if let Some(waker) = watch.waker.take() {
                waker.wake();
            }
        }
    }

    fn end_watch(&mut self, id: u64) {
        if let Some(watch) = self.server.watches.get_mut(&id) {
            watch.is_ended = true;
            if let Some(waker) = watch.waker.take() {
                waker.wake();
            }
        }
    }

    /// The connection is gone; the client notices at once, or when it has heard nothing for long.
    fn break_watch(&mut self, id: u64, why: &'static str) {
        let Some(watch) = self.server.watches.get_mut(&id) else { return };
        watch.is_stalled = true;
        self.count(why);
        let wait = SILENCE.mul_f64(self.rng.f64().powi(2));
        self.after(wait, move |world| {
            world.arrive(id, Err(unreachable()));
            world.end_watch(id);
        });
    }

    /// All watches of a machine, or of everybody, lose their connection.
    pub(crate) fn break_watches(&mut self, machine: Option<usize>) {
        let ids: Vec<u64> = self
            .server
            .watches
            .iter()
            .filter(|(_, watch)| machine.is_none_or(|machine| watch.machine == machine))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.break_watch(id, "watch ended by a lost connection");
        }
    }

    pub(crate) fn is_reachable(&self, machine: usize) -> bool {
        !self.server.is_down && !self.machines[machine].is_cut_off
    }

    /// The state goes back to what it was at a revision; revisions go on, far ahead.
    pub(crate) fn rewind(&mut self, to: u64) {
        self.server.keys.retain(|_, versions| {
            versions.retain(|version| version.revision <= to);
            !versions.is_empty()
        });
        self.server.times.retain(|(_, revision)| *revision <= to);
        self.server.revision += JUMP;
        self.server.restores += 1;
        self.server.own_writes.clear();
        self.break_watches(None);
        self.check_rewound(to);
    }

    /// How long a message is on its way.
    pub(crate) fn latency(&mut self) -> Duration {
        match self.rng.u8(..32) {
            0 if self.faults_happen => Duration::from_millis(self.rng.u64(..1500)),
            0..4 => Duration::from_millis(self.rng.u64(..100)),
            _ => Duration::from_micros(self.rng.u64(100..5000)),
        }
    }
}

impl Server {
    fn changes_since(&self, ranges: &[KeyRange], from: u64) -> Vec<Change> {
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

    /// The swap's own condition.
    pub(crate) fn is_unchanged(&self, key: &str, expected: Option<Revision>) -> Result<(), CasOutcome> {
        let present = self.entry(key);
        if present.as_ref().map(|entry| entry.revision) == expected {
            Ok(())
        } else {
            Err(CasOutcome::Changed(present))
        }
    }
}
