//! The reader: a thread with a connection of its own. It sees every commit that was answered. Reader and writer never
//! wait for each other.

use std::path::Path;
use std::thread;
use std::time::Duration;

use rusqlite::{CachedStatement, Connection, Row, params};
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
/// How long the end of the reader is waited for: a disk that hangs must not keep the writer from closing the database.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A read failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("the hub could not read its database: {0}")]
    Failed(#[from] rusqlite::Error),
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
        let closing = loop {
            match requests.blocking_recv() {
                // A caller that has given up asks again. Reading for it too would delay all others.
                Some(Request::Read(ReadJob { answer, .. })) if answer.is_closed() => {}
                Some(Request::Read(ReadJob { request, answer })) => {
                    let _ = answer.send(page(&mut connection, request));
                }
                Some(Request::Close(closing)) => break Some(closing),
                None => break None,
            }
        };
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

fn page(connection: &mut Connection, request: PageRequest) -> Result<(Page, Revision), ReadError> {
    let PageRequest { ranges, from, keys_only, max_bytes } = request;
    let moment = connection.transaction()?;
    let revision: i64 =
        moment.prepare_cached("SELECT revision FROM position")?.query_row((), |row| row.get(0))?;
    let revision = Revision(revision.cast_unsigned());
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
                return Ok((page, revision));
            }
        }
        earlier.insert(range);
    }
    Ok((page, revision))
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
