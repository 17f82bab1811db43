//! An index of watchers by the ranges that they watch: a change costs a look-up for each prefix on its path, however many
//! watchers there are, and its data are stored once, however many watchers receive it.
//!
//! Nothing here depends on where the changes come from: SQLite's writer today; for a store behind a network, one
//! watch of its whole key prefix.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use trigger_core::identity::Revision;
use trigger_store::store::{Change, KeyRange};

use crate::range_set::without_repeated;

/// Bytes of keys and values that a watcher may leave unread before its watch ends.
const MAX_BACKLOG_BYTES: usize = 16 * 1024 * 1024;
/// Changes that a watcher may leave unread before its watch ends.
const MAX_BACKLOG_CHANGES: usize = 64 * 1024;

/// A change and when it happened.
#[derive(Debug, Clone)]
pub(crate) struct Stamped {
    pub(crate) revision: Revision,
    /// Shared by all watchers that receive it.
    pub(crate) change: Arc<Change>,
}

/// All watchers of a store.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    index: Mutex<Index>,
}

#[derive(Debug, Default)]
struct Index {
    prefixes: HashMap<String, Vec<Arc<Mailbox>>>,
    keys: HashMap<String, Vec<Arc<Mailbox>>>,
}

impl Watchers {
    /// Registers a watcher: from now on it receives every change in `ranges`, or only every put.
    pub(crate) fn subscribe(self: &Arc<Self>, ranges: Vec<KeyRange>, puts_only: bool) -> Subscription {
        let ranges = without_repeated(ranges);
        let mailbox = Arc::new(Mailbox { puts_only, ..Mailbox::default() });
        let mut index = lock(&self.index);
        for range in &ranges {
            let (map, path) = index.place(range);
            map.entry(path.clone()).or_default().push(mailbox.clone());
        }
        Subscription { mailbox, ranges, watchers: self.clone() }
    }

    /// Hands changes to the watchers that they concern. The changes are durable, and come in the order of their
    /// revisions.
    pub(crate) fn publish(&self, changes: impl Iterator<Item = (Revision, Change)>) {
        let index = lock(&self.index);
        for (revision, change) in changes {
            let stamped = Stamped { revision, change: Arc::new(change) };
            let key = key_of(&stamped.change);
            let prefixes = key.match_indices('/').filter_map(|(at, _)| index.prefixes.get(&key[..=at]));
            for mailbox in prefixes.chain(index.keys.get(key)).flatten() {
                mailbox.push(&stamped);
            }
        }
    }
}

impl Index {
    fn place<'a>(&mut self, range: &'a KeyRange) -> (&mut HashMap<String, Vec<Arc<Mailbox>>>, &'a String) {
        match range {
            KeyRange::Prefix(prefix) => (&mut self.prefixes, prefix),
            KeyRange::Key(key) => (&mut self.keys, key),
        }
    }
}

/// The receiving end of a watcher, which unregisters it when dropped.
#[derive(Debug)]
pub(crate) struct Subscription {
    mailbox: Arc<Mailbox>,
    ranges: Vec<KeyRange>,
    watchers: Arc<Watchers>,
}

impl Subscription {
    /// The ranges to read the snapshot of.
    pub(crate) fn ranges(&self) -> &[KeyRange] {
        &self.ranges
    }

    /// Returns the changes since the last call, at least one; `None` once the watcher has fallen too far behind.
    /// Safe to cancel.
    pub(crate) async fn changes(&self) -> Option<Vec<Stamped>> {
        loop {
            // Registered before the check, so that a change which comes in between wakes this task.
            let woken = self.mailbox.woken.notified();
            {
                let mut unread = lock(&self.mailbox.unread);
                if unread.overflowed {
                    return None;
                }
                if !unread.changes.is_empty() {
                    unread.bytes = 0;
                    return Some(std::mem::take(&mut unread.changes));
                }
            }
            woken.await;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut index = lock(&self.watchers.index);
        for range in &self.ranges {
            let (map, path) = index.place(range);
            let Some(mailboxes) = map.get_mut(path) else { continue };
            mailboxes.retain(|mailbox| !Arc::ptr_eq(mailbox, &self.mailbox));
            if mailboxes.is_empty() {
                map.remove(path);
            }
        }
    }
}

/// The changes that one watcher has not read yet: bounded, so that a watcher that stops reading costs the hub little and
/// the writer nothing.
#[derive(Debug, Default)]
struct Mailbox {
    puts_only: bool,
    unread: Mutex<Unread>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct Unread {
    changes: Vec<Stamped>,
    bytes: usize,
    last: Revision,
    overflowed: bool,
}

impl Mailbox {
    fn push(&self, stamped: &Stamped) {
        if self.puts_only && matches!(*stamped.change, Change::Deleted(_)) {
            return;
        }
        let mut unread = lock(&self.unread);
        // A watcher whose ranges overlap is found twice.
        if unread.overflowed || unread.last == stamped.revision {
            return;
        }
        let bytes = size_of_change(&stamped.change);
        let full = unread.changes.len() >= MAX_BACKLOG_CHANGES || unread.bytes + bytes > MAX_BACKLOG_BYTES;
        // A single change always fits, however large it is, because its watcher could otherwise never read past it.
        if full && !unread.changes.is_empty() {
            unread.overflowed = true;
            unread.changes = Vec::new();
        } else {
            unread.changes.push(stamped.clone());
            unread.bytes += bytes;
            unread.last = stamped.revision;
        }
        self.woken.notify_one();
    }
}

/// Returns the key that a change is of.
pub(crate) fn key_of(change: &Change) -> &str {
    match change {
        Change::Put(entry) => &entry.key,
        Change::Deleted(key) => key,
    }
}

/// Returns the size of a change in bytes of its key and value.
pub(crate) fn size_of_change(change: &Change) -> usize {
    match change {
        Change::Put(entry) => entry.key.len() + entry.value.len(),
        Change::Deleted(key) => key.len(),
    }
}

/// Locks a mutex, even if a thread has panicked while it held it, because no update can be left half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use trigger_store::store::Entry;

