//! Records, output and results of runs.
//!
//! ```text
//! <run_id>.json            the record: what the run covers; locked while the run lives; blank until it begins
//! <run_id>.ended.json      the record of a run whose outcome is stored
//! <run_id>.result.json     how it ended
//! <run_id>.log             what it printed, bounded; locked while anything of the run writes to it
//! <run_id>.leader          its first process, for whoever may have to end it when its supervisor is dead
//! <run_id>.report.yaml     the report of a `puppet apply`, until the outcome is stored
//! <run_id>.superseded      how many events of a backlog its causes stand for, if any
//! <run_id>.fired           the events fired inside it, suppressed ones too, a line each
//! closed                   the runs whose outcome is stored, in the order in which that happened
//! ```

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use trigger_core::identity::{EventId, RunId};
use trigger_core::run::history::{FiredEvent, PastRun, RunHistory};
use trigger_core::run::record::RunRecord;
use trigger_core::run::{RunOutcome, RunResult};
use trigger_core::time::Timestamp;
use trigger_core::wire::Stored;

use super::durable::{appended, rename_durably, sync_dir, write_synced};
use super::{FileError, StateDir, at, read_if_present, write_durably};
use crate::host::{Host, HostFile, Open};
use crate::os::Os;

/// Ended runs whose records and output are kept.
const KEPT_RUNS: usize = 100;
/// The list of the runs that are kept, and how it is called until it is whole.
const CLOSED: &str = "closed";
const CLOSED_TEMPORARY: &str = "closed.tmp";
/// How often a run whose supervisor died is looked at.
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
    /// The files beside this record.
    pub fn beside(host: H, record: &Path) -> Self {
        Self { host, stem: record.with_extension("") }
    }

    fn with(&self, suffix: &str) -> PathBuf {
        appended(&self.stem, suffix)
    }

    pub fn record(&self) -> PathBuf {
        self.with(".json")
    }

    fn ended_record(&self) -> PathBuf {
        self.with(".ended.json")
    }

    pub fn output(&self) -> PathBuf {
        self.with(".log")
    }

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

    /// How the run ended, if that is known. A result that cannot be read counts as none.
    pub fn read_result(&self) -> Result<Option<RunResult>, FileError> {
        let text = read_if_present(&self.host, &self.result())?;
        Ok(text.and_then(|text| RunResult::from_wire(&text).ok()))
    }

    /// The same, durable from here on: a supervisor that was killed while it wrote may have left a result that
    /// a power cut takes away again, and what follows from it would stay.
    pub fn read_durable_result(&self) -> Result<Option<RunResult>, FileError> {
        let result = self.read_result()?;
        if let (Some(_), Some(dir)) = (&result, self.stem.parent()) {
            sync_dir(&self.host, dir)?;
        }
        Ok(result)
    }

    pub fn write_result(&self, result: &RunResult) -> Result<(), FileError> {
        write_durably(&self.host, &self.result(), result.to_wire().as_bytes())
    }

    /// Notes the run's first process, as the supervisor knows it again.
    pub fn note_leader(&self, note: &str) -> Result<(), FileError> {
        let path = self.leader();
        self.host.write(&path, note.as_bytes()).map_err(at("write", &path))
    }

    /// Returns once the run has ended. That is when nobody holds the record's lock; where the supervisor
    /// died before its run, when nobody writes to the output any more either, at the latest after `patience`
    /// (a daemon that a run started may hold on to the output for ever). What is left of the run then is
    /// ended, or the next one would run beside it.
    pub fn wait_for_end(
        self,
        patience: Duration,
    ) -> impl Future<Output = Result<Option<RunResult>, FileError>> + Send + use<H> {
        // Begins to wait now.
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

    /// Whether nobody writes to the output any more before `patience` is over.
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

    /// Whether the supervisor lives, or the run it left behind.
    fn is_alive(&self) -> Result<bool, FileError> {
        let is_locked = |path: &Path| is_locked(&self.host, path);
        Ok(is_locked(&self.record())? || (self.read_result()?.is_none() && is_locked(&self.output())?))
    }
}

/// Whether another process holds the file's lock; nobody holds that of a file that is not there.
fn is_locked<H: Host>(host: &H, path: &Path) -> Result<bool, FileError> {
    let file = match host.open(path, Open::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(at("open", path)(error)),
    };
    file.try_lock_shared().map(|taken| !taken).map_err(at("lock", path))
}

/// An agent that was killed between writing a record and syncing it leaves one that a power cut takes away, and
/// what follows from it would stay: its causes count as covered, and are deleted without an outcome.
fn make_durable<H: Host>(host: &H, record: &Path) -> Result<(), FileError> {
    host.open(record, Open::Read).and_then(|file| file.sync_data()).map_err(at("sync", record))?;
    record.parent().map_or(Ok(()), |dir| sync_dir(host, dir))
}

