//! The one suite that every [`Store`] passes. Each check gets a store with an untouched prefix.

use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt;
use trigger_core::identity::Revision;

use crate::store::{CasOutcome, Change, Entry, KeyRange, MAX_ORDERED_ENTRIES, Store, Watch, WatchEvent};

/// How long a watch may take to report. Generous: it bounds a failure, it measures nothing.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Runs the whole suite against the stores that `open` gives: handles to one backend, or a new one each
/// time. Panics at the first departure.
///
/// # Panics
/// When the store does not keep the trait's promises: this is a test.
pub async fn check<S: Store, F: Future<Output = S>>(open: impl Fn() -> F) {
    writes_are_read_back(&prefix(&open, "read").await).await;
    many_keys_are_answered_one_by_one(&prefix(&open, "many").await).await;
    deleting_is_idempotent(&prefix(&open, "delete").await).await;
    entries_take_the_place_of_keys(&prefix(&open, "replace").await).await;
    revisions_grow(&prefix(&open, "grow").await).await;
    a_swap_needs_the_expected_revision(&prefix(&open, "swap").await).await;
    one_of_two_contenders_wins(&prefix(&open, "contend").await).await;
    prefixes_do_not_leak(&prefix(&open, "leak").await).await;
    a_listing_is_a_reading_without_the_values(&prefix(&open, "list").await).await;
    a_key_in_several_ranges_is_read_once(&prefix(&open, "once").await).await;
    text_survives(&prefix(&open, "text").await).await;
    a_watch_begins_with_a_snapshot(&prefix(&open, "snapshot").await).await;
    a_watch_reports_changes_in_order(&prefix(&open, "changes").await).await;
    a_watch_of_several_ranges_is_one_stream(&prefix(&open, "ranges").await).await;
    a_small_write_becomes_visible_in_order(&prefix(&open, "order").await).await;
    nothing_falls_between_snapshot_and_changes(&prefix(&open, "gap").await).await;
    a_slow_watcher_loses_nothing_silently(&prefix(&open, "slow").await).await;
}

/// A store and a prefix of its own within it.
struct Prefix<S> {
    store: S,
    path: String,
}

async fn prefix<S: Store, F: Future<Output = S>>(open: &impl Fn() -> F, name: &str) -> Prefix<S> {
    let nonce = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Prefix { store: open().await, path: format!("/conformance/{}/{name}/", nonce.as_nanos()) }
}

impl<S: Store> Prefix<S> {
    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    fn all(&self) -> KeyRange {
        KeyRange::Prefix(self.path.clone())
    }

    async fn put(&self, name: &str, value: &str) -> Revision {
        let results = self.store.put_many(vec![(self.key(name), value.to_owned())]).await;
        let [Ok(revision)] = results[..] else { panic!("one put, one answer: {results:?}") };
        revision
    }

    async fn delete(&self, names: &[&str]) {
        let keys = names.iter().map(|name| self.key(name)).collect();
        self.store.delete_many(keys).await.unwrap_or_else(|error| panic!("delete: {error}"));
    }

    async fn read(&self, ranges: &[KeyRange]) -> Vec<Entry> {
        self.store.read(ranges).await.unwrap_or_else(|error| panic!("read: {error}"))
    }

    async fn watch(&self, ranges: Vec<KeyRange>) -> Watch {
        self.store.watch(ranges).await.unwrap_or_else(|error| panic!("watch: {error}"))
    }

    /// `name=value` of each entry.
    fn brief(&self, entries: &[Entry]) -> Vec<String> {
        let name = |entry: &Entry| entry.key.strip_prefix(&self.path).unwrap_or(&entry.key).to_owned();
        entries.iter().map(|entry| format!("{}={}", name(entry), entry.value)).collect()
    }

    fn brief_change(&self, change: &Change) -> String {
        match change {
            Change::Put(entry) => self.brief(std::slice::from_ref(entry)).concat(),
            Change::Deleted(key) => format!("{} gone", key.strip_prefix(&self.path).unwrap_or(key)),
        }
    }
}

