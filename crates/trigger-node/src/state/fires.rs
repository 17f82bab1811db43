//! Counts how often each trigger fired on this node for each root event (C7), in the file `fires`. The counts are
//! independent of the kept runs, because a count has to last for as long as the root event may live.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use trigger_core::dedup::DEDUP_RETENTION;
use trigger_core::fire_note::FireNote;
use trigger_core::identity::{EventId, TriggerName};
use trigger_core::time::Timestamp;

use super::durable::open;
use super::{FileError, StateDir, at};
use crate::host::{Host, HostFile, Open};
use crate::os::Os;

/// How many lines the file may hold before it is rewritten, without expired lines and with at most the newest half of
/// the lines. That is nearly four fires a minute for nine days.
const MAX_LINES: usize = 100_000;

/// The locked file. No other process can count until this is dropped, so that reading a count and noting a fire are one
/// step.
#[derive(Debug)]
pub struct Fires<H: Host = Os> {
    path: PathBuf,
    file: H::File,
    text: String,
}

impl<H: Host> Fires<H> {
    /// Waits for the lock and reads the file.
    ///
    /// # Errors
    /// A [`FileError`] if the file cannot be opened, locked or read.
    pub fn lock(state: &StateDir<H>) -> Result<Self, FileError> {
        let path = state.file("fires");
        let mut file = open(state.host(), &path, Open::ReadAppend).map_err(at("open", &path))?;
        file.lock().map_err(at("lock", &path))?;
        let bytes = file.read_to_end().map_err(at("read", &path))?;
        Ok(Self { path, file, text: String::from_utf8_lossy(&bytes).into_owned() })
    }

    /// Returns how often `trigger` fired for each root event.
    pub fn of(&self, trigger: &TriggerName) -> HashMap<EventId, u32> {
        let mut counts: HashMap<EventId, u32> = HashMap::new();
        for note in self.text.lines().filter_map(FireNote::from_line) {
            if note.trigger == *trigger {
                let count = counts.entry(note.root).or_default();
                *count = if note.is_taken_back { count.saturating_sub(1) } else { *count + 1 };
            }
        }
        counts
    }

    /// Notes a fire, once for each of its root events. The file is not synced: a crash of the whole node may lose the
    /// note, which lets a loop go round once more.
    ///
    /// # Errors
    /// A [`FileError`] if the file cannot be written.
    pub fn note(
        self,
        trigger: &TriggerName,
        roots: &BTreeSet<EventId>,
        now: Timestamp,
    ) -> Result<(), FileError> {
        self.append(trigger, roots, now, false)
    }

    /// Takes back the note of a fire that failed.
    ///
    /// # Errors
    /// A [`FileError`] if the file cannot be written.
    pub fn take_back(
        self,
        trigger: &TriggerName,
        roots: &BTreeSet<EventId>,
        now: Timestamp,
    ) -> Result<(), FileError> {
        self.append(trigger, roots, now, true)
    }

    fn append(
        mut self,
        trigger: &TriggerName,
        roots: &BTreeSet<EventId>,
        now: Timestamp,
        is_taken_back: bool,
    ) -> Result<(), FileError> {
        self.forget_the_old(now, MAX_LINES)?;
        // A line that a crash cut short must not swallow the next one; it stays unreadable and is ignored.
        let mut text = if self.text.is_empty() || self.text.ends_with('\n') { "" } else { "\n" }.to_owned();
        for &root in roots {
            let note = FireNote { root, noted_at: now, trigger: trigger.clone(), is_taken_back };
            text.push_str(&(note.to_line() + "\n"));
        }
        self.file.write_all(text.as_bytes()).map_err(at("append to", &self.path))
    }

    /// Drops old lines once there are `most`. The file is rewritten in place, because the lock is on this file.
    fn forget_the_old(&mut self, now: Timestamp, most: usize) -> Result<(), FileError> {
        if self.text.lines().count() < most {
            return Ok(());
        }
        let is_needed = |line: &&str| {
            FireNote::from_line(line).is_some_and(|note| now.since(note.noted_at) < DEDUP_RETENTION)
        };
        let needed: Vec<&str> = self.text.lines().filter(is_needed).collect();
        let newest = &needed[needed.len().saturating_sub(most / 2)..];
        let text: String = newest.iter().map(|line| format!("{line}\n")).collect();
        self.file.truncate().map_err(at("cut", &self.path))?;
        self.text = text;
        self.file.write_all(self.text.as_bytes()).map_err(at("write", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_763_812_800_000);

    fn root(n: u128) -> EventId {
        EventId::from_uuid(uuid::Uuid::from_u128(n))
    }

    fn name(text: &str) -> TriggerName {
        text.parse().unwrap()
    }

    fn count(state: &StateDir, trigger: &str, n: u128) -> u32 {
        Fires::lock(state).unwrap().of(&name(trigger)).get(&root(n)).copied().unwrap_or_default()
    }

    fn note(state: &StateDir, trigger: &str, roots: &[u128], now: Timestamp) {
        let roots = roots.iter().map(|n| root(*n)).collect();
        Fires::lock(state).unwrap().note(&name(trigger), &roots, now).unwrap();
    }

    #[test]
    fn each_trigger_counts_for_each_root_and_what_came_to_nothing_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        note(&state, "a b", &[1, 2], NOW);
        note(&state, "a b", &[1], NOW);
        note(&state, "a", &[1], NOW);
        assert_eq!((count(&state, "a b", 1), count(&state, "a b", 2), count(&state, "a", 1)), (2, 1, 1));
        Fires::lock(&state).unwrap().take_back(&name("a b"), &[root(1)].into(), NOW).unwrap();
        assert_eq!((count(&state, "a b", 1), count(&state, "a b", 2), count(&state, "a", 1)), (1, 1, 1));
    }

    #[test]
    fn a_line_cut_short_costs_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        note(&state, "t", &[1], NOW);
        let text = std::fs::read_to_string(state.file("fires")).unwrap();
        std::fs::write(state.file("fires"), format!("{text}{}", &text[..20])).unwrap();
        note(&state, "t", &[1], NOW);
        assert_eq!(count(&state, "t", 1), 2);
    }

    #[test]
    fn those_who_count_at_the_same_time_take_turns() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let fire_unless_three = || {
            let fires = Fires::lock(&state).unwrap();
            if fires.of(&name("t")).get(&root(1)).copied().unwrap_or_default() < 3 {
                fires.note(&name("t"), &[root(1)].into(), NOW).unwrap();
            }
        };
        std::thread::scope(|scope| (0..16).for_each(|_| drop(scope.spawn(fire_unless_three))));
        assert_eq!(count(&state, "t", 1), 3);
    }

    #[test]
    fn only_the_old_are_forgotten_until_there_are_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        note(&state, "t", &[1], NOW);
        let later = NOW.plus(DEDUP_RETENTION - Duration::from_secs(1));
        (2..10).for_each(|n| note(&state, "t", &[n], later));
        let forget = |now, most| Fires::lock(&state).unwrap().forget_the_old(now, most).unwrap();
        forget(later, 10);
        assert_eq!(count(&state, "t", 1), 1);
        forget(later.plus(Duration::from_secs(1)), 9);
        assert_eq!((count(&state, "t", 1), count(&state, "t", 6), count(&state, "t", 9)), (0, 1, 1));
        assert_eq!(count(&state, "t", 2), 0, "of nine the newest four");
        note(&state, "t", &[9], later);
        assert_eq!(count(&state, "t", 9), 2);
    }
}
