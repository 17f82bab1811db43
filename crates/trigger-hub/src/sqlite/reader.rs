//! The reader: a thread with a connection of its own. It sees every commit that was answered. Reader and writer never
//! wait for each other. Reads that wait while others are performed share the next transaction: each commit between two
//! of them would have pages read again that are in memory.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rusqlite::{CachedStatement, Connection, Row, Transaction, params};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use trigger_core::identity::Revision;
use trigger_store::detail::Detail;
use trigger_store::hub_protocol::Position;
use trigger_store::store::{Entry, KeyRange, StoreError};

use super::database;
use super::error::SqliteError;
use crate::range_set::RangeSet;
use crate::served_store::{Page, PageRequest};

/// How many reads may wait for the reader.
const MAX_QUEUED_READS: usize = 1024;
/// How many reads share one transaction at most. Meanwhile the writer's log cannot begin again at its start.
const MAX_READS_TOGETHER: usize = 64;
/// How long the end of the reader is waited for: a disk that hangs must not keep the writer from closing the database.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A read failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("the hub could not read its database: {0}")]
    Failed(Arc<rusqlite::Error>),
    #[error("the hub is stopping")]
    Stopped,
}

impl ReadError {
    /// Converts it to an error of the store at `backend`.
    pub(super) fn of(self, backend: &str) -> StoreError {
        StoreError::Unreachable { backend: backend.to_owned(), detail: Detail::new(self.to_string(), self) }
    }
}

/// A handle to the reader.
#[derive(Debug, Clone)]
pub(super) struct ReaderHandle {
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
enum Request {
    Read(ReadJob),
    /// Ends the reader, although there are handles left.
    /// Until the sender is dropped, the database is open.
    Close(oneshot::Sender<()>),
}

#[derive(Debug)]
struct ReadJob {
    request: PageRequest,
    answer: oneshot::Sender<Result<(Page, Revision), ReadError>>,
}

impl ReaderHandle {
    /// Reads one page, with the revision up to which it shows every commit.
    pub(super) async fn read(&self, request: PageRequest) -> Result<(Page, Revision), ReadError> {
        let (answer, answered) = oneshot::channel();
        let job = Request::Read(ReadJob { request, answer });
        self.requests.send(job).await.map_err(|_| ReadError::Stopped)?;
        answered.await.map_err(|_| ReadError::Stopped)?
    }

    /// Returns whether the thread has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.requests.is_closed()
    }

    /// Reads nothing but the position, as a check that reads are answered.
    pub(super) async fn probe(&self) -> Result<(), ReadError> {
        let nothing = PageRequest { ranges: Vec::new(), from: None, keys_only: true, max_bytes: usize::MAX };
        self.read(nothing).await.map(drop)
    }

    /// Lets the reader end after the reads that wait already, and waits until it has closed the database, or for a while. Later
    /// reads fail.
    pub(super) async fn close(&self) {
        let (closing, closed) = oneshot::channel();
        if self.requests.send(Request::Close(closing)).await.is_ok() {
            let _ = timeout(CLOSE_TIMEOUT, closed).await;
        }
    }
}

/// Starts the thread. It ends, and sends the second value, when the last handle is gone.
pub(super) fn start(path: &Path) -> Result<(ReaderHandle, oneshot::Receiver<()>), SqliteError> {
    let mut connection = database::open_reader(path)?;
    let (sender, mut requests) = mpsc::channel::<Request>(MAX_QUEUED_READS);
    let (ended, has_ended) = oneshot::channel();
    let read_all = move || {
        let (mut taken, mut closing) = (Vec::new(), Vec::new());
        while closing.is_empty() && requests.blocking_recv_many(&mut taken, MAX_READS_TOGETHER) > 0 {
            let mut reads = Vec::new();
            for request in taken.drain(..) {
                match request {
                    Request::Close(closed) => closing.push(closed),
                    Request::Read(read) if closing.is_empty() => reads.push(read),
                    // It came too late.
                    Request::Read(_) => {}
                }
            }
            // After all of them were taken, so that each sees every commit that was answered before it was sent.
            answer_all(&mut connection, reads);
        }
        drop(connection);
        drop(closing);
        let _ = ended.send(());
    };
    thread::Builder::new()
        .name("hub-reader".to_owned())
        .spawn(read_all)
        .map_err(|source| SqliteError::Thread { name: "reader", source })?;
    Ok((ReaderHandle { requests: sender }, has_ended))
}

/// Performs reads in one transaction.
fn answer_all(connection: &mut Connection, mut reads: Vec<ReadJob>) {
    // A caller that has given up asks again. Reading for it too would delay all others.
    reads.retain(|read| !read.answer.is_closed());
    if reads.is_empty() {
        return;
    }
    let begun = begin_transaction(connection).map_err(Arc::new);
    for ReadJob { request, answer } in reads {
        if answer.is_closed() {
            continue;
        }
        let answered = match &begun {
            Ok((moment, revision)) => page(moment, request).map(|page| (page, *revision)).map_err(Arc::new),
            Err(error) => Err(Arc::clone(error)),
        };
        let _ = answer.send(answered.map_err(ReadError::Failed));
    }
}