async fn next(watch: &mut Watch) -> WatchEvent {
    match tokio::time::timeout(TIMEOUT, watch.next()).await {
        Ok(Some(Ok(event))) => event,
        other => panic!("a watch that should report: {other:?}"),
    }
}

/// The first `count` changes, however they are grouped.
async fn changes(watch: &mut Watch, count: usize) -> Vec<Change> {
    let mut seen = Vec::new();
    while seen.len() < count {
        match next(watch).await {
            WatchEvent::Changes(changes) => seen.extend(changes),
            WatchEvent::Snapshot(entries) => panic!("a snapshot where changes were due: {entries:?}"),
        }
    }
    seen
}

async fn writes_are_read_back<S: Store>(prefix: &Prefix<S>) {
    let first = prefix.put("b", "1").await;
    prefix.put("a", "2").await;
    let entries = prefix.read(&[prefix.all()]).await;
    assert_eq!(prefix.brief(&entries), ["a=2", "b=1"], "by key");
    assert_eq!(entries[1].revision, first);
    assert_eq!(prefix.brief(&prefix.read(&[KeyRange::Key(prefix.key("a"))]).await), ["a=2"]);
    assert_eq!(prefix.read(&[KeyRange::Key(prefix.key("absent"))]).await, []);
}

async fn many_keys_are_answered_one_by_one<S: Store>(prefix: &Prefix<S>) {
    assert!(prefix.store.put_many(Vec::new()).await.is_empty());
    // More than etcd takes in one transaction, and more bytes than in one request.
    let value = "x".repeat(1000);
    let entries: Vec<_> = (0..3000).map(|n| (prefix.key(&format!("{n:04}")), value.clone())).collect();
    let results = prefix.store.put_many(entries).await;
    assert_eq!(results.len(), 3000);
    let entries = prefix.read(&[prefix.all()]).await;
    assert_eq!(entries.len(), 3000, "all are read, however many");
    for (result, entry) in results.iter().zip(&entries) {
        assert_eq!(result.as_ref().ok(), Some(&entry.revision), "each key's own revision");
    }
    prefix
        .store
        .delete_many(entries.into_iter().map(|entry| entry.key).collect())
        .await
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(prefix.read(&[prefix.all()]).await, []);
}

async fn deleting_is_idempotent<S: Store>(prefix: &Prefix<S>) {
    prefix.put("a", "1").await;
    prefix.delete(&["a", "never"]).await;
    prefix.delete(&["a"]).await;
    prefix.delete(&[]).await;
    assert_eq!(prefix.read(&[prefix.all()]).await, []);
}

async fn entries_take_the_place_of_keys<S: Store>(prefix: &Prefix<S>) {
    prefix.put("a", "1").await;
    let stays = prefix.put("b", "2").await;
    let mut watch = prefix.watch(vec![prefix.all()]).await;
    assert!(matches!(next(&mut watch).await, WatchEvent::Snapshot(entries) if entries.len() == 2));
    let replace = async |keys: &[String], entries: &[(String, String)]| {
        let revisions = prefix.store.replace(keys.to_vec(), entries.to_vec()).await;
        revisions.unwrap_or_else(|error| panic!("replace: {error}"))
    };
    let new = [(prefix.key("c"), "3".to_owned()), (prefix.key("d"), "4".to_owned())];
    let keys = [prefix.key("a"), prefix.key("absent")];
    let revisions = replace(&keys, &new).await;
    assert!(revisions.len() == 2 && revisions.iter().all(|revision| *revision > stays), "{revisions:?}");
    let seen: Vec<String> =
        changes(&mut watch, 3).await.iter().map(|change| prefix.brief_change(change)).collect();
    assert_eq!(seen, ["c=3", "d=4", "a gone"], "what is gone has its successor");
    let entries = prefix.read(&[prefix.all()]).await;
    assert_eq!(prefix.brief(&entries), ["b=2", "c=3", "d=4"]);
    assert_eq!([entries[1].revision, entries[2].revision], revisions[..]);
    replace(&keys, &new).await;
    replace(&[], &[]).await;
    assert_eq!(prefix.brief(&prefix.read(&[prefix.all()]).await), ["b=2", "c=3", "d=4"]);

    let keys: Vec<String> = ["b", "c", "d"].map(|name| prefix.key(name)).into();
    let many: Vec<(String, String)> =
        (0..2 * MAX_ORDERED_ENTRIES).map(|n| (prefix.key(&format!("{n:03}")), n.to_string())).collect();
    assert_eq!(replace(&keys, &many).await.len(), many.len());
    let keys: Vec<String> = many.into_iter().map(|(key, _)| key).collect();
    assert_eq!(prefix.read(&[prefix.all()]).await.len(), keys.len());
    replace(&keys, &new).await;
    assert_eq!(prefix.brief(&prefix.read(&[prefix.all()]).await), ["c=3", "d=4"]);
}

