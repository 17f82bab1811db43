//! The dedup log, a file that remembers which events ended on this node (C4).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use trigger_core::dedup::HonouredEvent;
use trigger_core::identity::EventId;
use trigger_core::time::Timestamp;

use super::durable::{open, sync_dir};
use super::{FileError, StateDir, at, read_if_present, write_durably};
use crate::host::{Host, HostFile, Open};
use crate::os::Os;

/// How many lines that are no longer needed the file may hold before it is rewritten.
const STALE_LINES: usize = 10_000;

/// The open dedup log. It is appended to and synced at the end of each run, and rewritten when too many of its lines
/// have expired.
#[derive(Debug)]
pub struct DedupLog<H: Host = Os> {
    host: H,
    path: PathBuf,
    file: H::File,
    /// Lines appended since the file was last read as a whole.
    appended: usize,
    /// Whether the last append was cut short, for example by a full disk.
    is_torn: bool,
}

impl<H: Host> DedupLog<H> {
    /// Opens the file and returns the events that it remembers.
    ///
    /// # Errors
    /// A [`FileError`] if the file cannot be read or rewritten.
    pub fn open(state: &StateDir<H>, now: Timestamp) -> Result<(Self, Vec<HonouredEvent>), FileError> {
        let (host, path) = (state.host().clone(), state.file("ended"));
        let (file, ended) = open_fresh(&host, &path, now)?;
        Ok((Self { host, path, file, appended: 0, is_torn: false }, ended.into_values().collect()))
    }

    /// Appends events durably. What is outlived `now` may be forgotten.
    ///
    /// # Errors
    /// A [`FileError`] if the file cannot be written or synced. A part of the events may then be remembered.
    pub fn append(&mut self, events: &[HonouredEvent], now: Timestamp) -> Result<(), FileError> {
        if events.is_empty() {
            return Ok(());
        }
        // Something else may have removed the file. Its content is lost, and what is added must not be.
        if !self.file.is_at(&self.path) {
            self.file = open(&self.host, &self.path, Open::Append).map_err(at("open", &self.path))?;
            sync_dir(&self.host, self.path.parent().unwrap_or(Path::new("/")))?;
        }
        // A line that was cut short must not swallow the next one; it stays unreadable and is ignored.
        let mut text = if self.is_torn { "\n" } else { "" }.to_owned();
        text.extend(events.iter().map(|event| event.to_line() + "\n"));
        self.is_torn = true;
        self.file.write_all(text.as_bytes()).map_err(at("append to", &self.path))?;
        self.is_torn = false;
        self.file.sync_data().map_err(at("sync", &self.path))?;
        self.appended += events.len();
        if self.appended > STALE_LINES {
            self.appended = 0;
            self.file = open_fresh(&self.host, &self.path, now)?.0;
        }
        Ok(())
    }
}

/// Opens the file, rewritten first if too many of its lines have expired, and returns the events that it remembers.
fn open_fresh<H: Host>(
    host: &H,
    path: &Path,
    now: Timestamp,
) -> Result<(H::File, BTreeMap<EventId, HonouredEvent>), FileError> {
    let text = read_if_present(host, path)?.unwrap_or_default();
    // Of several entries for one event, the last counts.
    let ended: BTreeMap<EventId, HonouredEvent> = text
        .lines()
        .filter_map(HonouredEvent::from_line)
        .filter(|ended| !ended.is_outlived(now))
        .map(|ended| (ended.event, ended))
        .collect();
    // This also repairs a last line that a crash cut short, because nothing may be appended to it.
    let whole = text.is_empty() || text.ends_with('\n');
    if !whole || text.lines().count() > ended.len() + STALE_LINES {
        let lines: String = ended.values().map(|ended| ended.to_line() + "\n").collect();
        write_durably(host, path, lines.as_bytes())?;
    }
    let file = host.open(path, Open::Append).map_err(at("open", path))?;
    Ok((file, ended))
}

#[cfg(test)]
mod tests {
    use super::*;
    use trigger_core::dedup::DEDUP_RETENTION;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_763_812_800_000);

    fn event(n: u128) -> EventId {
        EventId::from_uuid(uuid::Uuid::from_u128(n))
    }

    fn ended(n: u128, ended_at: Timestamp) -> HonouredEvent {
        HonouredEvent { event: event(n), ended_at, without_run: None }
    }

    fn remembered(state: &StateDir, now: Timestamp) -> Vec<EventId> {
        DedupLog::open(state, now).unwrap().1.into_iter().map(|ended| ended.event).collect()
    }

    #[test]
    fn an_append_that_was_cut_short_costs_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let (mut log, _) = DedupLog::open(&state, NOW).unwrap();
        log.append(&[ended(1, NOW)], NOW).unwrap();
        // A full disk leaves half a line.
        log.file.write_all(b"00000000-0000-0000-0000-0000").unwrap();
        log.is_torn = true;
        log.append(&[ended(2, NOW)], NOW).unwrap();
        assert_eq!(remembered(&state, NOW), [event(1), event(2)]);
    }

    #[test]
    fn a_log_that_was_removed_remembers_what_comes_after() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let (mut log, _) = DedupLog::open(&state, NOW).unwrap();
        log.append(&[ended(1, NOW)], NOW).unwrap();
        std::fs::remove_file(state.file("ended")).unwrap();
        log.append(&[ended(2, NOW)], NOW).unwrap();
        assert_eq!(remembered(&state, NOW), [event(2)]);
    }

    #[test]
    fn a_log_that_is_never_closed_forgets_the_old_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let (mut log, _) = DedupLog::open(&state, NOW).unwrap();
        let many = u128::try_from(STALE_LINES).unwrap() + 2;
        let old: Vec<HonouredEvent> = (1..many).map(|n| ended(n, NOW)).collect();
        log.append(&old, NOW).unwrap();
        let later = NOW.plus(DEDUP_RETENTION);
        let new: Vec<HonouredEvent> = (many..2 * many).map(|n| ended(n, later)).collect();
        log.append(&new, later).unwrap();
        log.append(&[ended(0, later)], later).unwrap();
        let lines = std::fs::read_to_string(state.file("ended")).unwrap().lines().count();
        assert_eq!(lines, usize::try_from(many).unwrap() + 1);
        assert_eq!(remembered(&state, later).len(), lines);
    }
}
