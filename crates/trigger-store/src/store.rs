//! The trait every full backend implements: a versioned map of keys to text, at the level that the hub,
//! etcd and NATS share. No leases, and no transaction over several keys that a backend could not do without.

use std::collections::HashSet;
use std::pin::Pin;

use async_trait::async_trait;
use futures_util::Stream;
use trigger_core::identity::{KeyPrefix, Revision};
use trigger_core::why::Question;

use crate::clock::ClockDifference;
use crate::detail::Detail;
pub use crate::entry::Entry;
use crate::inquiry::{VisibleEvents, WantedEvents};

/// How many entries of one [`Store::put_many`] become visible in their order.
pub const MAX_ORDERED_ENTRIES: usize = 128;

/// How many bytes of keys and values these may have together.
pub const MAX_ORDERED_BYTES: usize = 512 * 1024;

/// One key, or all keys with a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyRange {
    /// Exactly this key.
    Key(String),
    /// Every key that begins with this text, which ends with `/`.
    Prefix(String),
}

impl KeyRange {
    /// Whether `key` is in the range.
    pub fn contains(&self, key: &str) -> bool {
        match self {
            Self::Key(own) => own == key,
            Self::Prefix(prefix) => key.starts_with(prefix.as_str()),
        }
    }
}

/// Removes the entries whose key occurred before: ranges may overlap, and [`Store::read`] returns each key once.
pub(crate) fn retain_first_of_each_key(entries: &mut Vec<Entry>) {
    let mut seen = HashSet::with_capacity(entries.len());
    let is_first: Vec<bool> = entries.iter().map(|entry| seen.insert(entry.key.as_str())).collect();
    let mut is_first = is_first.into_iter();
    entries.retain(|_| is_first.next().unwrap_or(true));
}

/// An event of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// All entries in the watched ranges at one moment. The first event of every watch, and again whenever the backend
    /// cannot prove that no change was missed. Replaces all that was known before.
    Snapshot(Vec<Entry>),
    /// The changes since then, in the backend's order. May repeat known changes.
    Changes(Vec<Change>),
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A key has this value now.
    Put(Entry),
    /// A key is gone.
    Deleted(String),
}

/// A stream of events. It ends with one error when continuity is lost and cannot be restored on the same connection.
/// The caller then pauses and watches again, which begins with a snapshot, so its reader is level-triggered by
/// construction.
pub type Watch = Pin<Box<dyn Stream<Item = Result<WatchEvent, StoreError>> + Send>>;

/// The outcome of [`Store::compare_and_swap`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CasOutcome {
    /// Written, at this revision.
    Written(Revision),
    /// Not written, because the key has this entry instead (none if the key is absent).
    Changed(Option<Entry>),
}

/// A request to a backend failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing was done; the same request may succeed later.
    #[error("backend {backend} is unreachable: {detail}")]
    Unreachable {
        /// Its address.
        backend: String,
        /// The reason in words, and the error behind it.
        #[source]
        detail: Detail,
    },
    /// It may have been done or not: no answer came in time, or the connection broke after the request.
    #[error("backend {backend} did not answer: {detail}; it may or may not have done what was asked")]
    Ambiguous {
        /// Its address.
        backend: String,
        /// The answer that did not come.
        #[source]
        detail: Detail,
    },
    /// There is no room for the entries, and none was stored; the same request may succeed later.
    #[error("backend {backend} is full: {detail}")]
    Full {
        /// Its address.
        backend: String,
        /// The limit that was reached, and the remedy.
        #[source]
        detail: Detail,
    },
    /// The backend does not allow this to this node. An administrator of the backend can grant it.
    #[error("backend {backend} denied access: {detail}")]
    Denied {
        /// Its address.
        backend: String,
        /// Its own words, and the remedy.
        #[source]
        detail: Detail,
    },
    /// The same request can never succeed.
    #[error("backend {backend} refused: {detail}")]
    Refused {
        /// Its address.
        backend: String,
        /// Its own words.
        #[source]
        detail: Detail,
    },
}

impl StoreError {
    /// Whether the same request may succeed later, without an administrator of the backend changing anything.
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Denied { .. } | Self::Refused { .. })
    }

    /// The error of one step of several, where earlier ones may have been done. A refusal stays one: what can never succeed is not to
    /// be repeated.
    fn of_partly_done(self) -> Self {
        match self {
            Self::Unreachable { backend, detail } | Self::Full { backend, detail } => {
                Self::Ambiguous { backend, detail }
            }
            error => error,
        }
    }
}

/// [`Store::replace`] in several requests, for a backend without transactions, or for more than one of them takes.
///
/// # Errors
/// Those of [`Store::replace`].
pub async fn replace_in_steps<S: Store + ?Sized>(
    store: &S,
    keys: Vec<String>,
    entries: Vec<(String, String)>,
) -> Result<Vec<Revision>, StoreError> {
    let written: Vec<String> = entries.iter().map(|(key, _)| key.clone()).collect();
    let (mut revisions, mut failed) = (Vec::new(), Vec::new());
    for put in store.put_many(entries).await {
        match put {
            Ok(revision) => revisions.push(revision),
            Err(error) => failed.push(error),
        }
    }
    let is_begun =
        !revisions.is_empty() || failed.iter().any(|error| matches!(error, StoreError::Ambiguous { .. }));
    // What may succeed later is tried again as a whole, before something is given up for what never will.
    failed.sort_by_key(|error| !error.is_transient());
    if let Some(error) = failed.into_iter().next() {
        return Err(if is_begun { error.of_partly_done() } else { error });
    }
    if keys.is_empty() {
        return Ok(revisions);
    }
    store.delete_many(keys).await.map_err(StoreError::of_partly_done)?;
    if let Some((_, newest)) = revisions.iter().zip(written).max() {
        check_kept(store, newest).await.map_err(StoreError::of_partly_done)?;
    }
    Ok(revisions)
}