async fn revisions_grow<S: Store>(prefix: &Prefix<S>) {
    let mut last = Revision(0);
    for n in 0..10 {
        let revision = prefix.put("a", &n.to_string()).await;
        assert!(revision > last, "{revision} after {last}");
        last = revision;
        prefix.delete(&["a"]).await;
    }
}

async fn a_swap_needs_the_expected_revision<S: Store>(prefix: &Prefix<S>) {
    let key = prefix.key("a");
    let swap = |value: &'static str, expected| prefix.store.compare_and_swap(&key, value, expected);
    let Ok(CasOutcome::Written(first)) = swap("1", None).await else { panic!("an absent key can be made") };
    match swap("2", None).await {
        Ok(CasOutcome::Changed(Some(entry))) => {
            assert_eq!((entry.value.as_str(), entry.revision), ("1", first))
        }
        other => panic!("a present key cannot be made: {other:?}"),
    }
    let Ok(CasOutcome::Written(second)) = swap("2", Some(first)).await else {
        panic!("unchanged, so written")
    };
    assert!(second > first);
    assert!(matches!(swap("3", Some(first)).await, Ok(CasOutcome::Changed(Some(_)))), "changed since");
    prefix.delete(&["a"]).await;
    assert!(matches!(swap("4", Some(second)).await, Ok(CasOutcome::Changed(None))), "gone since");
    assert_eq!(prefix.read(&[prefix.all()]).await, []);
}

async fn one_of_two_contenders_wins<S: Store>(prefix: &Prefix<S>) {
    let key = prefix.key("claim");
    for round in 0..20 {
        let expected = prefix.read(&[KeyRange::Key(key.clone())]).await.first().map(|entry| entry.revision);
        let values = [format!("{round} left"), format!("{round} right")];
        let (left, right) = tokio::join!(
            prefix.store.compare_and_swap(&key, &values[0], expected),
            prefix.store.compare_and_swap(&key, &values[1], expected),
        );
        let won = [&left, &right].iter().filter(|swap| matches!(swap, Ok(CasOutcome::Written(_)))).count();
        assert_eq!(won, 1, "{left:?} {right:?}");
    }
}

async fn prefixes_do_not_leak<S: Store>(prefix: &Prefix<S>) {
    prefix.put("n1/a", "1").await;
    prefix.put("n10/a", "2").await;
    prefix.put("n1.x/a", "3").await;
    let n1 = KeyRange::Prefix(prefix.key("n1/"));
    assert_eq!(prefix.brief(&prefix.read(std::slice::from_ref(&n1)).await), ["n1/a=1"]);
    let mut watch = prefix.watch(vec![n1]).await;
    assert!(matches!(next(&mut watch).await, WatchEvent::Snapshot(entries) if entries.len() == 1));
    prefix.put("n10/b", "4").await;
    prefix.put("n1/b", "5").await;
    let seen = changes(&mut watch, 1).await;
    assert_eq!(prefix.brief_change(&seen[0]), "n1/b=5");
}

