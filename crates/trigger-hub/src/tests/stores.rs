//! Every store, in process and through the hub's own client.

use async_trait::async_trait;
use trigger_store::memory::MemoryStore;
use trigger_store::store::Entry;

use super::over_watches::open_watch;
use super::*;
use crate::SqliteStore;

#[tokio::test]
async fn it_conforms() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    conformance::check(|| async { hub.store() }).await;
    trigger_fleet::conformance::check(|| async { hub.store() }).await;
    hub.stop().await;
}

#[tokio::test]
async fn it_conforms_over_open_watches() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let store = || async {
        let store = hub.store();
        open_watch(&store, KeyRange::Key("/none".to_owned())).await;
        store
    };
    conformance::check(store).await;
    trigger_fleet::conformance::check(store).await;
    hub.stop().await;
}

#[tokio::test]
async fn large_ranges_come_in_pieces_and_whole() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let store = hub.store();
    let entries: Vec<_> = (0..6000).map(|n| (format!("/a/{n:05}"), "x".repeat(700))).collect();
    put_all(&store, entries).await;
    put(&store, "/big", &"y".repeat(3 * 1024 * 1024)).await;
    // The second range is within the first: each key comes once.
    let ranges = [all(), KeyRange::Prefix("/a/".to_owned()), KeyRange::Key("/big".to_owned())];
    let read = store.read(&ranges).await.unwrap();
    assert_eq!(read.len(), 6001);
    assert!(read.is_sorted_by(|a, b| a.key < b.key));
    let mut watch = store.watch(ranges.to_vec()).await.unwrap();
    let Some(Ok(WatchEvent::Snapshot(seen))) = next(&mut watch).await else { panic!("a snapshot") };
    assert_eq!(seen, read);
    hub.stop().await;
}

#[tokio::test]
async fn the_store_conforms_in_process() {
    let dir = TempDir::new().unwrap();
    let (store, closed) = SqliteStore::open(dir.path()).unwrap();
    conformance::check(|| async { store.clone() }).await;
    trigger_fleet::conformance::check(|| async { store.clone() }).await;
    drop(store);
    timeout(TIMEOUT, closed.wait()).await.unwrap();
}

#[tokio::test]
async fn a_hub_in_front_of_another_store_conforms() {
    let hub = Running::serving(MemoryStore::default()).await;
    conformance::check(|| async { hub.store() }).await;
    trigger_fleet::conformance::check(|| async { hub.store() }).await;
    assert!(hub.get("/healthz").await.starts_with("200 OK"));
    let page = hub.get("/metrics").await;
    assert!(page.contains("trigger_hub_build_info{version=\"0.1.0\"} 1"), "{page}");
    hub.stop().await;
}

#[tokio::test]
async fn a_watch_keeps_its_store_open() {
    let dir = TempDir::new().unwrap();
    let (store, closed) = SqliteStore::open(dir.path()).unwrap();
    let mut watch = store.watch(vec![all()]).await.unwrap();
    let writer = store.clone();
    drop(store);
    assert_eq!(next(&mut watch).await.unwrap().unwrap(), WatchEvent::Snapshot(Vec::new()));
    assert!(writer.put_many(vec![("/a".to_owned(), "1".to_owned())]).await[0].is_ok());
    drop(writer);
    let Some(Ok(WatchEvent::Changes(changes))) = next(&mut watch).await else { panic!("a change") };
    assert!(matches!(&changes[..], [Change::Put(entry)] if entry.key == "/a"));
    drop(watch);
    timeout(TIMEOUT, closed.wait()).await.unwrap();
    // The store's directory is free at once.
    let (store, _) = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(store.read(&[all()]).await.unwrap().len(), 1);
}

/// A store without transactions, which stores every second entry of a write and fails with `error` on the
/// others; its watches end at once.
struct Failing {
    inner: MemoryStore,
    error: fn(String, String) -> StoreError,
}

