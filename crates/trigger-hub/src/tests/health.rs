//! `/healthz`, and what the hub does when its files are gone.

use async_trait::async_trait;
use trigger_store::memory::MemoryStore;
use trigger_store::store::Entry;

use super::*;

/// The size of a hub's log, which grows with each transaction that is written to the disk.
fn log_size(dir: &TempDir) -> u64 {
    std::fs::metadata(dir.path().join("hub.sqlite-wal")).unwrap().len()
}

#[tokio::test]
async fn the_health_is_a_write_and_many_questions_are_one() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    put(&hub.store(), "/a", "1").await;
    let (before, since) = (log_size(&dir), std::time::Instant::now());
    assert!(hub.get("/healthz").await.starts_with("200 OK"));
    let one = log_size(&dir) - before;
    assert!(one > 0, "the disk was written");
    let answers = futures_util::future::join_all((0..40).map(|_| hub.get("/healthz"))).await;
    assert!(answers.iter().all(|answer| answer.starts_with("200 OK")));
    let allowed = since.elapsed().as_secs() + 2;
    assert!(log_size(&dir) - before <= allowed * one, "at most one write in a second");
    assert_eq!(values(&hub.store()).await, ["/a=1"], "nothing is stored");
    hub.stop().await;
}

/// A store that answers nothing.
#[derive(Debug, Default)]
struct Hung(MemoryStore);

#[async_trait]
impl Store for Hung {
    async fn put_many(&self, entries: Vec<(String, String)>) -> Vec<Result<Revision, StoreError>> {
        Store::put_many(&self.0, entries).await
    }
    async fn delete_many(&self, keys: Vec<String>) -> Result<(), StoreError> {
        Store::delete_many(&self.0, keys).await
    }
    async fn compare_and_swap(
        &self,
        key: &str,
        value: &str,
        expected: Option<Revision>,
    ) -> Result<CasOutcome, StoreError> {
        Store::compare_and_swap(&self.0, key, value, expected).await
    }
    async fn read(&self, ranges: &[KeyRange]) -> Result<Vec<Entry>, StoreError> {
        Store::read(&self.0, ranges).await
    }
    async fn list(&self, ranges: &[KeyRange]) -> Result<Vec<(String, Revision)>, StoreError> {
        Store::list(&self.0, ranges).await
    }
    async fn watch(&self, ranges: Vec<KeyRange>) -> Result<Watch, StoreError> {
        Store::watch(&self.0, ranges).await
    }
    fn address(&self) -> &str {
        "hung"
    }
}

#[async_trait]
impl ServedStore for Hung {
    async fn check_health(&self) -> Result<(), StoreError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_not_healthy() {
    let hub = Running::serving(Hung::default()).await;
    let expected = "503 Service Unavailable {\"error\":\"the hub's store has not answered for 2 s\"}";
    assert_eq!(hub.get("/healthz").await, expected);
    hub.stop().await;
}

/// Removes a part of a running hub's files, and checks that it stores nothing any more, says so, and ends.
async fn check_gone(remove: impl FnOnce(&Path)) {
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("data");
    let hub = Running::start(&dir).await;
    put(&hub.store(), "/a", "1").await;
    remove(&dir);
    // The hub may have noticed before either request: then the connection is refused.
    let put = r#"{"entries":[{"key":"/b","value":"1"}]}"#;
    if let Ok(connection) = TcpStream::connect(hub.address).await {
        drop(connection);
        for answer in [hub.post("/v1/put", put).await, hub.get("/healthz").await] {
            assert!(answer.starts_with("503") && answer.contains("was removed or replaced"), "{answer}");
        }
    }
    let error = timeout(TIMEOUT, hub.task).await.unwrap().unwrap().unwrap_err().to_string();
    assert!(error.contains("was removed or replaced while the hub used it: the hub stops"), "{error}");
    drop(hub.stop);
    assert!(!database::file(&dir).exists(), "no database takes the place of the one that is gone");
}

#[tokio::test]
async fn a_hub_whose_directory_is_gone_says_so_and_ends() {
    check_gone(|dir| std::fs::remove_dir_all(dir).unwrap()).await;
}

#[tokio::test]
async fn a_hub_whose_directory_was_moved_says_so_and_ends() {
    check_gone(|dir| {
        std::fs::rename(dir, dir.with_file_name("moved")).unwrap();
        std::fs::create_dir(dir).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_hub_whose_database_is_gone_says_so_and_ends() {
    check_gone(|dir| std::fs::remove_file(database::file(dir)).unwrap()).await;
}
