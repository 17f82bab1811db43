//! The one writer: a thread that owns the database's only writing connection. Writes that wait while one is
//! being synced to disk share the next transaction, so that the disk's pace bounds commits and not writers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use trigger_core::identity::Revision;
use trigger_store::store::{CasOutcome, Change, Entry};

use super::HubError;
use super::database::{self, DataDirLock};
use super::metrics::Metrics;
use super::watchers::Watchers;

/// Requests that may wait for the writer; more wait in their own connections.
const QUEUE: usize = 1024;
/// A transaction takes no further request once it holds this many bytes of keys and values, so that the
/// first in it need not wait long for the last.
const TRANSACTION_BYTES: usize = 4 * 1024 * 1024;

/// Something to write.
#[derive(Debug)]
pub(super) enum Write {
    /// Keys and values.
    Put(Vec<(String, String)>),
    /// Keys.
    Delete(Vec<String>),
    /// A key, if its revision is still `expected`.
    CasOutcome { key: String, value: String, expected: Option<Revision> },
    /// Nothing: asks whether the writer is alive.
    Nothing,
}

/// What came of it. The variants are those of [`Write`].
#[derive(Debug)]
pub(super) enum Written {
    Put(Vec<Revision>),
    /// The revision of each key's deletion; nothing for keys that were absent.
    Delete(Vec<Option<Revision>>),
    CasOutcome(CasOutcome),
    Nothing,
}

impl Written {
    /// Whether anything was stored: if not, the disk was not asked.
    fn changed(&self) -> bool {
        match self {
            Self::Put(revisions) => !revisions.is_empty(),
            Self::Delete(revisions) => revisions.iter().any(Option::is_some),
            Self::CasOutcome(swap) => matches!(swap, CasOutcome::Written(_)),
            Self::Nothing => false,
        }
    }
}

/// Why nothing was written.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum WriteError {
    #[error("the disk of the hub's data directory {} is full: nothing was stored; free some space there and try again", .0.display())]
    DiskFull(PathBuf),
    #[error("the hub could not write to {}: {detail}", path.display())]
    Failed { path: PathBuf, detail: String },
    #[error("the hub is stopping")]
    Stopped,
}

/// The way to the writer.
#[derive(Debug, Clone)]
pub(super) struct WriterHandle {
    requests: mpsc::Sender<WriteJob>,
}

#[derive(Debug)]
struct WriteJob {
    write: Write,
    answer: oneshot::Sender<Result<Written, WriteError>>,
}

impl WriterHandle {
    /// Writes; durable when it returns.
    pub(super) async fn write(&self, write: Write) -> Result<Written, WriteError> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(WriteJob { write, answer }).await.map_err(|_| WriteError::Stopped)?;
        answered.await.map_err(|_| WriteError::Stopped)?
    }
}

/// Takes the data directory, opens the database and starts the thread. It ends, and sends the second value,
/// when the last handle is gone.
pub(super) fn start(
    data_dir: &Path,
    watchers: Arc<Watchers>,
    metrics: Arc<Metrics>,
) -> Result<(WriterHandle, oneshot::Receiver<()>), HubError> {
    let lock = database::lock_data_dir(data_dir)?;
    let path = database::file(data_dir);
    let connection = database::open_writer(&path)?;
    let writer = Writer::open(connection, data_dir.to_owned(), watchers, metrics)
        .map_err(|source| HubError::Database { path, source })?;
    let (sender, requests) = mpsc::channel(QUEUE);
    let (ended, has_ended) = oneshot::channel();
    thread::Builder::new()
        .name("hub-writer".to_owned())
        .spawn(move || write_all(writer, requests, lock, ended))
        .map_err(|source| HubError::Thread { what: "writer", source })?;
    Ok((WriterHandle { requests: sender }, has_ended))
}

fn write_all(
    mut writer: Writer,
    mut requests: mpsc::Receiver<WriteJob>,
    lock: DataDirLock,
    ended: oneshot::Sender<()>,
) {
    while let Some(first) = requests.blocking_recv() {
        let mut bytes = size(&first.write);
        let mut batch = vec![first];
        while bytes < TRANSACTION_BYTES && batch.len() < QUEUE {
            let Ok(next) = requests.try_recv() else { break };
            bytes += size(&next.write);
            batch.push(next);
        }
        writer.commit(batch);
    }
    // The database is closed before the directory is given up.
    drop(writer);
    drop(lock);
    let _ = ended.send(());
}

