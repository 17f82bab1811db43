//! The interface of a store that a hub serves, beyond [`Store`]. Each method has a default that is correct for every
//! store, so that a store can be served as it is and improved where it matters.
//!
//! The server opens one [`Store::watch`] for each client. In [`SqliteStore`](crate::SqliteStore) such a watch is
//! an entry in an index, and its data are shared with all others. A store behind a network (etcd, NATS) should
//! not open one upstream watch for each agent: its `ServedStore` keeps a single watch of the whole key prefix and
//! hands its changes to the same index (`watchers.rs`), which knows nothing of SQLite.

use std::pin::Pin;
use std::slice;

use async_trait::async_trait;
use futures_util::{Stream, StreamExt};
use prometheus_client::registry::Registry;
use trigger_core::identity::Revision;
use trigger_store::hub_protocol::Position;
use trigger_store::memory::MemoryStore;
use trigger_store::store::{Change, Entry, KeyRange, Store, StoreError, WatchEvent};

/// A request for one page of a read.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// The ranges of the whole read.
    pub ranges: Vec<KeyRange>,
    /// Where the page before this one ended; `None` for the first.
    pub from: Option<Position>,
    /// Whether to leave the values empty.
    pub keys_only: bool,
    /// The page ends with the entry that reaches this many bytes of keys and values.
    pub max_bytes: usize,
}

/// One page of a read, of one moment. Different pages may show different moments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the order of [`Store::read`], each key once.
    pub entries: Vec<Entry>,
    /// Where the next page begins; `None` if this is the last.
    pub next: Option<Position>,
}

/// An event of [`ServedStore::watch_in_pages`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PagedEvent {
    /// The next page of a snapshot.
    Snapshot {
        /// The entries of the page.
        entries: Vec<Entry>,
        /// Whether the snapshot is complete with it.
        is_last: bool,
    },
    /// The changes since then.
    Changes(Vec<Change>),
}

/// A stream of events, which ends as a [`Watch`](trigger_store::store::Watch) does.
pub type PagedWatch = Pin<Box<dyn Stream<Item = Result<PagedEvent, StoreError>> + Send>>;

/// A store that a hub can serve.
#[async_trait]
pub trait ServedStore: Store {
    /// Reads one page.
    ///
    /// The default reads each range whole for every page: a store that may hold more than a few pages overrides
    /// it.
    ///
    /// # Errors
    /// Those of [`Store::read`].
    async fn read_page(&self, request: PageRequest) -> Result<Page, StoreError> {
        let PageRequest { ranges, from, keys_only, max_bytes } = request;
        let (first, mut after) = from.map_or((0, None), |position| (position.range, Some(position.after)));
        let mut page = Page { entries: Vec::new(), next: None };
        let mut bytes = 0;
        for (index, range) in ranges.iter().enumerate().skip(first) {
            let range = slice::from_ref(range);
            let entries = if keys_only { listed(self.list(range).await?) } else { self.read(range).await? };
            let after = after.take();
            for entry in entries {
                let is_before = after.as_ref().is_some_and(|after| entry.key <= *after);
                if is_before || ranges[..index].iter().any(|earlier| earlier.contains(&entry.key)) {
                    continue;
                }
                bytes += entry.key.len() + entry.value.len();
                let key = entry.key.clone();
                page.entries.push(entry);
                if bytes >= max_bytes {
                    page.next = Some(Position { range: index, after: key });
                    return Ok(page);
                }
            }
        }
        Ok(page)
    }

    /// Watches `ranges` as [`Store::watch`] does, or [`Store::watch_puts`], with a snapshot that is read in pages, so that it
    /// is never held whole. Each page shows another moment; of each key, no change is shown that is older than the snapshot.
    ///
    /// The default reads the snapshot whole: a store that may hold more than a few pages overrides it.
    ///
    /// # Errors
    /// Those of [`Store::watch`].
    async fn watch_in_pages(&self, ranges: Vec<KeyRange>, puts_only: bool) -> Result<PagedWatch, StoreError> {
        let events = if puts_only { self.watch_puts(ranges).await? } else { self.watch(ranges).await? };
        Ok(Box::pin(events.map(|event| {
            Ok(match event? {
                WatchEvent::Snapshot(entries) => PagedEvent::Snapshot { entries, is_last: true },
                WatchEvent::Changes(changes) => PagedEvent::Changes(changes),
            })
        })))
    }

    /// Deletes keys as [`Store::delete_many`] does, and returns how many of them existed, if the store counts.
    ///
    /// # Errors
    /// Those of [`Store::delete_many`].
    async fn delete_counted(&self, keys: Vec<String>) -> Result<Option<u64>, StoreError> {
        self.delete_many(keys).await.map(|()| None)
    }

    /// Checks that the store answers, and that it takes writes if it can tell. The caller bounds the time, and how often
    /// it asks.
    ///
    /// # Errors
    /// Those of [`Store::read`].
    async fn check_health(&self) -> Result<(), StoreError> {
        self.read(&[KeyRange::Key("healthz".to_owned())]).await.map(drop)
    }

    /// Adds the store's own metrics to those of the hub.
    fn register_metrics(&self, _registry: &mut Registry) {}

    /// Names and versions of what stores the data, for the metric `build_info`.
    fn versions(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// A store in memory, for tests of the hub's server.
impl ServedStore for MemoryStore {}

fn listed(keys: Vec<(String, Revision)>) -> Vec<Entry> {
    keys.into_iter().map(|(key, revision)| Entry { key, value: String::new(), revision }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_default_pages_join_to_the_whole_read() {
        let store = MemoryStore::default();
        let keys = ["/a/1", "/a/2", "/a/b/1", "/a/b/2", "/c"];
        store.put_many(keys.map(|key| (key.to_owned(), "12345".to_owned())).to_vec()).await;
        let prefix = |path: &str| KeyRange::Prefix(path.to_owned());
        // The third range is within the second, which holds the first: each key comes once.
        let ranges = vec![KeyRange::Key("/a/2".to_owned()), prefix("/a/"), prefix("/a/b/"), prefix("/")];
        for (keys_only, max_bytes) in [(false, 1), (false, 20), (false, usize::MAX), (true, 1), (true, 9)] {
            let (mut seen, mut from) = (Vec::new(), None);
            loop {
                let request = PageRequest { ranges: ranges.clone(), from, keys_only, max_bytes };
                let page = store.read_page(request).await.unwrap();
                assert!(page.entries.iter().all(|entry| entry.value.is_empty() == keys_only));
                seen.extend(page.entries.into_iter().map(|entry| entry.key));
                from = page.next;
                if from.is_none() {
                    break;
                }
            }
            assert_eq!(seen, ["/a/2", "/a/1", "/a/b/1", "/a/b/2", "/c"], "{keys_only} {max_bytes}");
        }
    }
}
