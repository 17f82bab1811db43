//! Records, output and results of runs.
//!
//! ```text
//! <run_id>.json            the record with the run's events; locked while the run lives; blank before it begins
//! <run_id>.ended.json      the record of a run whose outcome is stored
//! <run_id>.result.json     its result
//! <run_id>.log             its output, bounded; locked while any process of the run writes to it
//! <run_id>.leader          its first process, by which an agent ends the run if its supervisor is dead
//! <run_id>.report.yaml     the report of a `puppet apply`, until the outcome is stored
//! <run_id>.superseded      how many events of a backlog its causes stand for, if any
//! <run_id>.fired           the events fired inside it, suppressed ones too, a line each
//! closed                   the runs whose outcome is stored, in the order in which that happened
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trigger_core::identity::{Certname, EventId, RunId};
use trigger_core::run::history::{FiredEvent, PastRun, RunHistory};
use trigger_core::run::record::RunRecord;
use trigger_core::run::{RunOutcome, RunResult};
use trigger_core::run_log::RunChoice;
use trigger_core::time::Timestamp;
use trigger_core::wire::Stored;

use super::durable::{appended, list, open, rename_durably, sync_dir, write, write_synced};
use super::{FileError, StateDir, at, read_if_present, write_durably};
use crate::host::{Host, HostFile, Open};
use crate::os::Os;

/// How many completed runs are kept, with their records and output.
const KEPT_RUNS: usize = 100;
/// The list of the kept runs, and its name until it is complete.
const CLOSED: &str = "closed";
const CLOSED_TEMPORARY: &str = "closed.tmp";
/// How often the output of a run whose supervisor died is checked for its end.
const ORPHAN_POLL: Duration = Duration::from_millis(200);

/// The directory of runs.
#[derive(Debug, Clone)]
pub struct Runs<H: Host = Os> {
    host: H,
    dir: PathBuf,
}

/// The files of one run.
#[derive(Debug, Clone)]
pub struct RunPaths<H: Host = Os> {
    host: H,
    stem: PathBuf,
}

impl<H: Host> RunPaths<H> {
    /// The files of the run whose record is at this path.
    pub fn beside(host: H, record: &Path) -> Self {
        Self { host, stem: record.with_extension("") }
    }

    fn with(&self, suffix: &str) -> PathBuf {
        appended(&self.stem, suffix)
    }

    /// The path of the record while the run's outcome is not stored.
    pub fn record(&self) -> PathBuf {
        self.with(".json")
    }

    fn ended_record(&self) -> PathBuf {
        self.with(".ended.json")
    }

    /// The path of the output.
    pub fn output(&self) -> PathBuf {
        self.with(".log")
    }

    /// The path of a `puppet apply`'s report.
    pub fn report(&self) -> PathBuf {
        self.with(".report.yaml")
    }

    fn leader(&self) -> PathBuf {
        self.with(".leader")
    }

    fn result(&self) -> PathBuf {
        self.with(".result.json")
    }

    fn superseded(&self) -> PathBuf {
        self.with(".superseded")
    }

    fn fired(&self) -> PathBuf {
        self.with(".fired")
    }

    /// Reads the run's result, if it is known. A result that cannot be parsed counts as none.
    ///
    /// # Errors
    /// A [`FileError`] if the file exists and cannot be read.
    pub fn read_result(&self) -> Result<Option<RunResult>, FileError> {
        let text = read_if_present(&self.host, &self.result())?;
        Ok(text.and_then(|text| RunResult::from_wire(&text).ok()))
    }

    /// Reads the run's result and makes it durable. A supervisor that was killed while it wrote may have left a result
    /// that a power cut would remove again, although its consequences would stay.
    ///
    /// # Errors
    /// A [`FileError`] if the file cannot be read or the directory cannot be synced.
    pub fn read_durable_result(&self) -> Result<Option<RunResult>, FileError> {
        let result = self.read_result()?;
        if let (Some(_), Some(dir)) = (&result, self.stem.parent()) {
            sync_dir(&self.host, dir)?;
        }
        Ok(result)
    }