fn size(write: &Write) -> usize {
    match write {
        Write::Put(entries) => entries.iter().map(|(key, value)| key.len() + value.len()).sum(),
        Write::Delete(keys) => keys.iter().map(String::len).sum(),
        Write::CasOutcome { key, value, .. } => key.len() + value.len(),
        Write::Nothing => 0,
    }
}

struct Writer {
    connection: Connection,
    data_dir: PathBuf,
    /// The next to give out. One that a failed transaction used is not used again.
    next: Revision,
    entries: i64,
    watchers: Arc<Watchers>,
    metrics: Arc<Metrics>,
    /// Whether the last transaction failed, so that a full disk is logged once and not per request.
    failing: bool,
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
        Ok(Self { connection, data_dir, next, entries, watchers, metrics, failing: false })
    }

    /// Writes a batch in one transaction and answers each request. A batch that fails is tried request by
    /// request, so that one which cannot succeed takes no others with it.
    fn commit(&mut self, batch: Vec<WriteJob>) {
        let started = Instant::now();
        match self.transact(&batch) {
            Ok(written) => {
                if written.iter().any(Written::changed) {
                    self.metrics.committed(started.elapsed());
                    self.recovered();
                }
                let (writes, answers): (Vec<_>, Vec<_>) =
                    batch.into_iter().map(|request| (request.write, request.answer)).unzip();
                self.watchers.publish(writes.into_iter().zip(&written).flat_map(changes));
                for (answer, written) in answers.into_iter().zip(written) {
                    // The one who asked may have gone; it is stored all the same.
                    let _ = answer.send(Ok(written));
                }
            }
            Err(_) if batch.len() > 1 => batch.into_iter().for_each(|request| self.commit(vec![request])),
            Err(error) => {
                self.metrics.commit_failed();
                let error = self.failed(&error);
                for request in batch {
                    let _ = request.answer.send(Err(error.clone()));
                }
            }
        }
    }

    fn transact(&mut self, batch: &[WriteJob]) -> rusqlite::Result<Vec<Written>> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut round = Round { transaction, next: &mut self.next, entries: self.entries };
        let first = *round.next;
        let written =
            batch.iter().map(|request| round.write(&request.write)).collect::<rusqlite::Result<_>>()?;
        let Round { transaction, next, entries } = round;
        let last = Revision(next.0 - 1);
        if *next > first {
            transaction
                .prepare_cached("UPDATE position SET revision = ?1")?
                .execute([last.0.cast_signed()])?;
            transaction.commit()?;
        }
        self.entries = entries;
        self.metrics.stored(entries, last.0);
        Ok(written)
    }

    fn failed(&mut self, error: &rusqlite::Error) -> WriteError {
        let full = error.sqlite_error_code() == Some(ErrorCode::DiskFull);
        let path = self.data_dir.clone();
        let sentence = if full {
            WriteError::DiskFull(path)
        } else {
            WriteError::Failed { path, detail: error.to_string() }
        };
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!("{sentence}");
        }
        sentence
    }

    fn recovered(&mut self) {
        if std::mem::replace(&mut self.failing, false) {
            tracing::info!("the hub can write again");
        }
    }
}

/// Where a hub begins to count: after all it knows, and after all that a hub which was later restored from
/// an older backup can have given out, unless that made more than a million changes each second of its life.
fn first_revision(last: u64, now: SystemTime) -> u64 {
    let micros = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    (last + 1).max(u64::try_from(micros).unwrap_or(0))
}

/// A transaction being filled.
struct Round<'a> {
    transaction: Transaction<'a>,
    next: &'a mut Revision,
    entries: i64,
}

