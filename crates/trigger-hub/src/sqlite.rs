//! A store in one SQLite file, which a hub serves if no other database is installed.
//!
//! Writes go to one thread, which commits those that wait together in one transaction; reads go to another, with
//! a connection of its own. Watches are entries in an index that the writer informs after each commit.
//!
//! There is no gap between a watch's snapshot and its changes, because it subscribes *before* its snapshot is
//! read, and the writer publishes *after* it has committed. A change that the snapshot shows already is dropped
//! by its revision.

mod backup;
pub(crate) mod database;
mod error;
pub(crate) mod loss_mark;
mod metrics;
mod reader;
mod transaction;
mod writer;

use std::future;
use std::iter::Peekable;
use std::path::Path;
use std::sync::Arc;
use std::vec;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;
use trigger_core::identity::Revision;
use trigger_store::hub_protocol::Position;
use trigger_store::store::{CasOutcome, Change, Entry, KeyRange, Store, StoreError, Watch, WatchEvent};

pub use self::backup::{BackupError, backup};
pub use self::error::SqliteError;
use self::metrics::Metrics;
use self::reader::ReaderHandle;
use self::transaction::{Write, Written};
use self::writer::{WriteError, WriterHandle};
use crate::portion::portion;
use crate::served_store::{Page, PageRequest, PagedEvent, PagedWatch, ServedStore};
use crate::snapshot_pages::SnapshotPages;
use crate::watchers::{Stamped, Subscription, Watchers, key_of, size_of_change};

/// The size of one event of a watch, in bytes of keys and values. A watcher copies that much at once of the data that
/// all watchers share.
const MAX_EVENT_BYTES: usize = 64 * 1024;

/// The size of one page of a snapshot, in bytes of keys and values: all that a watch holds of it.
const SNAPSHOT_PAGE_BYTES: usize = 256 * 1024;

/// A handle to the store. The store closes when its last handle, and the last watch of it, is dropped.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The database's path, for people.
    address: String,
    writer: WriterHandle,
    reader: ReaderHandle,
    watchers: Arc<Watchers>,
    metrics: Arc<Metrics>,
}

/// Reports when a store has closed.
#[derive(Debug)]
pub struct Closed {
    reader_ended: oneshot::Receiver<()>,
    writer_ended: oneshot::Receiver<()>,
}

impl Closed {
    /// Completes when the store's threads have ended and its data directory is free.
    pub async fn wait(self) {
        // A thread that panicked has dropped its sender, and has ended too.
        let _ = self.reader_ended.await;
        let _ = self.writer_ended.await;
    }
}

impl SqliteStore {
    /// Takes the data directory, which is created if it is missing, and opens the database in it.
    ///
    /// # Errors
    /// When the directory belongs to another hub or cannot be used, or the database cannot be opened.
    pub fn open(data_dir: &Path) -> Result<(Self, Closed), SqliteError> {
        let metrics = Arc::new(Metrics::new());
        let watchers = Arc::new(Watchers::default());
        let (writer, writer_ended) = writer::start(data_dir, watchers.clone(), metrics.clone())?;
        let path = database::file(data_dir);
        let (reader, reader_ended) = reader::start(&path)?;
        let address = format!("sqlite:{}", path.display());
        let shared = Arc::new(Shared { address, writer, reader, watchers, metrics });
        Ok((Self { shared }, Closed { reader_ended, writer_ended }))
    }

    /// Closes the store although there are handles left: what waits is still done, later requests fail. Then the
    /// database is complete in its one file.
    pub async fn close(&self) {
        // The reader first, because the log is copied into the database when nothing reads.
        self.shared.reader.close().await;
        self.shared.writer.close().await;
    }

    /// Checks that the files of the database are in place and that both threads run, for a caller that stops otherwise.
    ///
    /// # Errors
    /// [`SqliteError::Gone`], [`SqliteError::LockGone`] or [`SqliteError::ThreadEnded`]. The store stays open, and refuses
    /// what it cannot do.
    pub async fn check(&self) -> Result<(), SqliteError> {
        match self.shared.writer.write(Write::Nothing).await {
            Err(WriteError::Gone(path)) => return Err(SqliteError::Gone(path)),
            Err(WriteError::LockGone(path)) => return Err(SqliteError::LockGone(path)),
            Err(WriteError::Stopped) => return Err(SqliteError::ThreadEnded("writer")),
            // The disk may recover.
            Ok(_) | Err(WriteError::DiskFull(_) | WriteError::Failed { .. }) => {}
        }
        if self.shared.reader.has_ended() {
            return Err(SqliteError::ThreadEnded("reader"));
        }
        Ok(())
    }