/// Checks, after a deletion, that what was written before it is still there; `newest` was written last. A backend that was restored
/// from a backup between the two has lost it, and nothing would ever write it again. What was written last is lost first, so
/// one look is enough.
///
/// # Errors
/// [`StoreError::Ambiguous`] where it is lost, so that the caller repeats all of it; those of [`Store::list`].
pub async fn check_kept<S: Store + ?Sized>(store: &S, newest: String) -> Result<(), StoreError> {
    if !store.list(&[KeyRange::Key(newest)]).await?.is_empty() {
        return Ok(());
    }
    let detail = "it has lost what it had taken".into();
    Err(StoreError::Ambiguous { backend: store.address().to_owned(), detail })
}

/// A full backend.
///
/// Writes are durable when they return. A caller reads its own writes. Reads may otherwise be stale, and the layers above
/// rely on no fresh read.
#[async_trait]
pub trait Store: Send + Sync {
    /// Writes many keys, and answers for each in the order given. Writing the same value again does no harm.
    ///
    /// Up to [`MAX_ORDERED_ENTRIES`] entries of together at most [`MAX_ORDERED_BYTES`] become visible in the
    /// order given, or all at once; among more, no order is promised.
    async fn put_many(&self, entries: Vec<(String, String)>) -> Vec<Result<Revision, StoreError>>;

    /// Deletes keys; an absent key is no error.
    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError>;

    /// Writes entries in the place of keys that are deleted, none of which is one of the entries'. The keys are gone only where
    /// the entries are stored, also in a backup from which the backend is restored later. Doing it again does no harm.
    ///
    /// Returns the revisions of the entries, in the order given. A backend that does all of it at once overrides this.
    ///
    /// # Errors
    /// When not all of it has been done, or not for certain. A part of what was denied or refused may have been done.
    async fn replace(
        &self,
        keys: Vec<String>,
        entries: Vec<(String, String)>,
    ) -> Result<Vec<Revision>, StoreError> {
        replace_in_steps(self, keys, entries).await
    }

    /// Writes a key if its revision is still `expected`, or if the key is absent and none is expected.
    async fn compare_and_swap(
        &self,
        key: &str,
        value: &str,
        expected: Option<Revision>,
    ) -> Result<CasOutcome, StoreError>;

    /// Makes the first connection, for the request that comes next. A failure is that request's.
    async fn prepare(&self) {}

    /// Reads all keys in `ranges`, each once, in the order of the ranges and by key within one.
    async fn read(&self, ranges: &[KeyRange]) -> Result<Vec<Entry>, StoreError>;

    /// The keys in `ranges` and their revisions, in the order of [`Self::read`]. A backend that can omit the values
    /// overrides this.
    async fn list(&self, ranges: &[KeyRange]) -> Result<Vec<(String, Revision)>, StoreError> {
        let entries = self.read(ranges).await?;
        Ok(entries.into_iter().map(|entry| (entry.key, entry.revision)).collect())
    }

    /// Watches `ranges`, beginning with a snapshot of them.
    async fn watch(&self, ranges: Vec<KeyRange>) -> Result<Watch, StoreError>;

    /// The same without deletions, of which its reader makes no use. A backend that can leave them out overrides this.
    async fn watch_puts(&self, ranges: Vec<KeyRange>) -> Result<Watch, StoreError> {
        self.watch(ranges).await
    }

    /// The entries that explain a run or an event below `prefix`, where the backend knows what of them concerns the asker.
    /// `None` where the caller reads them itself.
    async fn explain(
        &self,
        _prefix: &KeyPrefix,
        _question: &Question,
    ) -> Result<Option<Vec<Entry>>, StoreError> {
        Ok(None)
    }

    /// What the asker may see of events below `prefix`, where the backend knows what concerns the asker. `None` where the
    /// caller reads them itself.
    async fn visible_events(
        &self,
        _prefix: &KeyPrefix,
        _wanted: &WantedEvents,
    ) -> Result<Option<VisibleEvents>, StoreError> {
        Ok(None)
    }

    /// Whether the backend removes by itself what no node needs any more, so that no agent has to, or may.
    fn sweeps_itself(&self) -> bool {
        false
    }

    /// How far this machine's clock is from the backend's, as its latest answer showed; nothing where a backend says
    /// nothing of its clock.
    fn clock_difference(&self) -> Option<ClockDifference> {
        None
    }

    /// The version of the server's program, where the backend says it.
    ///
    /// # Errors
    /// When the backend does not answer.
    async fn server_version(&self) -> Result<Option<String>, StoreError> {
        Ok(None)
    }

    /// The URL, for people.
    fn address(&self) -> &str;
}
