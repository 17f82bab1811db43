//! Records, output and results of runs.
//!
//! ```text
//! <run_id>.json            the record: what the run covers; locked while the run lives; blank until it begins
//! <run_id>.ended.json      the record of a run whose outcome is stored
//! <run_id>.result.json     how it ended
//! <run_id>.log             what it printed, bounded; locked while anything of the run writes to it
//! <run_id>.report.yaml     the report of a `puppet apply`
//! <run_id>.fires           the triggers that fired inside it, and their root events
//! ```

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use trigger_core::identity::{EventId, RunId, TriggerName};
use trigger_core::outcome::{End, EndedRun, Outcome, RunResult};
use trigger_core::wire::{RunRecord, Stored};

use super::durable::{appended, rename_durably, sync_dir, write_synced};
use super::{FileError, StateDir, at, create_private_dir, read_if_present, write_durably};

/// Ended runs whose records and output are kept.
const KEEP_ENDED: usize = 100;
/// How often a run whose supervisor died is looked at.
const ORPHAN_POLL: Duration = Duration::from_millis(200);
/// Bytes of a record's file that is made ahead: enough for some twenty events.
const BLANK_BYTES: usize = 16 * 1024;

/// The folder of runs.
#[derive(Debug, Clone)]
pub(crate) struct Runs {
    dir: PathBuf,
}

/// The files of one run.
#[derive(Debug, Clone)]
pub(crate) struct RunPaths {
    stem: PathBuf,
}

impl RunPaths {
    /// The files beside this record.
    pub(crate) fn beside(record: &Path) -> Self {
        Self { stem: record.with_extension("") }
    }

    fn with(&self, ending: &str) -> PathBuf {
        appended(&self.stem, ending)
    }

    pub(crate) fn record(&self) -> PathBuf {
        self.with(".json")
    }

    fn ended_record(&self) -> PathBuf {
        self.with(".ended.json")
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.with(".log")
    }

    pub(crate) fn report(&self) -> PathBuf {
        self.with(".report.yaml")
    }

    fn result(&self) -> PathBuf {
        self.with(".result.json")
    }

    fn fires(&self) -> PathBuf {
        self.with(".fires")
    }

    /// How the run ended, if that is known. A result that cannot be read counts as none.
    pub(crate) fn read_result(&self) -> Result<Option<RunResult>, FileError> {
        let text = read_if_present(&self.result())?;
        Ok(text.and_then(|text| RunResult::from_wire(&text).ok()))
    }

    pub(crate) fn write_result(&self, result: &RunResult) -> Result<(), FileError> {
        write_durably(&self.result(), result.to_wire().as_bytes())
    }

    /// Returns once the run has ended. That is when nobody holds the record's lock; where the supervisor
    /// died before its run, when nobody writes to the output any more either, at the latest after `patience`
    /// (a daemon that a run started may hold on to the output for ever).
    pub(crate) fn wait_for_end(&self, patience: Duration) -> Result<Option<RunResult>, FileError> {
        let path = self.record();
        let record = File::open(&path).map_err(at("open", &path))?;
        record.lock_shared().map_err(at("wait for the lock on", &path))?;
        let result = self.read_result()?;
        let since = Instant::now();
        while result.is_none() && since.elapsed() < patience && is_locked(&self.output())? {
            std::thread::sleep(ORPHAN_POLL);
        }
        Ok(result)
    }

    /// Whether the supervisor lives, or the run it left behind.
    fn is_alive(&self) -> Result<bool, FileError> {
        Ok(is_locked(&self.record())? || (self.read_result()?.is_none() && is_locked(&self.output())?))
    }
}

/// Whether another process holds the file's lock; nobody holds that of a file that is not there.
fn is_locked(path: &Path) -> Result<bool, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(at("open", path)(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(at("lock", path)(error)),
    }
}

/// A run about to start: its record is durable and locked. Handing `lock` to the supervisor as its
/// standard input hands over the lock, so that there is no moment in which nobody holds it.
#[derive(Debug)]
pub(crate) struct NewRun {
    pub(crate) paths: RunPaths,
    pub(crate) lock: File,
}

/// The file of the next run's record, made ahead: blanks under the final name, durable and locked. To fill
/// it is one write to the disk; a new file would wait for a commit of the file system's journal, together
/// with all that anybody else wrote. Blanks at the end do not matter to JSON, nor a blank file to anybody:
/// no run begins before its record is whole and synced.
#[derive(Debug)]
pub(crate) struct BlankRecord {
    pub(crate) run: RunId,
    file: File,
}

/// A run whose outcome is not stored yet.
#[derive(Debug)]
pub(crate) struct OpenRun {
    pub(crate) record: RunRecord,
    pub(crate) is_alive: bool,
}