    /// Ends one of the threads alone, as a defect would.
    #[cfg(test)]
    pub(crate) async fn end_thread(&self, name: &str) {
        match name {
            "reader" => self.shared.reader.close().await,
            _ => self.shared.writer.close().await,
        }
    }

    async fn write(&self, write: Write) -> Result<Written, StoreError> {
        self.shared.writer.write(write).await.map_err(|error| error.of(self.address()))
    }

    async fn read_all(&self, ranges: Vec<KeyRange>, keys_only: bool) -> Result<(Page, Revision), StoreError> {
        self.read_at(PageRequest { ranges, from: None, keys_only, max_bytes: usize::MAX }).await
    }

    /// Reads a page, with the revision up to which it shows every commit.
    async fn read_at(&self, request: PageRequest) -> Result<(Page, Revision), StoreError> {
        self.shared.reader.read(request).await.map_err(|error| error.of(self.address()))
    }

    /// Returns the error for an answer of the wrong kind, which would be a defect of the writer.
    fn unexpected(&self, written: &Written) -> StoreError {
        let detail = format!("the writer answered another question: {written:?}");
        StoreError::Ambiguous { backend: self.shared.address.clone(), detail: detail.into() }
    }
}

#[async_trait]
impl Store for SqliteStore {
    /// All entries in one transaction: they are stored, and become visible, together or not at all.
    async fn put_many(&self, entries: Vec<(String, String)>) -> Vec<Result<Revision, StoreError>> {
        let count = entries.len();
        let failed = |error: &dyn Fn() -> StoreError| (0..count).map(|_| Err(error())).collect();
        match self.shared.writer.write(Write::Replace { keys: Vec::new(), entries }).await {
            Ok(Written::Replace { stored, .. }) => stored.into_iter().map(Ok).collect(),
            Ok(other) => failed(&|| self.unexpected(&other)),
            Err(error) => failed(&|| error.of(self.address())),
        }
    }

    async fn replace(
        &self,
        keys: Vec<String>,
        entries: Vec<(String, String)>,
    ) -> Result<Vec<Revision>, StoreError> {
        match self.write(Write::Replace { keys, entries }).await? {
            Written::Replace { stored, .. } => Ok(stored),
            other => Err(self.unexpected(&other)),
        }
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        self.write(Write::Delete(keys)).await.map(drop)
    }

    async fn compare_and_swap(
        &self,
        key: &str,
        value: &str,
        expected: Option<Revision>,
    ) -> Result<CasOutcome, StoreError> {
        let write = Write::CompareAndSwap { key: key.to_owned(), value: value.to_owned(), expected };
        match self.write(write).await? {
            Written::CompareAndSwap(outcome) => Ok(outcome),
            other => Err(self.unexpected(&other)),
        }
    }

    async fn read(&self, ranges: &[KeyRange]) -> Result<Vec<Entry>, StoreError> {
        let (page, _) = self.read_all(ranges.to_vec(), false).await?;
        Ok(page.entries)
    }

    async fn list(&self, ranges: &[KeyRange]) -> Result<Vec<(String, Revision)>, StoreError> {
        let (page, _) = self.read_all(ranges.to_vec(), true).await?;
        Ok(page.entries.into_iter().map(|entry| (entry.key, entry.revision)).collect())
    }

