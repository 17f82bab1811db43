//! The backend's operations for its clients, and the faults of watches.

use std::time::Duration;

use trigger_core::identity::Revision;
use trigger_store::store::{Change, Entry, KeyRange, StoreError, WatchEvent};

use crate::server::{Version, Watching, unreachable};
use crate::tasks::ProcessId;
use crate::world::World;

/// The greatest age of a stale read.
const MAX_STALENESS: Duration = Duration::from_secs(90);
/// The distance by which revisions jump when the backend is restored from a backup.
const JUMP: u64 = 1_000_000;
/// The time after which a client notices a silent connection.
const SILENCE: Duration = Duration::from_secs(75);

impl World {
    /// Writes or deletes a key, and notifies the watches on it.
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

    /// Returns the revision that a read sees: the newest, or an older one that the trait allows.
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

    /// Opens a watch. Its snapshot may be old, but every change after the snapshot follows.
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

    /// Delivers the pending events of a watch to the client, or injects a fault.
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
            // These would be delivered out of order if there were more than one.
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

    /// Breaks a watch's connection. The client notices at once, or after a long silence.
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

    /// Breaks the connections of all watches of a machine, or of all machines.
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

    /// Sets the state back to a revision. Revisions continue from there, far ahead.
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

    /// Draws the time that a message takes.
    pub(crate) fn latency(&mut self) -> Duration {
        match self.rng.u8(..32) {
            0 if self.faults_happen => Duration::from_millis(self.rng.u64(..1500)),
            0..4 => Duration::from_millis(self.rng.u64(..100)),
            _ => Duration::from_micros(self.rng.u64(100..5000)),
        }
    }
}