    use super::*;

    /// Deletes `keys`, one revision each from 1.
    fn publish(watchers: &Watchers, keys: &str) {
        let keys = keys.split_whitespace().map(|key| Change::Deleted(key.to_owned()));
        watchers.publish((1..).map(Revision).zip(keys));
    }

    /// Returns the content of the mailbox: `-` for no changes, `cut` for an overflow.
    fn received(subscription: &Subscription) -> String {
        match subscription.changes().now_or_never() {
            None => "-".to_owned(),
            Some(None) => "cut".to_owned(),
            Some(Some(changes)) => {
                changes.iter().map(|stamped| key_of(&stamped.change)).collect::<Vec<_>>().join(" ")
            }
        }
    }

    fn check(ranges: &[KeyRange], published: &str, expected: &str) {
        let watchers = Arc::new(Watchers::default());
        let subscription = watchers.subscribe(ranges.to_vec(), false);
        publish(&watchers, published);
        assert_eq!(received(&subscription), expected, "{ranges:?}");
        assert_eq!(received(&subscription), "-", "received once");
        drop(subscription);
        let index = lock(&watchers.index);
        assert!(index.prefixes.is_empty() && index.keys.is_empty(), "an ended watch leaves nothing behind");
    }

    fn prefix(path: &str) -> KeyRange {
        KeyRange::Prefix(path.to_owned())
    }

    fn key(key: &str) -> KeyRange {
        KeyRange::Key(key.to_owned())
    }

    #[test]
    fn a_watcher_receives_changes_of_its_ranges_only() {
        check(&[prefix("/n/a/")], "/n/a/1 /n/ab/1 /n/a /n/a/b/2", "/n/a/1 /n/a/b/2");
        check(&[key("/k")], "/k /k/1 /kk", "/k");
        check(&[prefix("/")], "/a/b x", "/a/b");
        check(&[prefix("/x/")], "/a/b", "-");
        check(&[], "/a", "-");
    }

    #[test]
    fn overlapping_ranges_deliver_once() {
        check(&[prefix("/a/"), prefix("/a/b/"), key("/a/b/c"), prefix("/a/")], "/a/b/c /a/d", "/a/b/c /a/d");
    }

    #[test]
    fn a_watcher_of_puts_receives_no_deletion() {
        let watchers = Arc::new(Watchers::default());
        let puts = watchers.subscribe(vec![prefix("/")], true);
        let put = Entry { key: "/b".to_owned(), value: String::new(), revision: Revision(2) };
        let changes = [Change::Deleted("/a".to_owned()), Change::Put(put), Change::Deleted("/b".to_owned())];
        watchers.publish((1..).map(Revision).zip(changes));
        assert_eq!(received(&puts), "/b");
        publish(&watchers, "/a");
        assert_eq!(received(&puts), "-", "nor is it woken");
    }

    #[test]
    fn one_that_does_not_read_is_cut_and_its_backlog_freed() {
        let watchers = Arc::new(Watchers::default());
        let subscription = watchers.subscribe(vec![prefix("/")], false);
        let changes =
            (1..=MAX_BACKLOG_CHANGES as u64 + 1).map(|n| (Revision(n), Change::Deleted("/a".to_owned())));
        watchers.publish(changes);
        assert_eq!(lock(&subscription.mailbox.unread).changes.capacity(), 0);
        assert_eq!(received(&subscription), "cut");
        assert_eq!(received(&subscription), "cut", "permanently");
    }
}