    async fn watch(&self, ranges: Vec<KeyRange>) -> Result<Watch, StoreError> {
        let subscription = self.shared.watchers.subscribe(ranges, false);
        // Read in one piece, because pages would show several moments.
        let (page, revision) = self.read_all(subscription.ranges().to_vec(), false).await?;
        let snapshot = stream::once(future::ready(Ok(WatchEvent::Snapshot(page.entries))));
        let mut feed = Feed::new(self.clone(), subscription);
        feed.snapshot.add(None, revision);
        let changes = stream::unfold(Some(feed), |feed| async move {
            let mut feed = feed?;
            match feed.next().await {
                Ok(changes) => Some((Ok(WatchEvent::Changes(changes)), Some(feed))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(Box::pin(snapshot.chain(changes)))
    }

    fn address(&self) -> &str {
        &self.shared.address
    }
}

#[async_trait]
impl ServedStore for SqliteStore {
    async fn read_page(&self, request: PageRequest) -> Result<Page, StoreError> {
        let (page, _) = self.read_at(request).await?;
        Ok(page)
    }

    async fn watch_in_pages(&self, ranges: Vec<KeyRange>, puts_only: bool) -> Result<PagedWatch, StoreError> {
        let subscription = self.shared.watchers.subscribe(ranges, puts_only);
        // Boxed, as is the reading of a page: a hub has thousands of idle watches, and the stream would keep room for each step.
        let feed = Feed::new(self.clone(), subscription);
        let reading = Some(Box::new(Reading { feed, from: None, is_done: false }));
        Ok(Box::pin(stream::unfold(reading, |reading| async move {
            let mut reading = reading?;
            match reading.next().await {
                Ok(event) => Some((Ok(event), Some(reading))),
                Err(error) => Some((Err(error), None)),
            }
        })))
    }

    async fn delete_counted(&self, keys: Vec<String>) -> Result<Option<u64>, StoreError> {
        match self.write(Write::Delete(keys)).await? {
            Written::Delete(revisions) => Ok(Some(revisions.into_iter().flatten().count() as u64)),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Succeeds if the disk has taken a write and the database can be read.
    async fn check_health(&self) -> Result<(), StoreError> {
        self.write(Write::Probe).await?;
        self.shared.reader.probe().await.map_err(|error| error.of(self.address()))
    }

    fn register_metrics(&self, registry: &mut Registry) {
        self.shared.metrics.register(registry);
    }

    fn versions(&self) -> Vec<(&'static str, String)> {
        vec![("sqlite", rusqlite::version().to_owned())]
    }
}

/// The changes of one watch, after its snapshot.
struct Feed {
    /// Keeps the store open: a watch of a closed store would stay silent.
    store: SqliteStore,
    subscription: Subscription,
    snapshot: SnapshotPages,
    /// Taken from the subscription and not yet returned.
    unsent: Peekable<vec::IntoIter<Stamped>>,
}

/// A watch whose snapshot is being read, and then its feed.
struct Reading {
    feed: Feed,
    /// Where the next page begins.
    from: Option<Position>,
    is_done: bool,
}

impl Reading {
    async fn next(&mut self) -> Result<PagedEvent, StoreError> {
        if self.is_done {
            return self.feed.next().await.map(PagedEvent::Changes);
        }
        Box::pin(self.next_page()).await
    }

    async fn next_page(&mut self) -> Result<PagedEvent, StoreError> {
        let ranges = self.feed.subscription.ranges().to_vec();
        let from = self.from.take();
        let request = PageRequest { ranges, from, keys_only: false, max_bytes: SNAPSHOT_PAGE_BYTES };
        let (Page { entries, next }, revision) = self.feed.store.read_at(request).await?;
        self.feed.snapshot.add(next.clone(), revision);
        self.is_done = next.is_none();
        self.from = next;
        Ok(PagedEvent::Snapshot { entries, is_last: self.is_done })
    }
}

impl Feed {
    fn new(store: SqliteStore, subscription: Subscription) -> Self {
        let snapshot = SnapshotPages::default();
        Self { store, subscription, snapshot, unsent: Vec::new().into_iter().peekable() }
    }

    /// Returns the next changes, at least one. Safe to cancel.
    async fn next(&mut self) -> Result<Vec<Change>, StoreError> {
        loop {
            if self.unsent.peek().is_some() {
                let portion =
                    portion(&mut self.unsent, MAX_EVENT_BYTES, |stamped| size_of_change(&stamped.change));
                return Ok(portion.into_iter().map(|stamped| Arc::unwrap_or_clone(stamped.change)).collect());
            }
            let Some(mut changes) = self.subscription.changes().await else {
                let shared = &self.store.shared;
                shared.metrics.watch_cut();
                let detail = "the watcher fell too far behind".into();
                return Err(StoreError::Unreachable { backend: shared.address.clone(), detail });
            };
            // The snapshot shows these already.
            let ranges = self.subscription.ranges();
            changes.retain(|stamped| !self.snapshot.shows(ranges, key_of(&stamped.change), stamped.revision));
            self.unsent = changes.into_iter().peekable();
        }
    }
}