impl Runs {
    pub(crate) fn open(state: &StateDir) -> Result<Self, FileError> {
        let dir = state.file("runs");
        create_private_dir(&dir)?;
        Ok(Self { dir })
    }

    pub(crate) fn paths(&self, run: RunId) -> RunPaths {
        RunPaths { stem: self.dir.join(run.to_string()) }
    }

    /// Makes the next record's file while nothing waits for it.
    pub(crate) fn prepare(&self, run: RunId) -> Result<BlankRecord, FileError> {
        let path = self.paths(run).record();
        let made = write_synced(&path, &[b' '; BLANK_BYTES], true)
            .and_then(|file| sync_dir(&self.dir).map(|()| BlankRecord { run, file }));
        made.inspect_err(|_| drop(fs::remove_file(&path)))
    }

    /// Writes the record, into its own `blank` if there is one: from here on the run covers its causes.
    pub(crate) fn create(&self, record: &RunRecord, blank: Option<BlankRecord>) -> Result<NewRun, FileError> {
        let paths = self.paths(record.run_id);
        let text = record.to_wire();
        let lock = match blank.filter(|blank| blank.run == record.run_id && text.len() <= BLANK_BYTES) {
            Some(BlankRecord { file, .. }) => {
                file.write_all_at(text.as_bytes(), 0).map_err(at("write", &paths.record()))?;
                file.sync_data().map_err(at("sync", &paths.record()))?;
                file
            }
            None => {
                let temporary = paths.with(".json.tmp");
                let lock = write_synced(&temporary, text.as_bytes(), true)?;
                rename_durably(&temporary, &paths.record())?;
                lock
            }
        };
        Ok(NewRun { paths, lock })
    }

    /// Runs whose outcome is not stored, oldest first. A record that cannot be read started nothing that
    /// anybody could adopt: it is renamed, so that a person can look at it.
    pub(crate) fn open_runs(&self) -> Result<Vec<OpenRun>, FileError> {
        let mut runs = Vec::new();
        for id in self.ids(".json")? {
            let paths = self.paths(id);
            let text = read_if_present(&paths.record())?.unwrap_or_default();
            if text.trim().is_empty() {
                // Made ahead by an agent that ended before it was needed.
                let _ = fs::remove_file(paths.record());
                continue;
            }
            match RunRecord::from_wire(&text) {
                Ok(record) => runs.push(OpenRun { record, is_alive: paths.is_alive()? }),
                Err(error) if is_locked(&paths.record())? => {
                    // A newer version started it. Waiting for its end is a matter for whoever starts us again.
                    let error =
                        std::io::Error::other(format!("it is in progress and cannot be read: {error}"));
                    return Err(at("adopt the run of", &paths.record())(error));
                }
                Err(error) => {
                    tracing::error!("the record of run {id} is set aside: {error}");
                    rename_durably(&paths.record(), &paths.with(".unreadable.json"))?;
                }
            }
        }
        Ok(runs)
    }

    /// The record of a run that is in progress now; nothing for any other id, whoever names it.
    pub(crate) fn live_record(&self, run: RunId) -> Result<Option<RunRecord>, FileError> {
        let paths = self.paths(run);
        let Some(text) = read_if_present(&paths.record())? else { return Ok(None) };
        if !paths.is_alive()? {
            return Ok(None);
        }
        Ok(RunRecord::from_wire(&text).ok())
    }

