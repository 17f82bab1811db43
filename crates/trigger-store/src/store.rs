//! The trait every full backend implements: a versioned map of keys to text, at the level that the hub,
//! etcd and NATS share. No transactions over several keys, no leases.

use std::pin::Pin;

use async_trait::async_trait;
use futures_util::Stream;
use trigger_core::identity::Revision;

/// So many entries, given to [`Store::put_many`] at once, become visible in their order.
pub const MAX_ORDERED_ENTRIES: usize = 128;

/// And so many bytes of keys and values together.
pub const MAX_ORDERED_BYTES: usize = 512 * 1024;

/// A key and its latest value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub key: String,
    /// What. A backend that finds bytes which are not UTF-8 hands over their lossy form, which no decoder
    /// takes for one of ours.
    pub value: String,
    /// When it was last written, in the backend's own order.
    pub revision: Revision,
}

/// Some keys: one, or all of a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyRange {
    /// Exactly this key.
    Key(String),
    /// Every key that begins with this text, which ends with `/`.
    Prefix(String),
}

impl KeyRange {
    /// Whether `key` is one of these.
    pub fn contains(&self, key: &str) -> bool {
        match self {
            Self::Key(own) => own == key,
            Self::Prefix(prefix) => key.starts_with(prefix.as_str()),
        }
    }
}

/// What a watch reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// All there is, in the watched ranges, at one moment. The first event of every watch, and again
    /// whenever the backend could not prove that nothing was missed. Replaces all that was known.
    Snapshot(Vec<Entry>),
    /// What changed since, in the backend's order. May repeat what is known already.
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

/// A watch: ends with one error when continuity is lost and cannot be mended on the same connection. The
/// caller then waits as it sees fit and watches again, which begins with a snapshot; so its reader is
/// level-triggered by construction.
pub type Watch = Pin<Box<dyn Stream<Item = Result<WatchEvent, StoreError>> + Send>>;

/// What came of [`Store::compare_and_swap`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CasOutcome {
    /// Written, at this revision.
    Written(Revision),
    /// Not written: this is there instead (nothing, if the key is absent).
    Changed(Option<Entry>),
}

/// Why a backend did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing is known to have been done; later it may work.
    #[error("backend {backend} is unreachable: {detail}")]
    Unreachable {
        /// Its address.
        backend: String,
        /// What the attempt met.
        detail: String,
    },
    /// It may have been done, or not: an answer did not come in time, or the connection broke after asking.
    #[error("backend {backend} did not answer: {detail}; it may or may not have done what was asked")]
    Ambiguous {
        /// Its address.
        backend: String,
        /// What was waited for.
        detail: String,
    },
    /// There is no room for what was to be stored, and nothing was; later it may work.
    #[error("backend {backend} is full: {detail}")]
    Full {
        /// Its address.
        backend: String,
        /// What is full, and what to do about it.
        detail: String,
    },
    /// Trying again cannot help.
    #[error("backend {backend} refused: {detail}")]
    Refused {
        /// Its address.
        backend: String,
        /// Its own words.
        detail: String,
    },
}

impl StoreError {
    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }
}

/// A full backend.
///
/// Writes are durable when they return. Writes and reads by one caller are in order: what it has written
/// it reads. Reads may otherwise be stale, and nothing above relies on their being fresh.
#[async_trait]
pub trait Store: Send + Sync {
    /// Writes many keys; answers for each, in the order given. Idempotent: writing the same value again
    /// does no harm.
    ///
    /// Up to [`MAX_ORDERED_ENTRIES`] entries of together at most [`MAX_ORDERED_BYTES`] become visible in the
    /// order given, or all at once; among more, no order is promised.
    async fn put_many(&self, entries: Vec<(String, String)>) -> Vec<Result<Revision, StoreError>>;

    /// Deletes keys; those that are absent are no error.
    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError>;

    /// Writes a key if its revision is still `expected` (absent: if the key is).
    async fn compare_and_swap(
        &self,
        key: &str,
        value: &str,
        expected: Option<Revision>,
    ) -> Result<CasOutcome, StoreError>;

    /// Reads all keys in `ranges`, each once, in the order of the ranges and by key within one.
    async fn read(&self, ranges: &[KeyRange]) -> Result<Vec<Entry>, StoreError>;

    /// The keys in `ranges` and their revisions, in the order of [`Self::read`]; for who need not know what
    /// lies under them. A backend that can leave the values out does.
    async fn list(&self, ranges: &[KeyRange]) -> Result<Vec<(String, Revision)>, StoreError> {
        let entries = self.read(ranges).await?;
        Ok(entries.into_iter().map(|entry| (entry.key, entry.revision)).collect())
    }

    /// Watches `ranges`, beginning with a snapshot of them.
    async fn watch(&self, ranges: Vec<KeyRange>) -> Result<Watch, StoreError>;

    /// The address, for people.
    fn address(&self) -> &str;
}