    /// Writes the run's result durably.
    ///
    /// # Errors
    /// A [`FileError`] if the file cannot be written; there is then no result.
    pub fn write_result(&self, result: &RunResult) -> Result<(), FileError> {
        write_durably(&self.host, &self.result(), result.to_wire().as_bytes())
    }

    /// Stores the supervisor's note of the run's first process, by which [`Host::end_orphan`] finds it. Not synced.
    ///
    /// # Errors
    /// A [`FileError`] if the file cannot be written.
    pub fn note_leader(&self, note: &str) -> Result<(), FileError> {
        let path = self.leader();
        write(&self.host, &path, note.as_bytes()).map_err(at("write", &path))
    }

    /// Returns the run's result once the run has ended, which is when no process holds the record's lock. If the
    /// supervisor died before its run, this also waits until no process writes to the output, but at most for
    /// `patience`, because a daemon that the run started may keep the output open indefinitely. The remaining processes
    /// of the run are then ended, so that the next run does not run beside them.
    ///
    /// # Errors
    /// A [`FileError`] if the record cannot be locked or the result cannot be read.
    pub fn wait_for_end(
        self,
        patience: Duration,
    ) -> impl Future<Output = Result<Option<RunResult>, FileError>> + Send + use<H> {
        // The wait begins at the call, not at the first poll.
        let unlocked = self.host.wait_until_unlocked(&self.record());
        async move {
            unlocked.await?;
            let paths = self.clone();
            let result = self.host.spawn_blocking(move || paths.read_durable_result()).await?;
            if result.is_none() && !self.falls_silent(patience).await? {
                let note = read_if_present(&self.host, &self.leader())?;
                self.host.end_orphan(note.as_deref(), &self.output()).await;
            }
            Ok(result)
        }
    }

    /// Waits until no process writes to the output. Returns `false` if one still does after `patience`.
    async fn falls_silent(&self, patience: Duration) -> Result<bool, FileError> {
        let since = self.host.elapsed();
        while is_locked(&self.host, &self.output())? {
            if self.host.elapsed().saturating_sub(since) >= patience {
                return Ok(false);
            }
            self.host.sleep(ORPHAN_POLL).await;
        }
        Ok(true)
    }

    /// Returns whether the run has ended, so that nothing of its own is added to its output any more.
    ///
    /// # Errors
    /// A [`FileError`] if a file cannot be read or locked.
    pub fn has_ended(&self) -> Result<bool, FileError> {
        Ok(!self.is_alive()?)
    }

    /// Returns whether the supervisor is alive, or a run that it left behind.
    fn is_alive(&self) -> Result<bool, FileError> {
        let is_locked = |path: &Path| is_locked(&self.host, path);
        Ok(is_locked(&self.record())? || (self.read_result()?.is_none() && is_locked(&self.output())?))
    }
}

/// Returns whether another process holds the file's lock. A missing file is not locked.
fn is_locked<H: Host>(host: &H, path: &Path) -> Result<bool, FileError> {
    let file = match host.open(path, Open::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(at("open", path)(error)),
    };
    file.try_lock_shared().map(|taken| !taken).map_err(at("lock", path))
}

/// Syncs a record. An agent that was killed between writing a record and syncing it leaves one that a power cut would
/// remove, although its consequences would stay: its causes count as covered and are deleted without an outcome.
fn make_durable<H: Host>(host: &H, record: &Path) -> Result<(), FileError> {
    host.open(record, Open::Read).and_then(|file| file.sync_data()).map_err(at("sync", record))?;
    record.parent().map_or(Ok(()), |dir| sync_dir(host, dir))
}

/// A run about to start, whose record is durable and locked. Passing `lock` to the supervisor as its standard input
/// hands over the lock, so that the record is unlocked at no moment.
#[derive(Debug)]
pub struct NewRun<H: Host = Os> {
    /// The run's files.
    pub paths: RunPaths<H>,
    /// The open record, which holds the lock.
    pub lock: H::File,
}