    /// Closes a run whose outcome is stored, and forgets the oldest beyond those kept.
    pub(crate) fn close(&self, run: RunId) -> Result<(), FileError> {
        let paths = self.paths(run);
        match fs::rename(paths.record(), paths.ended_record()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(at("close the record", &paths.record())(error));
            }
            _ => {}
        }
        let ended = self.ids(".ended.json")?;
        for id in ended.iter().take(ended.len().saturating_sub(KEEP_ENDED)) {
            let paths = self.paths(*id);
            for path in [paths.result(), paths.output(), paths.report(), paths.fires(), paths.ended_record()]
            {
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }

    /// How an event ended, as far as the runs that are kept tell: for an outcome that the backend has lost.
    pub(crate) fn end_of(&self, event: EventId) -> Result<Option<End>, FileError> {
        for id in self.ids(".ended.json")?.into_iter().rev() {
            let paths = self.paths(id);
            let record = read_if_present(&paths.ended_record())?.map(|text| RunRecord::from_wire(&text));
            let Some(Ok(record)) = record else { continue };
            if !record.causes.iter().any(|cause| cause.event.id == event) {
                continue;
            }
            let Some(result) = paths.read_result()? else { continue };
            let run = EndedRun { run_id: id, noop: record.options.noop, result };
            return Ok(match run.result.outcome {
                Outcome::Unchanged | Outcome::Changed => Some(End::Done(run)),
                Outcome::NotRun => None,
                _ => Some(End::Failed(run)),
            });
        }
        Ok(None)
    }

    /// How many interrupted runs covered each event, among the runs that are kept.
    pub(crate) fn interruptions(&self) -> Result<HashMap<EventId, u32>, FileError> {
        let mut interruptions = HashMap::new();
        for id in self.ids(".ended.json")? {
            let paths = self.paths(id);
            let interrupted = paths.read_result()?.is_some_and(|r| r.outcome == Outcome::Interrupted);
            let text = if interrupted { read_if_present(&paths.ended_record())? } else { None };
            if let Some(Ok(record)) = text.as_deref().map(RunRecord::from_wire) {
                for cause in record.causes {
                    *interruptions.entry(cause.event.id).or_default() += 1;
                }
            }
        }
        Ok(interruptions)
    }

    /// Notes that `trigger` fired inside `run`, for the budget of its root events.
    pub(crate) fn note_fire(
        &self,
        run: RunId,
        trigger: &TriggerName,
        roots: &BTreeSet<EventId>,
    ) -> Result<(), FileError> {
        let path = self.paths(run).fires();
        let text: String = roots.iter().map(|root| format!("{root} {trigger}\n")).collect();
        let file = File::options().create(true).append(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(at("append to", &path))
    }

    /// How often `trigger` fired on this node for each root event, in the runs that are kept.
    pub(crate) fn fires(&self, trigger: &TriggerName) -> Result<HashMap<EventId, u32>, FileError> {
        let mut fires: HashMap<EventId, u32> = HashMap::new();
        for id in self.ids(".fires")? {
            let text = read_if_present(&self.paths(id).fires())?.unwrap_or_default();
            for (root, name) in text.lines().filter_map(|line| line.split_once(' ')) {
                if name == trigger.as_str()
                    && let Ok(root) = root.parse::<EventId>()
                {
                    *fires.entry(root).or_default() += 1;
                }
            }
        }
        Ok(fires)
    }

    /// The runs that have a file with this ending, oldest first.
    fn ids(&self, ending: &str) -> Result<Vec<RunId>, FileError> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(at("list", &self.dir))? {
            let name = entry.map_err(at("list", &self.dir))?.file_name();
            let stem = name.to_str().and_then(|name| name.strip_suffix(ending));
            ids.extend(stem.and_then(|stem| stem.parse::<RunId>().ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;
    use trigger_core::event::RunOptions;
    use trigger_core::time::Timestamp;

    fn runs() -> (tempfile::TempDir, Runs) {
        let dir = tempfile::tempdir().unwrap();
        let runs = Runs::open(&StateDir::open(dir.path()).unwrap()).unwrap();
        (dir, runs)
    }

    fn record(run_id: RunId, argument: &str) -> RunRecord {
        RunRecord {
            run_id,
            certname: "a".parse().unwrap(),
            command: vec!["true".to_owned(), argument.to_owned()],
            options: RunOptions::default(),
            timeout: Duration::from_secs(60),
            started_at: Timestamp::from_unix_ms(1_763_812_800_000),
            causes: Vec::new(),
            environment: BTreeMap::new(),
        }
    }

    fn new_id() -> RunId {
        RunId::from_uuid(uuid::Uuid::now_v7())
    }

    /// Whether the one open run is this one, alive.
    fn check_only_open_run(runs: &Runs, expected: &RunRecord) {
        let open = runs.open_runs().unwrap();
        assert_eq!(open.len(), 1, "{open:?}");
        assert_eq!(open[0].record, *expected);
        assert!(open[0].is_alive, "its lock is held");
    }

    #[test]
    fn a_record_is_written_into_the_file_made_ahead_for_it() {
        let (_dir, runs) = runs();
        let blank = runs.prepare(new_id()).unwrap();
        let record = record(blank.run, "");
        let run = runs.create(&record, Some(blank)).unwrap();
        check_only_open_run(&runs, &record);
        drop(run);
        assert!(!runs.open_runs().unwrap()[0].is_alive);
    }

    #[test]
    fn a_record_too_long_for_the_file_made_ahead_replaces_it() {
        let (_dir, runs) = runs();
        let blank = runs.prepare(new_id()).unwrap();
        let record = record(blank.run, &"x".repeat(BLANK_BYTES));
        let _run = runs.create(&record, Some(blank)).unwrap();
        check_only_open_run(&runs, &record);
    }

    #[test]
    fn a_file_made_ahead_is_no_run_and_goes_at_the_next_start() {
        let (_dir, runs) = runs();
        let blank = runs.prepare(new_id()).unwrap();
        assert_eq!(runs.live_record(blank.run).unwrap(), None, "it is locked, but covers nothing");
        let path = runs.paths(blank.run).record();
        drop(blank);
        assert!(runs.open_runs().unwrap().is_empty());
        assert!(!path.exists());
    }
}
