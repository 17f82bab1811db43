//! The one writer: a thread that owns the database's only writing connection. Writes that wait while one is
//! being synced to disk share the next transaction, so that the disk's pace bounds commits and not writers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};
use trigger_core::identity::Revision;
use trigger_store::detail::Detail;
use trigger_store::store::StoreError;

use super::database::{self, DataDirLock, Loss, Place};
use super::error::SqliteError;
use super::loss_mark;
use super::metrics::Metrics;
use super::transaction::{Batch, Write, Written, changes};
use crate::watchers::Watchers;

/// How many requests may wait for the writer; more wait in their own connections.
const MAX_QUEUED_WRITES: usize = 1024;
/// The size in bytes of keys and values after which a transaction takes no further request, so that its first request
/// does not wait long for its last.
const MAX_TRANSACTION_BYTES: usize = 4 * 1024 * 1024;

/// The time to wait for more requests after a transaction that several of them shared. Where many come, this makes fewer
/// transactions of them, each of which costs a sync of the disk, pages that readers have to read again, and a pass through the
/// watches; where one comes at a time, nothing waits.
const GATHERING_TIME: Duration = Duration::from_millis(5);

/// With less free space than this the disk counts as full, although SQLite may still find room in its log.
const MIN_FREE_BYTES: u64 = 64 * 1024;

/// A write failed, and nothing was written.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum WriteError {
    #[error("the disk of the hub's data directory {} is full: nothing was stored; free some space there and try again", .0.display())]
    DiskFull(PathBuf),
    #[error("the hub could not write to {}: {source}", path.display())]
    Failed { path: PathBuf, source: Arc<rusqlite::Error> },
    #[error("{} was removed or replaced while the hub used it: nothing was stored, and the hub stops", .0.display())]
    Gone(PathBuf),
    #[error(
        "{} was removed or replaced while the hub used it: nothing was stored, and the hub stops; it can be started again",
        .0.display()
    )]
    LockGone(PathBuf),
    #[error("the hub is stopping")]
    Stopped,
}

impl WriteError {
    /// Converts it to an error of the store at `backend`.
    pub(super) fn of(&self, backend: &str) -> StoreError {
        let (backend, detail) = (backend.to_owned(), Detail::new(self.to_string(), self.clone()));
        match self {
            Self::DiskFull(_) => StoreError::Full { backend, detail },
            Self::Failed { .. } | Self::Gone(_) | Self::LockGone(_) | Self::Stopped => {
                StoreError::Unreachable { backend, detail }
            }
        }
    }
}

/// A handle to the writer.
#[derive(Debug, Clone)]
pub(super) struct WriterHandle {
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
enum Request {
    Write(WriteJob),
    /// Ends the writer, although there are handles left.
    Close,
}

#[derive(Debug)]
struct WriteJob {
    write: Write,
    answer: oneshot::Sender<Result<Written, WriteError>>,
}

impl WriterHandle {
    /// Performs a write, which is durable when this returns.
    pub(super) async fn write(&self, write: Write) -> Result<Written, WriteError> {
        let (answer, answered) = oneshot::channel();
        let job = Request::Write(WriteJob { write, answer });
        self.requests.send(job).await.map_err(|_| WriteError::Stopped)?;
        answered.await.map_err(|_| WriteError::Stopped)?
    }