/// The file of the next run's record, preallocated: blanks under the final name, durable and locked. Filling it takes
/// one write to the disk, whereas a new file would wait for a commit of the file system's journal, together with the
/// writes of every other process. JSON ignores blanks at the end, and a reader ignores a blank file, because no run
/// begins before its record is complete and synced.
#[derive(Debug)]
pub struct PreallocatedRecord<H: Host = Os> {
    /// The id of the next run.
    pub run: RunId,
    file: H::File,
}

/// A run whose outcome is not stored yet.
#[derive(Debug)]
pub struct OpenRun {
    /// The run's record.
    pub record: RunRecord,
    /// Whether the run is still in progress.
    pub is_alive: bool,
}

impl<H: Host> Runs<H> {
    /// Opens the runs of a state directory. A missing directory is created.
    ///
    /// # Errors
    /// A [`FileError`] if it cannot be created.
    pub fn open(state: &StateDir<H>) -> Result<Self, FileError> {
        let dir = state.file("runs");
        state.create_private_dir(&dir)?;
        Ok(Self { host: state.host().clone(), dir })
    }

    /// The files of a run, whether they exist or not.
    pub fn paths(&self, run: RunId) -> RunPaths<H> {
        RunPaths { host: self.host.clone(), stem: self.dir.join(run.to_string()) }
    }

    /// Preallocates the next run's record while no run waits for it.
    ///
    /// # Errors
    /// A [`FileError`] if the file cannot be written; the next run then starts without it.
    pub fn prepare(&self, run: RunId) -> Result<PreallocatedRecord<H>, FileError> {
        let path = self.paths(run).record();
        let made = write_synced(&self.host, &path, &vec![b' '; H::PREALLOCATED_BYTES], true)
            .and_then(|file| sync_dir(&self.host, &self.dir).map(|()| PreallocatedRecord { run, file }));
        made.inspect_err(|_| drop(self.host.remove_file(&path)))
    }

    /// Writes the record durably, into its own `blank` if there is one. From then on the run covers its causes.
    ///
    /// # Errors
    /// A [`FileError`] if the record cannot be written or synced.
    pub fn create(
        &self,
        record: &RunRecord,
        blank: Option<PreallocatedRecord<H>>,
    ) -> Result<NewRun<H>, FileError> {
        let paths = self.paths(record.run_id);
        let text = record.to_wire();
        // The file may have been removed since; what is written to it then is found by no later reader.
        let fits = |blank: &PreallocatedRecord<H>| {
            blank.run == record.run_id
                && text.len() <= H::PREALLOCATED_BYTES
                && blank.file.is_at(&paths.record())
        };
        let lock = match blank.filter(fits) {
            Some(PreallocatedRecord { file, .. }) => {
                file.write_all_at(text.as_bytes(), 0).map_err(at("write", &paths.record()))?;
                file.sync_data().map_err(at("sync", &paths.record()))?;
                file
            }
            None => {
                let temporary = paths.with(".json.tmp");
                let made = write_synced(&self.host, &temporary, text.as_bytes(), true)
                    .and_then(|lock| rename_durably(&self.host, &temporary, &paths.record()).map(|()| lock));
                made.inspect_err(|_| drop(self.host.remove_file(&temporary)))?
            }
        };
        Ok(NewRun { paths, lock })
    }

