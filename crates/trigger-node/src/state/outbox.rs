//! Fired events that the backend has not committed yet, one synced file each (C1).
//!
//! The publisher of a file holds its lock. An event that can never be published is quarantined with the reason, and
//! does not block the others.

mod editing;
mod tries;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use editing::Edited;

use trigger_core::duration;
use trigger_core::event::Event;
use trigger_core::identity::EventId;
use trigger_core::publication::Publication;
use trigger_core::time::Timestamp;
use trigger_core::wire::Stored;

use super::durable::{appended, list, rename_durably, write_synced};
use super::{FileError, StateDir, at, read_if_present, write_durably};
use crate::host::{Host, HostFile, Open};
use crate::os::Os;

const DIR: &str = "outbox";
const ASIDE: &str = "quarantined";
/// The age at which a temporary file is removed: its `fire` died before it returned.
const ABANDONED_AFTER: Duration = Duration::from_secs(60 * 60);
/// The reason of a quarantined event that expired before it could be published.
const EXPIRED: &str = "it expired before the backend could be reached";

/// Whether the reason of a quarantined event is that it expired.
pub fn is_of_expiry(reason: &str) -> bool {
    reason.starts_with(EXPIRED)
}

/// The reason of an event that expired in the outbox. Both times are by this node's clock, which may have been set since.
fn expiry(event: &Event, now: Timestamp) -> String {
    format!(
        "{EXPIRED}: it was fired at {} for {}, and it is {} by the clock of this node now",
        event.fired_at.date_and_time(),
        duration::format_short(event.expires_in),
        now.date_and_time()
    )
}

/// The node's outbox.
#[derive(Debug, Clone)]
pub struct Outbox<H: Host = Os> {
    host: H,
    dir: PathBuf,
    aside: PathBuf,
}

/// An event in the outbox that this process has locked, so that no other process publishes it meanwhile.
#[derive(Debug)]
pub struct Spooled<H: Host = Os> {
    host: H,
    path: PathBuf,
    aside: PathBuf,
    _lock: H::File,
}

/// The result of taking a file from the outbox.
#[derive(Debug)]
pub enum Taken<H: Host = Os> {
    /// The caller may publish the event.
    Event(Box<Publication>, Spooled<H>),
    /// Another process publishes the event, or has just published it.
    Busy,
    /// The event is corrupt or expired, and was quarantined.
    Quarantined(Quarantined),
}

/// A file that can never be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// The file in quarantine, which keeps the event's content.
    pub path: PathBuf,
    /// Why it can never be published, a sentence.
    pub reason: String,
}

impl<H: Host> Outbox<H> {
    /// Opens the outbox of a state directory. Missing directories are created.
    ///
    /// # Errors
    /// A [`FileError`] if they cannot be created.
    pub fn open(state: &StateDir<H>) -> Result<Self, FileError> {
        let dir = state.file(DIR);
        let aside = dir.join(ASIDE);
        state.create_private_dir(&aside)?;
        Ok(Self { host: state.host().clone(), dir, aside })
    }

    /// The outbox of a state directory, whose directories may be missing, for a caller that stores nothing.
    pub fn existing(state: &StateDir<H>) -> Self {
        let dir = state.file(DIR);
        let aside = dir.join(ASIDE);
        Self { host: state.host().clone(), dir, aside }
    }

    /// Stores an event durably and returns it locked for its publisher.
    ///
    /// # Errors
    /// A [`FileError`] if the file cannot be written, synced or moved into place. The event is then not stored.
    pub fn store(&self, publication: &Publication) -> Result<Spooled<H>, FileError> {
        let name = file_name(publication.event.id);
        let temporary = self.dir.join(format!(".{name}.{}.tmp", self.host.pid()));
        let path = self.dir.join(&name);
        let stored = write_synced(&self.host, &temporary, publication.to_wire().as_bytes(), true)
            .and_then(|lock| rename_durably(&self.host, &temporary, &path).map(|()| lock));
        match stored {
            Ok(lock) => Ok(self.spooled(path, lock)),
            Err(error) => {
                // On a full disk, the part that was written must not use up space.
                let _ = self.host.remove_file(&temporary);
                Err(error)
            }
        }
    }

    fn spooled(&self, path: PathBuf, lock: H::File) -> Spooled<H> {
        Spooled { host: self.host.clone(), path, aside: self.aside.clone(), _lock: lock }
    }