    /// Lets the writer end after the writes that wait already. Later ones fail.
    pub(super) async fn close(&self) {
        let _ = self.requests.send(Request::Close).await;
    }
}

/// Takes the data directory, opens the database and starts the thread. It ends, and sends the second value,
/// when the last handle is gone.
pub(super) fn start(
    data_dir: &Path,
    watchers: Arc<Watchers>,
    metrics: Arc<Metrics>,
) -> Result<(WriterHandle, oneshot::Receiver<()>), SqliteError> {
    loss_mark::check(data_dir)?;
    let mut lock = database::lock_data_dir(data_dir)?;
    lock.check_database()?;
    let path = database::file(data_dir);
    let connection = database::open_writer(&path)?;
    lock.note_database();
    loss_mark::remove(data_dir);
    let writer = Writer::open(connection, data_dir.to_owned(), watchers, metrics)
        .map_err(|source| SqliteError::Database { path, source })?;
    let (sender, requests) = mpsc::channel(MAX_QUEUED_WRITES);
    let (ended, has_ended) = oneshot::channel();
    thread::Builder::new()
        .name("hub-writer".to_owned())
        .spawn(move || write_all(writer, requests, lock, ended))
        .map_err(|source| SqliteError::Thread { name: "writer", source })?;
    Ok((WriterHandle { requests: sender }, has_ended))
}

fn write_all(
    mut writer: Writer,
    mut requests: mpsc::Receiver<Request>,
    lock: DataDirLock,
    ended: oneshot::Sender<()>,
) {
    let mut is_open = true;
    while is_open {
        let mut next = requests.blocking_recv().unwrap_or(Request::Close);
        let (mut batch, mut bytes) = (Vec::new(), 0);
        loop {
            match next {
                // A caller that has given up on a probe asks again, and a disk that hangs gets no queue of them.
                Request::Write(job) if matches!(job.write, Write::Probe) && job.answer.is_closed() => {}
                Request::Write(job) => {
                    bytes += job.write.size();
                    batch.push(job);
                }
                Request::Close => {
                    is_open = false;
                    break;
                }
            }
            if bytes >= MAX_TRANSACTION_BYTES || batch.len() >= MAX_QUEUED_WRITES {
                break;
            }
            let Ok(more) = requests.try_recv() else { break };
            next = more;
        }
        let is_shared = batch.len() > 1;
        if !batch.is_empty() {
            writer.commit(batch);
        }
        if is_shared && is_open {
            thread::sleep(GATHERING_TIME);
        }
    }
    // Writes that come too late are refused at once, and not when the last handle is gone.
    drop(requests);
    // The database is closed before the directory is unlocked.
    writer.close();
    drop(lock);
    let _ = ended.send(());
}

struct Writer {
    connection: Connection,
    data_dir: PathBuf,
    /// The next revision. One that a failed transaction used is not used again.
    next: Revision,
    entries: i64,
    watchers: Arc<Watchers>,
    metrics: Arc<Metrics>,
    /// Whether the last transaction failed, so that a full disk is logged once and not per request.
    failing: bool,
    place: Place,
    /// What was found missing. The hub stops then, also if another file has taken its place meanwhile.
    loss: Option<Loss>,
}

impl Writer {
    fn open(
        connection: Connection,
        data_dir: PathBuf,
        watchers: Arc<Watchers>,
        metrics: Arc<Metrics>,
    ) -> rusqlite::Result<Self> {
        let last: i64 = connection.query_row("SELECT revision FROM position", (), |row| row.get(0))?;
        let entries = connection.query_row("SELECT count(*) FROM entries", (), |row| row.get(0))?;
        let next = Revision(first_revision(last.cast_unsigned(), SystemTime::now()));
        metrics.stored(entries, next.0 - 1);
        let place = Place::of(&data_dir);
        Ok(Self { connection, data_dir, next, entries, watchers, metrics, failing: false, place, loss: None })
    }

    /// Closes the database, complete in its one file unless that file is gone.
    fn close(self) {
        match self.place.loss() {
            None | Some(Loss::Lock(_)) => {
                database::close_writer(self.connection, &database::file(&self.data_dir));
            }
            Some(Loss::Data(path)) => {
                tracing::error!(path = %path.display(), "the hub's data are lost: this file is gone");
            }
        }
    }

    /// Checks that what is written now can be found again, by this hub alone.
    fn check_place(&mut self) -> Result<(), WriteError> {
        // What has removed the lock may remove the data next.
        if !matches!(self.loss, Some(Loss::Data(_))) {
            self.loss = self.place.loss().or(self.loss.take());
        }
        match self.loss.clone() {
            None => Ok(()),
            Some(Loss::Data(path)) => Err(WriteError::Gone(path)),
            Some(Loss::Lock(path)) => Err(WriteError::LockGone(path)),
        }
    }

    /// Checks that the disk has some room, for a write that succeeds because it needs none.
    fn check_room(&self) -> Result<(), WriteError> {
        let Ok(disk) = rustix::fs::statvfs(&self.data_dir) else { return Ok(()) };
        let blocks = if rustix::process::geteuid().is_root() { disk.f_bfree } else { disk.f_bavail };
        // File systems that do not count their blocks report none at all.
        let is_full = disk.f_blocks > 0 && blocks.saturating_mul(disk.f_frsize) < MIN_FREE_BYTES;
        if is_full { Err(WriteError::DiskFull(self.data_dir.clone())) } else { Ok(()) }
    }

    /// Writes a batch in one transaction and answers each request. A batch that fails is tried request by
    /// request, so that one which cannot succeed takes no others with it.
    fn commit(&mut self, batch: Vec<WriteJob>) {
        let started = Instant::now();
        if let Err(error) = self.check_place() {
            self.metrics.commit_failed();
            self.note_failure(&error);
            for job in batch {
                let _ = job.answer.send(Err(error.clone()));
            }
            return;
        }
        match self.transact(&batch) {
            Ok(written) => {
                if written.iter().any(Written::changed) {
                    self.metrics.committed(started.elapsed());
                }
                let is_probed = written.iter().any(|written| matches!(written, Written::Probe));
                let room = if is_probed { self.check_room() } else { Ok(()) };
                if written.iter().any(Written::changed) || (is_probed && room.is_ok()) {
                    self.recovered();
                }
                let (writes, answers): (Vec<_>, Vec<_>) =
                    batch.into_iter().map(|request| (request.write, request.answer)).unzip();
                self.watchers.publish(writes.into_iter().zip(&written).flat_map(changes));
                for (answer, written) in answers.into_iter().zip(written) {
                    let answered = match written {
                        Written::Probe => room.clone().map(|()| written),
                        written => Ok(written),
                    };
                    // The caller may have gone; the write is stored all the same.
                    let _ = answer.send(answered);
                }
            }
            Err(_) if batch.len() > 1 => batch.into_iter().for_each(|request| self.commit(vec![request])),
            Err(error) => {
                self.metrics.commit_failed();
                let error = self.failed(error);
                for request in batch {
                    let _ = request.answer.send(Err(error.clone()));
                }
            }
        }
    }