async fn a_listing_is_a_reading_without_the_values<S: Store>(prefix: &Prefix<S>) {
    let pairs = (0..1500).map(|n| (prefix.key(&format!("many/{n:04}")), "v".repeat(100))).collect();
    assert!(prefix.store.put_many(pairs).await.iter().all(Result::is_ok));
    prefix.put("one", "1").await;
    prefix.put("not-listed", "1").await;
    let ranges = [
        KeyRange::Key(prefix.key("one")),
        KeyRange::Key(prefix.key("absent")),
        KeyRange::Prefix(prefix.key("many/")),
    ];
    let listed = prefix.store.list(&ranges).await.unwrap_or_else(|error| panic!("list: {error}"));
    let entries = prefix.read(&ranges).await;
    assert_eq!(entries.len(), 1501);
    let keys: Vec<_> = entries.into_iter().map(|entry| (entry.key, entry.revision)).collect();
    assert_eq!(listed, keys);
}

async fn a_key_in_several_ranges_is_read_once<S: Store>(prefix: &Prefix<S>) {
    for name in ["a/1", "a/2", "b/1"] {
        prefix.put(name, name).await;
    }
    let range = |name: &str| KeyRange::Prefix(prefix.key(name));
    let ranges = [KeyRange::Key(prefix.key("a/2")), range("a/"), prefix.all(), range("b/")];
    let read = prefix.read(&ranges).await;
    assert_eq!(prefix.brief(&read), ["a/2=a/2", "a/1=a/1", "b/1=b/1"], "in the order of the ranges");
    let listed = prefix.store.list(&ranges).await.unwrap_or_else(|error| panic!("list: {error}"));
    assert_eq!(listed.len(), 3, "{listed:?}");
    let mut watch = prefix.watch(ranges.to_vec()).await;
    let WatchEvent::Snapshot(entries) = next(&mut watch).await else { panic!("no snapshot") };
    let mut keys = prefix.brief(&entries);
    keys.sort();
    assert_eq!(keys, ["a/1=a/1", "a/2=a/2", "b/1=b/1"]);
}

async fn text_survives<S: Store>(prefix: &Prefix<S>) {
    let value = "{\"name\":\"größe \\\"$(x)\\\" \u{1f680}\"}\n";
    prefix.put("a", value).await;
    prefix.put("empty", "").await;
    let entries = prefix.read(&[prefix.all()]).await;
    assert_eq!(entries[0].value, value);
    assert_eq!(entries[1].value, "");
}

async fn a_watch_begins_with_a_snapshot<S: Store>(prefix: &Prefix<S>) {
    prefix.put("a", "1").await;
    prefix.put("gone", "1").await;
    prefix.delete(&["gone"]).await;
    let mut watch = prefix.watch(vec![prefix.all()]).await;
    let WatchEvent::Snapshot(entries) = next(&mut watch).await else { panic!("a snapshot comes first") };
    assert_eq!(prefix.brief(&entries), ["a=1"]);
    let mut empty = prefix.watch(vec![KeyRange::Prefix(prefix.key("nothing/"))]).await;
    assert_eq!(next(&mut empty).await, WatchEvent::Snapshot(Vec::new()), "also where there is nothing");
}

async fn a_watch_reports_changes_in_order<S: Store>(prefix: &Prefix<S>) {
    let mut watch = prefix.watch(vec![prefix.all()]).await;
    next(&mut watch).await;
    let first = prefix.put("a", "1").await;
    prefix.put("a", "2").await;
    prefix.put("b", "3").await;
    prefix.delete(&["a"]).await;
    let seen = changes(&mut watch, 4).await;
    let brief: Vec<String> = seen.iter().map(|change| prefix.brief_change(change)).collect();
    assert_eq!(brief, ["a=1", "a=2", "b=3", "a gone"]);
    assert!(matches!(&seen[0], Change::Put(entry) if entry.revision == first));
}