    /// Whether an event of this id waits.
    ///
    /// # Errors
    /// A [`FileError`] if that cannot be found out.
    pub fn holds(&self, event: EventId) -> Result<bool, FileError> {
        let path = self.dir.join(file_name(event));
        match self.host.open(&path, Open::Read) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(at("open", &path)(error)),
        }
    }

    /// Lists the events that wait, oldest first, by their names, which are time-ordered ids. Removes abandoned
    /// temporary files.
    ///
    /// # Errors
    /// A [`FileError`] if the directory cannot be listed.
    pub fn waiting(&self) -> Result<Vec<PathBuf>, FileError> {
        let mut files = Vec::new();
        for path in list(&self.host, &self.dir)? {
            if path.extension().is_some_and(|extension| extension == "tmp") {
                self.remove_if_abandoned(&path);
            } else if self.host.is_file(&path) {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    /// The event that a file of the outbox is of, by its name.
    pub fn event_of(path: &Path) -> Option<EventId> {
        path.file_stem()?.to_str()?.parse().ok()
    }

    fn remove_if_abandoned(&self, path: &Path) {
        if self.host.age(path).is_some_and(|age| age > ABANDONED_AFTER) {
            let _ = self.host.remove_file(path);
        }
    }

    /// Takes a file to publish it. A corrupt or expired one is quarantined instead.
    ///
    /// # Errors
    /// A [`FileError`] if the file cannot be opened, locked, read or quarantined.
    pub fn take(&self, path: &Path, now: Timestamp) -> Result<Taken<H>, FileError> {
        let mut file = match self.host.open(path, Open::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Taken::Busy),
            Err(error) => return Err(at("open", path)(error)),
        };
        // Another process may have published and removed the file between the opening and the locking here.
        if !file.try_lock().map_err(at("lock", path))? || !file.is_at(path) {
            return Ok(Taken::Busy);
        }
        let bytes = file.read_to_end().map_err(at("read", path))?;
        let spooled = self.spooled(path.to_owned(), file);
        match Publication::from_wire(&String::from_utf8_lossy(&bytes)) {
            Ok(publication) if publication.event.is_expired(now) => {
                Ok(Taken::Quarantined(spooled.quarantine(&expiry(&publication.event, now))?))
            }
            Ok(publication) => Ok(Taken::Event(Box::new(publication), spooled)),
            Err(error) => Ok(Taken::Quarantined(spooled.quarantine(&error.to_string())?)),
        }
    }

    /// Finds an event that waits or is quarantined, in the second case with the reason. Creates nothing, because the
    /// caller may have no permission to write.
    ///
    /// # Errors
    /// A [`FileError`] if a file exists and cannot be read.
    pub fn find(
        state: &StateDir<H>,
        event: EventId,
    ) -> Result<Option<(Publication, Option<String>)>, FileError> {
        let (host, dir) = (state.host(), state.file(DIR));
        let name = file_name(event);
        let read = |text: String| Publication::from_wire(&text).ok();
        // The outbox is read before the quarantine, because the file may be moved meanwhile.
        if let Some(text) = read_if_present(host, &dir.join(&name))? {
            return Ok(read(text).map(|publication| (publication, None)));
        }
        let aside = dir.join(ASIDE).join(&name);
        let Some(text) = read_if_present(host, &aside)? else { return Ok(None) };
        let reason = reason_of(host, &aside)?;
        Ok(read(text).map(|publication| (publication, Some(reason))))
    }

    /// Lists the quarantined files, in no order and without their reasons.
    ///
    /// # Errors
    /// A [`FileError`] if the directory cannot be listed.
    pub fn quarantined_files(&self) -> Result<Vec<PathBuf>, FileError> {
        let mut files = list(&self.host, &self.aside)?;
        files.retain(|path| path.extension().is_none_or(|extension| extension != "reason"));
        Ok(files)
    }

    /// Lists the quarantined files with their reasons, oldest first.
    ///
    /// # Errors
    /// A [`FileError`] if the directory or a reason cannot be read.
    pub fn list_quarantined(&self) -> Result<Vec<Quarantined>, FileError> {
        let mut files = Vec::new();
        for path in self.quarantined_files()? {
            let reason = reason_of(&self.host, &path)?;
            files.push(Quarantined { path, reason });
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }
}

impl<H: Host> Spooled<H> {
    /// The backend has it: the file has done its duty.
    pub fn committed(self) -> Result<(), FileError> {
        self.host.remove_file(&self.path).map_err(at("remove", &self.path))
    }

    /// Moves an event that can never be published to quarantine, with the reason in a file beside it.
    ///
    /// # Errors
    /// A [`FileError`] if the reason cannot be written or the file cannot be moved.
    pub fn quarantine(self, reason: &str) -> Result<Quarantined, FileError> {
        let path = self.aside.join(self.path.file_name().unwrap_or_default());
        write_durably(&self.host, &reason_path(&path), format!("{reason}\n").as_bytes())?;
        rename_durably(&self.host, &self.path, &path)?;
        Ok(Quarantined { path, reason: reason.to_owned() })
    }
}

fn reason_of<H: Host>(host: &H, aside: &Path) -> Result<String, FileError> {
    let reason = read_if_present(host, &reason_path(aside))?;
    Ok(reason.map_or_else(|| "no reason was recorded".to_owned(), |reason| reason.trim().to_owned()))
}

fn reason_path(path: &Path) -> PathBuf {
    appended(path, ".reason")
}

fn file_name(event: EventId) -> String {
    format!("{event}.json")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::fs;
    use trigger_core::event::{DEFAULT_LIFETIME, RunOptions, Targets};
    use trigger_core::lineage::{Lineage, Loops};

    pub(super) const NOW: Timestamp = Timestamp::from_unix_ms(1_763_812_800_000);

    pub(super) fn publication() -> Publication {
        let id = EventId::from_uuid(uuid::Uuid::now_v7());
        Publication {
            backend: "dummy:".to_owned(),
            prefix: Default::default(),
            event: Event {
                id,
                trigger: "t".parse().unwrap(),
                origin: "a".parse().unwrap(),
                targets: Targets { hosts: ["b".parse().unwrap()].into(), groups: Default::default() },
                options: RunOptions::default(),
                lineage: Lineage::root(id),
                fired_in: None,
                fired_by: None,
                catalog: None,
                loops: Loops::Avoid,
                fired_at: NOW,
                expires_in: DEFAULT_LIFETIME,
            },
            suppressed: Default::default(),
            suppressed_groups: Default::default(),
        }
    }

    pub(super) fn outbox() -> (tempfile::TempDir, Outbox) {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(&StateDir::open(dir.path()).unwrap()).unwrap();
        (dir, outbox)
    }

    fn take_only(outbox: &Outbox, now: Timestamp) -> Taken {
        let files = outbox.waiting().unwrap();
        assert_eq!(files.len(), 1, "{files:?}");
        outbox.take(&files[0], now).unwrap()
    }

    #[test]
    fn one_publisher_at_a_time_and_none_after_the_commit() {
        let (_dir, outbox) = outbox();
        let publication = publication();
        let spooled = outbox.store(&publication).unwrap();
        assert!(matches!(take_only(&outbox, NOW), Taken::Busy), "its writer still publishes it");
        drop(spooled);
        let Taken::Event(read, spooled) = take_only(&outbox, NOW) else { panic!("it is free now") };
        assert_eq!(*read, publication);
        spooled.committed().unwrap();
        assert!(outbox.waiting().unwrap().is_empty());
    }

    #[test]
    fn a_directory_that_was_removed_comes_back_with_the_next_event() {
        let (dir, outbox) = outbox();
        fs::remove_dir_all(dir.path().join("outbox")).unwrap();
        assert!(outbox.waiting().unwrap().is_empty());
        fs::remove_dir_all(dir.path().join("outbox")).unwrap();
        drop(outbox.store(&publication()).unwrap());
        assert!(outbox.list_quarantined().unwrap().is_empty());
        fs::remove_dir_all(dir.path().join("outbox/quarantined")).unwrap();
        let Taken::Event(_, spooled) = take_only(&outbox, NOW) else { panic!("it is free") };
        spooled.quarantine("no reason").unwrap();
        assert_eq!(outbox.list_quarantined().unwrap().len(), 1);
    }

    #[test]
    fn a_corrupt_file_moves_aside_with_its_reason_and_its_content() {
        let (dir, outbox) = outbox();
        fs::write(dir.path().join("outbox/junk.json"), b"\xff{not json").unwrap();
        let Taken::Quarantined(aside) = take_only(&outbox, NOW) else { panic!("junk is no event") };
        assert!(aside.reason.contains("not the JSON of a fired event"), "{}", aside.reason);
        assert_eq!(fs::read(&aside.path).unwrap(), b"\xff{not json", "nothing is deleted");
        assert!(outbox.waiting().unwrap().is_empty(), "nothing is blocked");
        assert_eq!(outbox.list_quarantined().unwrap(), [aside]);
    }

    #[test]
    fn an_expired_event_moves_aside() {
        let (dir, outbox) = outbox();
        let state = StateDir::open(dir.path()).unwrap();
        let publication = publication();
        let id = publication.event.id;
        assert_eq!(Outbox::find(&state, id).unwrap(), None);
        drop(outbox.store(&publication).unwrap());
        assert_eq!(Outbox::find(&state, id).unwrap(), Some((publication.clone(), None)));
        let late = NOW.plus(Duration::from_secs(8 * 24 * 3600));
        assert!(
            matches!(take_only(&outbox, late), Taken::Quarantined(aside) if aside.reason == expiry(&publication.event, late))
        );
        let reason = expiry(&publication.event, late);
        assert!(is_of_expiry(&reason));
        assert_eq!(Outbox::find(&state, id).unwrap(), Some((publication, Some(reason))));
    }
}