    /// Runs whose outcome is not stored, oldest first. A record that cannot be read started nothing that
    /// anybody could adopt: it is renamed, so that a person can look at it.
    pub fn open_runs(&self) -> Result<Vec<OpenRun>, FileError> {
        let mut runs = Vec::new();
        for id in self.ids(".json")? {
            let paths = self.paths(id);
            let text = read_if_present(&self.host, &paths.record())?.unwrap_or_default();
            if text.trim().is_empty() {
                // An earlier agent preallocated this record and ended before it used it.
                let _ = self.host.remove_file(&paths.record());
                continue;
            }
            match RunRecord::from_wire(&text) {
                Ok(record) => {
                    make_durable(&self.host, &paths.record())?;
                    runs.push(OpenRun { record, is_alive: paths.is_alive()? });
                }
                Err(error) if is_locked(&self.host, &paths.record())? => {
                    // A newer version started it. The agent fails, and the service manager starts it again until the
                    // run has ended.
                    let error =
                        std::io::Error::other(format!("it is in progress and cannot be read: {error}"));
                    return Err(at("adopt the run of", &paths.record())(error));
                }
                Err(error) => {
                    tracing::error!(run = %id, %error, "a run's record cannot be read and is quarantined");
                    rename_durably(&self.host, &paths.record(), &paths.with(".unreadable.json"))?;
                }
            }
        }
        Ok(runs)
    }

    /// Returns the record of a run that is in progress now, or `None` for any other id.
    ///
    /// # Errors
    /// A [`FileError`] if the record of a live run cannot be read or parsed.
    pub fn live_record(&self, run: RunId) -> Result<Option<RunRecord>, FileError> {
        let paths = self.paths(run);
        let Some(text) = read_if_present(&self.host, &paths.record())? else { return Ok(None) };
        // A blank record is preallocated, and its agent holds the lock.
        if text.trim().is_empty() || !paths.is_alive()? {
            return Ok(None);
        }
        let unreadable = |error| at("understand", &paths.record())(std::io::Error::other(error));
        RunRecord::from_wire(&text).map(Some).map_err(unreadable)
    }

    /// Returns the run that a reader has chosen, or `None` if it is not among the kept runs of `certname`. Changes nothing.
    ///
    /// # Errors
    /// A [`FileError`] if the directory or a record cannot be read.
    pub fn choose(&self, choice: RunChoice, certname: &Certname) -> Result<Option<RunId>, FileError> {
        let mut ids = self.closed()?;
        ids.extend(self.ids(".json")?);
        let is_chosen = |id: &RunId| match choice {
            RunChoice::Id(run) => *id == run,
            RunChoice::Latest { .. } => true,
        };
        let back = match choice {
            RunChoice::Id(_) => 0,
            RunChoice::Latest { back } => back,
        };
        let mut left = back;
        for id in ids.into_iter().rev().filter(is_chosen) {
            let paths = self.paths(id);
            let text = match read_if_present(&self.host, &paths.record())? {
                Some(text) => Some(text),
                None => read_if_present(&self.host, &paths.ended_record())?,
            };
            // A blank record is preallocated for the next run. The runs of another certname are not this node's.
            let Some(Ok(record)) = text.as_deref().map(RunRecord::from_wire) else { continue };
            if record.certname != *certname {
                continue;
            }
            match left.checked_sub(1) {
                Some(fewer) => left = fewer,
                None => return Ok(Some(id)),
            }
        }
        Ok(None)
    }