/// Begins a transaction, and returns the revision up to which it shows every commit.
fn begin_transaction(connection: &mut Connection) -> rusqlite::Result<(Transaction<'_>, Revision)> {
    let moment = connection.transaction()?;
    let revision: i64 =
        moment.prepare_cached("SELECT revision FROM position")?.query_row((), |row| row.get(0))?;
    Ok((moment, Revision(revision.cast_unsigned())))
}

fn page(moment: &Transaction<'_>, request: PageRequest) -> rusqlite::Result<Page> {
    let PageRequest { ranges, from, keys_only, max_bytes } = request;
    let mut page = Page { entries: Vec::new(), next: None };
    let (first, mut after) = from.map_or((0, None), |position| (position.range, Some(position.after)));
    let mut bytes = 0;
    let mut earlier = RangeSet::default();
    ranges.iter().take(first).for_each(|range| earlier.insert(range));
    for (index, range) in ranges.iter().enumerate().skip(first) {
        let mut query = moment.prepare_cached(query(range, keys_only))?;
        let mut rows = begin(&mut query, range, after.take())?;
        while let Some(row) = rows.next()? {
            let entry = entry(row)?;
            // Each key once, though ranges may overlap.
            if earlier.contains(&entry.key) {
                continue;
            }
            bytes += entry.key.len() + entry.value.len();
            page.entries.push(entry);
            if bytes >= max_bytes {
                let after = page.entries.last().map(|entry| entry.key.clone()).unwrap_or_default();
                page.next = Some(Position { range: index, after });
                return Ok(page);
            }
        }
        earlier.insert(range);
    }
    Ok(page)
}

fn query(range: &KeyRange, keys_only: bool) -> &'static str {
    match (range, keys_only) {
        (KeyRange::Key(_), false) => "SELECT key, value, revision FROM entries WHERE key = ?1 AND key > ?2",
        (KeyRange::Key(_), true) => "SELECT key, '', revision FROM entries WHERE key = ?1 AND key > ?2",
        (KeyRange::Prefix(_), false) => {
            "SELECT key, value, revision FROM entries WHERE key >= ?1 AND key < ?2 AND key > ?3 ORDER BY key"
        }
        (KeyRange::Prefix(_), true) => {
            "SELECT key, '', revision FROM entries WHERE key >= ?1 AND key < ?2 AND key > ?3 ORDER BY key"
        }
    }
}

/// Keys compare by their bytes, and no key is empty, so that every key is after the empty text.
fn begin<'a>(
    query: &'a mut CachedStatement<'_>,
    range: &KeyRange,
    after: Option<String>,
) -> rusqlite::Result<rusqlite::Rows<'a>> {
    let after = after.unwrap_or_default();
    match range {
        KeyRange::Key(key) => query.query(params![key, after]),
        KeyRange::Prefix(prefix) => query.query(params![prefix, end_of(prefix), after]),
    }
}

/// The first key after all of a prefix's: `0` is the character after `/`.
fn end_of(prefix: &str) -> String {
    format!("{}0", prefix.strip_suffix('/').unwrap_or(prefix))
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        key: row.get(0)?,
        value: row.get(1)?,
        revision: Revision(row.get::<_, i64>(2)?.cast_unsigned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Answer = oneshot::Receiver<Result<(Page, Revision), ReadError>>;

    fn read(key: &str) -> (ReadJob, Answer) {
        let (answer, answered) = oneshot::channel();
        let ranges = vec![KeyRange::Key(key.to_owned())];
        let request = PageRequest { ranges, from: None, keys_only: false, max_bytes: usize::MAX };
        (ReadJob { request, answer }, answered)
    }

    fn value(mut answer: Answer) -> Option<String> {
        let (page, revision) = answer.try_recv().unwrap().unwrap();
        assert_eq!(revision, Revision(7));
        page.entries.into_iter().next().map(|entry| entry.value)
    }

    #[test]
    fn reads_that_share_a_transaction_get_their_own_pages() {
        let directory = tempfile::tempdir().unwrap();
        let path = database::file(directory.path());
        let writer = database::open_writer(&path).unwrap();
        writer
            .execute("INSERT INTO entries (key, value, revision) VALUES ('/a', '1', 6), ('/b', '2', 7)", ())
            .unwrap();
        writer.execute("UPDATE position SET revision = 7", ()).unwrap();
        let mut connection = database::open_reader(&path).unwrap();

        let (reads, mut answers): (Vec<_>, Vec<_>) =
            ["/a", "/given-up", "/b", "/none"].map(read).into_iter().unzip();
        drop(answers.remove(1));
        answer_all(&mut connection, reads);
        let values: Vec<_> = answers.into_iter().map(value).collect();
        assert_eq!(values, [Some("1".to_owned()), Some("2".to_owned()), None]);
        assert!(connection.is_autocommit(), "the transaction was left open");
    }

    #[test]
    fn a_database_that_cannot_be_read_fails_each_read() {
        let mut connection = Connection::open_in_memory().unwrap();
        let (reads, answers): (Vec<_>, Vec<_>) = ["/a", "/b"].map(read).into_iter().unzip();
        answer_all(&mut connection, reads);
        for mut answer in answers {
            let error = answer.try_recv().unwrap().unwrap_err().to_string();
            assert!(
                error.starts_with("the hub could not read its database: no such table: position"),
                "{error}"
            );
        }
    }
}