    fn transact(&mut self, batch: &[WriteJob]) -> rusqlite::Result<Vec<Written>> {
        let mut transaction = Batch::begin(&mut self.connection, &mut self.next, self.entries)?;
        let written =
            batch.iter().map(|request| transaction.write(&request.write)).collect::<rusqlite::Result<_>>()?;
        self.entries = transaction.commit()?;
        self.metrics.stored(self.entries, self.next.0 - 1);
        Ok(written)
    }

    fn failed(&mut self, error: rusqlite::Error) -> WriteError {
        let full = error.sqlite_error_code() == Some(ErrorCode::DiskFull);
        let path = self.data_dir.clone();
        let error = if full {
            WriteError::DiskFull(path)
        } else {
            WriteError::Failed { path, source: Arc::new(error) }
        };
        self.note_failure(&error);
        error
    }

    fn note_failure(&mut self, error: &WriteError) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(%error, "a write failed");
        }
    }

    fn recovered(&mut self) {
        if std::mem::replace(&mut self.failing, false) {
            tracing::info!("the hub can write again");
        }
    }
}

/// Returns the first revision of a hub that starts: after every revision in its database, and after every revision
/// that it can have given out before it was restored from an older backup, as long as it made fewer than a million
/// changes in each second of its life.
fn first_revision(last: u64, now: SystemTime) -> u64 {
    let micros = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    (last + 1).max(u64::try_from(micros).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Refusal;

    fn writer(data_dir: &Path) -> Writer {
        let connection = database::open_writer(&database::file(data_dir)).unwrap();
        let (watchers, metrics) = (Arc::default(), Arc::new(Metrics::new()));
        Writer::open(connection, data_dir.to_owned(), watchers, metrics).unwrap()
    }

    /// Commits all writes in one batch and returns the answer to each, abbreviated.
    fn commit(writer: &mut Writer, writes: Vec<Write>) -> Vec<String> {
        let (batch, answers): (Vec<_>, Vec<_>) = writes
            .into_iter()
            .map(|write| {
                let (answer, answered) = oneshot::channel();
                (WriteJob { write, answer }, answered)
            })
            .unzip();
        writer.commit(batch);
        let brief =
            |mut answered: oneshot::Receiver<Result<Written, WriteError>>| match answered.try_recv().unwrap()
            {
                Ok(_) => "ok".to_owned(),
                Err(error) => Refusal::from(error.of("sqlite:")).status.to_string(),
            };
        answers.into_iter().map(brief).collect()
    }

    fn put(key: &str, bytes: usize) -> Write {
        Write::Replace { keys: Vec::new(), entries: vec![(key.to_owned(), "x".repeat(bytes))] }
    }

    #[test]
    fn a_full_disk_refuses_what_does_not_fit_and_the_hub_lives_on() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path());
        let limit = |writer: &Writer, pages: i64| {
            writer.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
        };
        limit(&writer, 50);
        let batch = vec![put("/a", 10), put("/large", 1_000_000), put("/b", 10)];
        let before = writer.next;
        assert_eq!(commit(&mut writer, batch), ["ok", "507 Insufficient Storage", "ok"]);
        assert!(writer.next > before);
        assert_eq!(writer.entries, 2, "what failed is not counted");
        assert_eq!(commit(&mut writer, vec![Write::Delete(vec!["/a".to_owned()])]), ["ok"]);
        limit(&writer, 5000);
        assert_eq!(commit(&mut writer, vec![put("/large", 1_000_000)]), ["ok"]);
    }

    #[test]
    fn a_full_disk_is_reported_in_a_sentence() {
        let full = Refusal::from(WriteError::DiskFull("/var/lib/trigger/hub".into()).of("sqlite:"));
        assert_eq!(
            full.sentence,
            "the disk of the hub's data directory /var/lib/trigger/hub is full: nothing was stored; \
             free some space there and try again"
        );
    }

    #[test]
    fn a_batch_is_in_the_order_of_its_requests() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path());
        let swap = |expected| Write::CompareAndSwap { key: "/a".to_owned(), value: "s".to_owned(), expected };
        let first = writer.next;
        let batch = vec![put("/a", 1), swap(Some(first)), Write::Delete(vec!["/a".to_owned()]), swap(None)];
        assert_eq!(commit(&mut writer, batch), ["ok"; 4]);
        assert_eq!(writer.next, Revision(first.0 + 4), "each saw what the one before had written");
    }

    #[test]
    fn revisions_never_rewind() {
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        assert_eq!(first_revision(0, now), 1_800_000_000_000_000, "a new hub");
        assert_eq!(first_revision(7, now), 1_800_000_000_000_000, "one restored from a backup");
        assert_eq!(first_revision(1_900_000_000_000_000, now), 1_900_000_000_000_001, "a clock set back");
        assert_eq!(first_revision(7, UNIX_EPOCH - Duration::from_secs(1)), 8, "a clock before its epoch");
    }
}
