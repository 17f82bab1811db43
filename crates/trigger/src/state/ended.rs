//! The file that remembers which events ended on this node (contract 4).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use trigger_core::identity::EventId;
use trigger_core::queue::REMEMBER_ENDED;
use trigger_core::time::Timestamp;
use trigger_core::wire::EndedEvent;

use super::{FileError, StateDir, at, read_if_present, write_durably};

/// Lines beyond those still needed before the file is written anew.
const STALE_LINES: usize = 10_000;

/// Appended to and synced at the end of each run; written anew at a start that finds it grown stale.
#[derive(Debug)]
pub(crate) struct EndedLog {
    path: PathBuf,
    file: File,
}

impl EndedLog {
    /// Opens the file and reads what it remembers, less what is too old to matter.
    pub(crate) fn open(
        state: &StateDir,
        now: Timestamp,
    ) -> Result<(Self, BTreeMap<EventId, Timestamp>), FileError> {
        let path = state.file("ended");
        let text = read_if_present(&path)?.unwrap_or_default();
        let ended: BTreeMap<EventId, Timestamp> = text
            .lines()
            .filter_map(EndedEvent::from_line)
            .filter(|ended| now.since(ended.ended_at) < REMEMBER_ENDED)
            .map(|ended| (ended.event, ended.ended_at))
            .collect();
        // Also mends a last line that a crash cut short: nothing may be appended to half a line.
        let whole = text.is_empty() || text.ends_with('\n');
        if !whole || text.lines().count() > ended.len() + STALE_LINES {
            write_durably(&path, lines(&ended).as_bytes())?;
        }
        let file =
            File::options().create(true).append(true).mode(0o600).open(&path).map_err(at("open", &path))?;
        Ok((Self { path, file }, ended))
    }

    /// Remembers events, durably.
    pub(crate) fn append(&mut self, events: &[EventId], now: Timestamp) -> Result<(), FileError> {
        if events.is_empty() {
            return Ok(());
        }
        let text: String =
            events.iter().map(|&event| EndedEvent { event, ended_at: now }.to_line() + "\n").collect();
        self.file.write_all(text.as_bytes()).map_err(at("append to", &self.path))?;
        self.file.sync_data().map_err(at("sync", &self.path))?;
        Ok(())
    }
}

fn lines(ended: &BTreeMap<EventId, Timestamp>) -> String {
    ended.iter().map(|(&event, &ended_at)| EndedEvent { event, ended_at }.to_line() + "\n").collect()
}