    /// Closes a run whose outcome is stored, and removes the runs that were closed first, beyond those that are kept.
    ///
    /// # Errors
    /// A [`FileError`] if the directory cannot be read or the record cannot be renamed.
    pub fn close(&self, run: RunId) -> Result<(), FileError> {
        let paths = self.paths(run);
        let mut closed = self.closed()?;
        closed.retain(|id| *id != run);
        closed.push(run);
        let kept = closed.split_off(closed.len().saturating_sub(KEPT_RUNS));
        // The list is written before the record is renamed, because an unlisted run counts as closed long ago. A full
        // disk loses only the order, and must not keep a run open whose outcome is stored.
        if let Err(error) = self.write_closed(&kept) {
            tracing::warn!(%error, "cannot note in which order runs were closed");
        }
        match self.host.rename(&paths.record(), &paths.ended_record()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(at("close the record", &paths.record())(error));
            }
            _ => {}
        }
        for needless in [paths.report(), paths.leader()] {
            let _ = self.host.remove_file(&needless);
        }
        closed.iter().for_each(|id| self.forget(*id));
        Ok(())
    }

    /// Removes the files of a run, the record last, because the other files are found by the record.
    fn forget(&self, run: RunId) {
        let paths = self.paths(run);
        let results = [paths.result(), paths.output(), paths.report(), paths.leader()];
        let notes = [paths.fired(), paths.superseded()];
        for path in results.into_iter().chain(notes).chain([paths.ended_record()]) {
            let _ = self.host.remove_file(&path);
        }
    }

    /// Returns the runs whose outcome is stored, in the order of their closing. The order of their ids is that of the
    /// wall clock: after a clock that was ahead has been set back, each new run would count as the oldest, and be
    /// removed with its output as soon as it was closed.
    fn closed(&self) -> Result<Vec<RunId>, FileError> {
        let listed = read_if_present(&self.host, &self.dir.join(CLOSED))?.unwrap_or_default();
        let listed = listed.lines().filter_map(|line| line.parse::<RunId>().ok()).enumerate();
        let places: HashMap<RunId, usize> = listed.map(|(place, id)| (id, place)).collect();
        let mut closed = self.ids(".ended.json")?;
        // The runs of earlier versions are not listed. They count as the oldest, in the order of their ids.
        closed.sort_by_key(|id| places.get(id).map(|place| place + 1));
        Ok(closed)
    }

    /// Writes the list of closed runs. It is not synced, because a power cut that removes it loses only the order.
    fn write_closed(&self, closed: &[RunId]) -> Result<(), FileError> {
        let (path, temporary) = (self.dir.join(CLOSED), self.dir.join(CLOSED_TEMPORARY));
        let lines: String = closed.iter().map(|id| format!("{id}\n")).collect();
        let written = write(&self.host, &temporary, lines.as_bytes()).map_err(at("write", &temporary));
        written
            .and_then(|()| self.host.rename(&temporary, &path).map_err(at("move a file to", &path)))
            .inspect_err(|_| drop(self.host.remove_file(&temporary)))
    }

    /// Returns the kept runs whose result is known, in the order of their closing. Their causes give the outcome of an
    /// event whose outcome the backend has lost.
    ///
    /// # Errors
    /// A [`FileError`] if the directory or a file cannot be read.
    pub fn completed_runs(&self) -> Result<Vec<(RunRecord, RunResult)>, FileError> {
        let mut runs = Vec::new();
        for id in self.closed()? {
            runs.extend(self.ended_run(id)?);
        }
        Ok(runs)
    }

    /// Returns a closed run, if its record and its result can be parsed.
    fn ended_run(&self, id: RunId) -> Result<Option<(RunRecord, RunResult)>, FileError> {
        let paths = self.paths(id);
        let record = read_if_present(&self.host, &paths.ended_record())?;
        let record = record.and_then(|text| RunRecord::from_wire(&text).ok());
        Ok(record.zip(paths.read_result()?))
    }

    /// Returns the history of the kept runs whose outcome is stored, which the node publishes.
    ///
    /// # Errors
    /// A [`FileError`] if the directory or a file cannot be read.
    pub fn history(&self, certname: &Certname) -> Result<RunHistory, FileError> {
        let mut history = RunHistory::default();
        for id in self.closed()? {
            if let Some(past) = self.past_run(id, certname)? {
                history.push(past);
            }
        }
        Ok(history)
    }

    /// Returns the history's entry for a run that has ended, or `None` if its record or its result is missing or cannot
    /// be parsed, or if the node had another certname then.
    ///
    /// # Errors
    /// A [`FileError`] if a file exists and cannot be read.
    pub fn past_run(&self, run: RunId, certname: &Certname) -> Result<Option<PastRun>, FileError> {
        let paths = self.paths(run);
        let text = match read_if_present(&self.host, &paths.record())? {
            Some(text) => Some(text),
            None => read_if_present(&self.host, &paths.ended_record())?,
        };
        let Some(Ok(record)) = text.as_deref().map(RunRecord::from_wire) else { return Ok(None) };
        if record.certname != *certname {
            return Ok(None);
        }
        let Some(result) = paths.read_result()? else { return Ok(None) };
        let fired = self.fired(run)?;
        let superseded = read_if_present(&self.host, &paths.superseded())?;
        let superseded = superseded.and_then(|count| count.trim().parse().ok()).unwrap_or_default();
        Ok(Some(PastRun::of(&record, result, superseded, fired)))
    }

    /// Returns when each of the kept runs was started, by the wall clock of that moment, for the rate limiter. More
    /// runs are kept than can start within a minute.
    ///
    /// # Errors
    /// A [`FileError`] if the directory or a record cannot be read.
    pub fn latest_starts(&self) -> Result<Vec<Timestamp>, FileError> {
        let mut starts = Vec::new();
        for id in self.closed()? {
            let text = read_if_present(&self.host, &self.paths(id).ended_record())?;
            if let Some(Ok(record)) = text.as_deref().map(RunRecord::from_wire) {
                starts.push(record.started_at);
            }
        }
        Ok(starts)
    }

    /// Returns the result of the latest run whose outcome is stored.
    ///
    /// # Errors
    /// A [`FileError`] if the directory or the result cannot be read.
    pub fn latest_result(&self) -> Result<Option<RunResult>, FileError> {
        self.closed()?.last().map_or(Ok(None), |id| self.paths(*id).read_result())
    }

    /// Returns how many interrupted runs covered each event, among the kept runs.
    ///
    /// # Errors
    /// A [`FileError`] if the directory or a file cannot be read.
    pub fn interruptions(&self) -> Result<HashMap<EventId, u32>, FileError> {
        let mut interruptions = HashMap::new();
        for id in self.closed()? {
            let paths = self.paths(id);
            let interrupted = paths.read_result()?.is_some_and(|r| r.outcome == RunOutcome::Interrupted);
            let text = if interrupted { read_if_present(&self.host, &paths.ended_record())? } else { None };
            if let Some(Ok(record)) = text.as_deref().map(RunRecord::from_wire) {
                for cause in record.causes {
                    *interruptions.entry(cause.event.id).or_default() += 1;
                }
            }
        }
        Ok(interruptions)
    }

    /// Notes for the history how many superseded events the causes of `run` stand for.
    ///
    /// # Errors
    /// A [`FileError`] if the file cannot be written.
    pub fn note_superseded(&self, run: RunId, count: usize) -> Result<(), FileError> {
        let path = self.paths(run).superseded();
        write(&self.host, &path, format!("{count}\n").as_bytes()).map_err(at("write", &path))
    }

    /// Notes for the history an event that was fired inside `run`.
    ///
    /// # Errors
    /// A [`FileError`] if the file cannot be written.
    pub fn note_fired(&self, run: RunId, fired: &FiredEvent) -> Result<(), FileError> {
        let path = self.paths(run).fired();
        let file = open(&self.host, &path, Open::Append);
        let line = format!("{}\n", fired.to_wire());
        file.and_then(|mut file| file.write_all(line.as_bytes())).map_err(at("append to", &path))
    }

    /// Returns the events that were fired inside `run` so far, in that order.
    ///
    /// # Errors
    /// A [`FileError`] if the file exists and cannot be read.
    pub fn fired(&self, run: RunId) -> Result<Vec<FiredEvent>, FileError> {
        let lines = read_if_present(&self.host, &self.paths(run).fired())?.unwrap_or_default();
        Ok(lines.lines().filter_map(|line| FiredEvent::from_wire(line).ok()).collect())
    }

    /// Returns the runs that have a file with this suffix, oldest first.
    fn ids(&self, suffix: &str) -> Result<Vec<RunId>, FileError> {
        let mut ids = Vec::new();
        for path in list(&self.host, &self.dir)? {
            let name = path.file_name().and_then(|name| name.to_str());
            let stem = name.and_then(|name| name.strip_suffix(suffix));
            ids.extend(stem.and_then(|stem| stem.parse::<RunId>().ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }
}

#[cfg(test)]
mod tests;