/// A run about to start: its record is durable and locked. Handing `lock` to the supervisor as its
/// standard input hands over the lock, so that there is no moment in which nobody holds it.
#[derive(Debug)]
pub struct NewRun<H: Host = Os> {
    pub paths: RunPaths<H>,
    pub lock: H::File,
}

/// The file of the next run's record, made ahead: blanks under the final name, durable and locked. To fill
/// it is one write to the disk; a new file would wait for a commit of the file system's journal, together
/// with all that anybody else wrote. Blanks at the end do not matter to JSON, nor a blank file to anybody:
/// no run begins before its record is whole and synced.
#[derive(Debug)]
pub struct PreallocatedRecord<H: Host = Os> {
    pub run: RunId,
    file: H::File,
}

/// A run whose outcome is not stored yet.
#[derive(Debug)]
pub struct OpenRun {
    pub record: RunRecord,
    pub is_alive: bool,
}

impl<H: Host> Runs<H> {
    pub fn open(state: &StateDir<H>) -> Result<Self, FileError> {
        let dir = state.file("runs");
        state.create_private_dir(&dir)?;
        Ok(Self { host: state.host().clone(), dir })
    }

    pub fn paths(&self, run: RunId) -> RunPaths<H> {
        RunPaths { host: self.host.clone(), stem: self.dir.join(run.to_string()) }
    }

    /// Makes the next record's file while nothing waits for it.
    pub fn prepare(&self, run: RunId) -> Result<PreallocatedRecord<H>, FileError> {
        let path = self.paths(run).record();
        let made = write_synced(&self.host, &path, &vec![b' '; H::PREALLOCATED_BYTES], true)
            .and_then(|file| sync_dir(&self.host, &self.dir).map(|()| PreallocatedRecord { run, file }));
        made.inspect_err(|_| drop(self.host.remove_file(&path)))
    }