impl Failing {
    fn error(&self) -> StoreError {
        (self.error)("etcd://10.0.0.1:2379".to_owned(), "a fault".to_owned())
    }
}

#[async_trait]
impl Store for Failing {
    async fn put_many(&self, entries: Vec<(String, String)>) -> Vec<Result<Revision, StoreError>> {
        let mut results = Vec::new();
        for (index, entry) in entries.into_iter().enumerate() {
            results.push(match index % 2 {
                0 => Err(self.error()),
                _ => self.inner.put_many(vec![entry]).await.remove(0),
            });
        }
        results
    }

    async fn delete_many(&self, _: Vec<String>) -> Result<(), StoreError> {
        Err(self.error())
    }

    async fn compare_and_swap(
        &self,
        _: &str,
        _: &str,
        _: Option<Revision>,
    ) -> Result<CasOutcome, StoreError> {
        Err(self.error())
    }

    async fn read(&self, _: &[KeyRange]) -> Result<Vec<Entry>, StoreError> {
        Err(self.error())
    }

    async fn watch(&self, _: Vec<KeyRange>) -> Result<Watch, StoreError> {
        Err(self.error())
    }

    fn address(&self) -> &str {
        "etcd://10.0.0.1:2379"
    }
}

#[async_trait]
impl ServedStore for Failing {}

/// Returns the error of a hub's client when the hub's store fails.
async fn check_failure(error: fn(String, String) -> StoreError, expected: [&str; 6]) {
    let hub = Running::serving(Failing { inner: MemoryStore::default(), error }).await;
    let store = hub.store();
    let prefix = format!("backend hub+http://{} ", hub.address);
    let brief = |error: StoreError| {
        let message = error.to_string();
        message.strip_prefix(&prefix).map_or(message.clone(), str::to_owned)
    };
    let entry = |key: &str| (key.to_owned(), "1".to_owned());
    let one = store.put_many(vec![entry("/a")]).await.remove(0).unwrap_err();
    let two = store.put_many(vec![entry("/a"), entry("/b")]).await.remove(1).unwrap_err();
    let deleted = store.delete_many(vec!["/a".to_owned()]).await.unwrap_err();
    let swapped = store.compare_and_swap("/a", "1", None).await.unwrap_err();
    let read = store.read(&[all()]).await.unwrap_err();
    let mut watch = store.watch(vec![all()]).await.unwrap();
    let watched = next(&mut watch).await.unwrap().unwrap_err();
    assert_eq!([one, two, deleted, swapped, read, watched].map(brief), expected);
    hub.stop().await;
}

#[tokio::test]
async fn a_failing_store_is_reported_as_what_it_is() {
    const UNREACHABLE: &str = "is unreachable: a fault";
    const AMBIGUOUS: &str = "did not answer: a fault; it may or may not have done what was asked";
    const FULL: &str = "is full: a fault";
    const REFUSED: &str = "refused: a fault";
    const ENDED: &str = "is unreachable: the hub ended the watch: a fault";
    check_failure(
        |backend, detail| StoreError::Unreachable { backend, detail: detail.into() },
        [UNREACHABLE, AMBIGUOUS, UNREACHABLE, UNREACHABLE, UNREACHABLE, ENDED],
    )
    .await;
    check_failure(
        |backend, detail| StoreError::Ambiguous { backend, detail: detail.into() },
        [AMBIGUOUS, AMBIGUOUS, AMBIGUOUS, AMBIGUOUS, UNREACHABLE, ENDED],
    )
    .await;
    check_failure(
        |backend, detail| StoreError::Full { backend, detail: detail.into() },
        [FULL, AMBIGUOUS, FULL, FULL, FULL, ENDED],
    )
    .await;
    check_failure(
        |backend, detail| StoreError::Refused { backend, detail: detail.into() },
        [REFUSED, AMBIGUOUS, REFUSED, REFUSED, REFUSED, REFUSED],
    )
    .await;
}