async fn a_watch_of_several_ranges_is_one_stream<S: Store>(prefix: &Prefix<S>) {
    prefix.put("x/1", "1").await;
    let ranges = vec![
        KeyRange::Prefix(prefix.key("x/")),
        KeyRange::Prefix(prefix.key("y/")),
        KeyRange::Key(prefix.key("z")),
    ];
    let mut watch = prefix.watch(ranges).await;
    let WatchEvent::Snapshot(entries) = next(&mut watch).await else { panic!("a snapshot comes first") };
    assert_eq!(prefix.brief(&entries), ["x/1=1"]);
    prefix.put("y/1", "2").await;
    prefix.put("zz", "not watched").await;
    prefix.put("z", "3").await;
    // Order holds within a range; between ranges none is promised.
    let seen = changes(&mut watch, 2).await;
    let mut brief: Vec<String> = seen.iter().map(|change| prefix.brief_change(change)).collect();
    brief.sort();
    assert_eq!(brief, ["y/1=2", "z=3"]);
}

/// A reader that knows an entry of such a write finds every entry before it.
async fn a_small_write_becomes_visible_in_order<S: Store>(prefix: &Prefix<S>) {
    let last = KeyRange::Key(prefix.key("127"));
    let mut watch = prefix.watch(vec![last]).await;
    next(&mut watch).await;
    let writer = async {
        let entries =
            (0..MAX_ORDERED_ENTRIES).map(|n| (prefix.key(&format!("{n:03}")), "x".repeat(2000))).collect();
        assert!(prefix.store.put_many(entries).await.iter().all(Result::is_ok));
    };
    let reader = async {
        changes(&mut watch, 1).await;
        assert_eq!(prefix.read(&[prefix.all()]).await.len(), MAX_ORDERED_ENTRIES);
    };
    tokio::join!(writer, reader);
}

/// Proves C3.
async fn nothing_falls_between_snapshot_and_changes<S: Store>(prefix: &Prefix<S>) {
    let writer = async {
        for n in 0..200 {
            prefix.put(&format!("{n:03}"), "x").await;
        }
    };
    let reader = async {
        let mut seen = std::collections::BTreeSet::new();
        let mut watch = prefix.watch(vec![prefix.all()]).await;
        while seen.len() < 200 {
            match next(&mut watch).await {
                WatchEvent::Snapshot(entries) => seen.extend(entries.into_iter().map(|entry| entry.key)),
                WatchEvent::Changes(changes) => seen.extend(changes.into_iter().map(|change| match change {
                    Change::Put(entry) => entry.key,
                    Change::Deleted(key) => panic!("no caller deleted {key}"),
                })),
            }
        }
    };
    tokio::join!(writer, reader);
}

/// Proves C3.
async fn a_slow_watcher_loses_nothing_silently<S: Store>(prefix: &Prefix<S>) {
    let mut watch = prefix.watch(vec![prefix.all()]).await;
    next(&mut watch).await;
    let value = "y".repeat(500);
    for batch in 0..20 {
        let entries = (0..200).map(|n| (prefix.key(&format!("{batch:02}-{n:03}")), value.clone())).collect();
        let results = prefix.store.put_many(entries).await;
        assert!(results.iter().all(Result::is_ok));
    }
    // The watch may deliver every change late, or end. It may not miss a change and go on.
    let mut seen = 0;
    while seen < 4000 {
        match tokio::time::timeout(TIMEOUT, watch.next()).await {
            Ok(Some(Ok(WatchEvent::Changes(changes)))) => seen += changes.len(),
            Ok(Some(Ok(WatchEvent::Snapshot(entries)))) => seen = entries.len(),
            Ok(Some(Err(_))) => return,
            other => panic!("after {seen} of 4000 changes: {other:?}"),
        }
    }
}