    /// Writes the record, into its own `blank` if there is one: from here on the run covers its causes.
    pub fn create(
        &self,
        record: &RunRecord,
        blank: Option<PreallocatedRecord<H>>,
    ) -> Result<NewRun<H>, FileError> {
        let paths = self.paths(record.run_id);
        let text = record.to_wire();
        let lock = match blank
            .filter(|blank| blank.run == record.run_id && text.len() <= H::PREALLOCATED_BYTES)
        {
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
                // Made ahead by an agent that ended before it was needed.
                let _ = self.host.remove_file(&paths.record());
                continue;
            }
            match RunRecord::from_wire(&text) {
                Ok(record) => {
                    make_durable(&self.host, &paths.record())?;
                    runs.push(OpenRun { record, is_alive: paths.is_alive()? });
                }
                Err(error) if is_locked(&self.host, &paths.record())? => {
                    // A newer version started it. Waiting for its end is a matter for whoever starts us again.
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

    /// The record of a run that is in progress now; nothing for any other id, whoever names it.
    pub fn live_record(&self, run: RunId) -> Result<Option<RunRecord>, FileError> {
        let paths = self.paths(run);
        let Some(text) = read_if_present(&self.host, &paths.record())? else { return Ok(None) };
        // A blank one was made ahead, and its agent holds the lock.
        if text.trim().is_empty() || !paths.is_alive()? {
            return Ok(None);
        }
        let unreadable = |error| at("understand", &paths.record())(std::io::Error::other(error));
        RunRecord::from_wire(&text).map(Some).map_err(unreadable)
    }

    /// Closes a run whose outcome is stored, and forgets those that were closed first, beyond those kept.
    pub fn close(&self, run: RunId) -> Result<(), FileError> {
        let paths = self.paths(run);
        let mut closed = self.closed()?;
        closed.retain(|id| *id != run);
        closed.push(run);
        let kept = closed.split_off(closed.len().saturating_sub(KEPT_RUNS));
        // Before the record is closed: one that is not listed counts as closed long ago. A full disk, which
        // costs no more than that, must not keep a run open whose outcome is stored.
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

    /// The record last: what has none is found by nobody.
    fn forget(&self, run: RunId) {
        let paths = self.paths(run);
        let results = [paths.result(), paths.output(), paths.report(), paths.leader()];
        let notes = [paths.fired(), paths.superseded()];
        for path in results.into_iter().chain(notes).chain([paths.ended_record()]) {
            let _ = self.host.remove_file(&path);
        }
    }

    /// The runs whose outcome is stored, in the order in which that happened. Their ids would put them in the
    /// order of the wall clock: when one that was ahead is set back, each new run would count as the oldest, and
    /// be forgotten with its output as soon as it was closed.
    fn closed(&self) -> Result<Vec<RunId>, FileError> {
        let listed = read_if_present(&self.host, &self.dir.join(CLOSED))?.unwrap_or_default();
        let listed = listed.lines().filter_map(|line| line.parse::<RunId>().ok()).enumerate();
        let places: HashMap<RunId, usize> = listed.map(|(place, id)| (id, place)).collect();
        let mut closed = self.ids(".ended.json")?;
        // Those of earlier versions are listed nowhere: the oldest, by their ids.
        closed.sort_by_key(|id| places.get(id).map(|place| place + 1));
        Ok(closed)
    }

    /// Not synced: a list that a power cut has taken back or away costs at most the order.
    fn write_closed(&self, closed: &[RunId]) -> Result<(), FileError> {
        let (path, temporary) = (self.dir.join(CLOSED), self.dir.join(CLOSED_TEMPORARY));
        let lines: String = closed.iter().map(|id| format!("{id}\n")).collect();
        let written = self.host.write(&temporary, lines.as_bytes()).map_err(at("write", &temporary));
        written
            .and_then(|()| self.host.rename(&temporary, &path).map_err(at("move a file to", &path)))
            .inspect_err(|_| drop(self.host.remove_file(&temporary)))
    }

    /// The runs that are kept and whose end is known, in the order of their closing: what they covered tells
    /// how an event ended whose outcome the backend has lost.
    pub fn completed_runs(&self) -> Result<Vec<(RunRecord, RunResult)>, FileError> {
        let mut runs = Vec::new();
        for id in self.closed()? {
            runs.extend(self.ended_run(id)?);
        }
        Ok(runs)
    }

    /// A run that ended, if its record and its result can be read.
    fn ended_run(&self, id: RunId) -> Result<Option<(RunRecord, RunResult)>, FileError> {
        let paths = self.paths(id);
        let record = read_if_present(&self.host, &paths.ended_record())?;
        let record = record.and_then(|text| RunRecord::from_wire(&text).ok());
        Ok(record.zip(paths.read_result()?))
    }

    /// What this node tells of its latest runs whose outcome is stored, as far as they are kept.
    pub fn history(&self) -> Result<RunHistory, FileError> {
        let mut history = RunHistory::default();
        for id in self.closed()? {
            if let Some(past) = self.past_run(id)? {
                history.push(past);
            }
        }
        Ok(history)
    }

    /// What is told of a run that has ended; nothing where its record or its result cannot be read.
    pub fn past_run(&self, run: RunId) -> Result<Option<PastRun>, FileError> {
        let paths = self.paths(run);
        let text = match read_if_present(&self.host, &paths.record())? {
            Some(text) => Some(text),
            None => read_if_present(&self.host, &paths.ended_record())?,
        };
        let Some(Ok(record)) = text.as_deref().map(RunRecord::from_wire) else { return Ok(None) };
        let Some(result) = paths.read_result()? else { return Ok(None) };
        let fired = self.fired(run)?;
        let superseded = read_if_present(&self.host, &paths.superseded())?;
        let superseded = superseded.and_then(|count| count.trim().parse().ok()).unwrap_or_default();
        Ok(Some(PastRun::of(&record, result, superseded, fired)))
    }

    /// When the runs that are kept and ended were started, by the clock of that moment. More are kept than can
    /// start within a minute.
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

    /// How the latest run ended whose outcome is stored.
    pub fn latest_result(&self) -> Result<Option<RunResult>, FileError> {
        self.closed()?.last().map_or(Ok(None), |id| self.paths(*id).read_result())
    }

    /// How many interrupted runs covered each event, among the runs that are kept.
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

    /// Notes how many events of a backlog the causes of `run` stand for, for what is told of it.
    pub fn note_superseded(&self, run: RunId, count: usize) -> Result<(), FileError> {
        let path = self.paths(run).superseded();
        self.host.write(&path, format!("{count}\n").as_bytes()).map_err(at("write", &path))
    }

    /// Notes an event that was fired inside `run`, for what is told of it.
    pub fn note_fired(&self, run: RunId, fired: &FiredEvent) -> Result<(), FileError> {
        let path = self.paths(run).fired();
        let file = self.host.open(&path, Open::Append);
        let line = format!("{}\n", fired.to_wire());
        file.and_then(|mut file| file.write_all(line.as_bytes())).map_err(at("append to", &path))
    }

    /// What was fired inside `run` so far.
    pub fn fired(&self, run: RunId) -> Result<Vec<FiredEvent>, FileError> {
        let lines = read_if_present(&self.host, &self.paths(run).fired())?.unwrap_or_default();
        Ok(lines.lines().filter_map(|line| FiredEvent::from_wire(line).ok()).collect())
    }

    /// The runs that have a file with this ending, oldest first.
    fn ids(&self, suffix: &str) -> Result<Vec<RunId>, FileError> {
        let mut ids = Vec::new();
        for path in self.host.list(&self.dir).map_err(at("list", &self.dir))? {
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