impl Round<'_> {
    fn write(&mut self, write: &Write) -> rusqlite::Result<Written> {
        Ok(match write {
            Write::Put(entries) => Written::Put(
                entries.iter().map(|(key, value)| self.put(key, value)).collect::<rusqlite::Result<_>>()?,
            ),
            Write::Delete(keys) => {
                Written::Delete(keys.iter().map(|key| self.delete(key)).collect::<rusqlite::Result<_>>()?)
            }
            Write::CasOutcome { key, value, expected } => {
                Written::CasOutcome(self.swap(key, value, *expected)?)
            }
            Write::Nothing => Written::Nothing,
        })
    }

    fn revision(&mut self) -> Revision {
        let revision = *self.next;
        self.next.0 += 1;
        revision
    }

    fn put(&mut self, key: &str, value: &str) -> rusqlite::Result<Revision> {
        let revision = self.revision();
        let row = (key, value, revision.0.cast_signed());
        let inserted = self
            .transaction
            .prepare_cached("INSERT INTO entries VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
            .execute(row)?;
        if inserted == 0 {
            self.transaction
                .prepare_cached("UPDATE entries SET value = ?2, revision = ?3 WHERE key = ?1")?
                .execute(row)?;
        } else {
            self.entries += 1;
        }
        Ok(revision)
    }

    fn delete(&mut self, key: &str) -> rusqlite::Result<Option<Revision>> {
        let deleted =
            self.transaction.prepare_cached("DELETE FROM entries WHERE key = ?1")?.execute([key])?;
        if deleted == 0 {
            return Ok(None);
        }
        self.entries -= 1;
        Ok(Some(self.revision()))
    }

    fn swap(&mut self, key: &str, value: &str, expected: Option<Revision>) -> rusqlite::Result<CasOutcome> {
        let present = self.entry(key)?;
        if present.as_ref().map(|entry| entry.revision) != expected {
            return Ok(CasOutcome::Changed(present));
        }
        self.put(key, value).map(CasOutcome::Written)
    }

    fn entry(&self, key: &str) -> rusqlite::Result<Option<Entry>> {
        let mut query =
            self.transaction.prepare_cached("SELECT value, revision FROM entries WHERE key = ?1")?;
        let entry = query.query_row([key], |row| {
            let revision = Revision(row.get::<_, i64>(1)?.cast_unsigned());
            Ok(Entry { key: key.to_owned(), value: row.get(0)?, revision })
        });
        entry.optional()
    }
}

/// The changes that one write made, in order.
fn changes((write, written): (Write, &Written)) -> Vec<(Revision, Change)> {
    let put = |key, value, revision| (revision, Change::Put(Entry { key, value, revision }));
    match (write, written) {
        (Write::Put(entries), Written::Put(revisions)) => entries
            .into_iter()
            .zip(revisions)
            .map(|((key, value), revision)| put(key, value, *revision))
            .collect(),
        (Write::Delete(keys), Written::Delete(revisions)) => keys
            .into_iter()
            .zip(revisions)
            .filter_map(|(key, revision)| Some(((*revision)?, Change::Deleted(key))))
            .collect(),
        (Write::CasOutcome { key, value, .. }, Written::CasOutcome(CasOutcome::Written(revision))) => {
            vec![put(key, value, *revision)]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::http::Refusal;
    use super::*;

    fn writer(data_dir: &Path) -> Writer {
        let connection = database::open_writer(&database::file(data_dir)).unwrap();
        let (watchers, metrics) = (Arc::default(), Arc::new(Metrics::new()));
        Writer::open(connection, data_dir.to_owned(), watchers, metrics).unwrap()
    }

    /// Commits all at once; the answer to each, in brief.
    fn commit(writer: &mut Writer, writes: Vec<Write>) -> Vec<String> {
        let (batch, answers): (Vec<_>, Vec<_>) = writes
            .into_iter()
            .map(|write| {
                let (answer, answered) = oneshot::channel();
                (WriteJob { write, answer }, answered)
            })
            .unzip();
        writer.commit(batch);
        let brief = |mut answered: oneshot::Receiver<_>| match answered.try_recv().unwrap() {
            Ok(_) => "ok".to_owned(),
            Err(error) => Refusal::from(error).status.to_string(),
        };
        answers.into_iter().map(brief).collect()
    }

    fn put(key: &str, bytes: usize) -> Write {
        Write::Put(vec![(key.to_owned(), "x".repeat(bytes))])
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
    fn a_full_disk_is_told_in_a_sentence() {
        let full = Refusal::from(WriteError::DiskFull("/var/lib/trigger/hub".into()));
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
        let swap = |expected| Write::CasOutcome { key: "/a".to_owned(), value: "s".to_owned(), expected };
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
