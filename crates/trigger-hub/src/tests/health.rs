//! `/healthz`, and what the hub does when its files are gone.

use async_trait::async_trait;
use trigger_store::meddled::{Meddled, Meddler};
use trigger_store::memory::MemoryStore;

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

/// A store that answers nothing when its health is asked for.
#[derive(Debug, Default)]
struct Hung(MemoryStore);

impl Meddler for Hung {
    fn store(&self) -> &dyn Store {
        &self.0
    }
}

#[async_trait]
impl ServedStore for Meddled<Hung> {
    async fn check_health(&self) -> Result<(), StoreError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_not_healthy() {
    let hub = Running::serving(Meddled(Hung::default())).await;
    let expected = "503 Service Unavailable {\"error\":\"the hub's store has not answered for 2 s\"}";
    assert_eq!(hub.get("/healthz").await, expected);
    hub.stop().await;
}

/// Removes a part of a running hub's files, and checks that it stores nothing any more, says so, and ends. Then no hub
/// begins with an empty database there.
async fn check_gone(remove: impl FnOnce(&Path)) -> TempDir {
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
    let error = start_fails("127.0.0.1:0", &dir).await;
    let mark = scratch.path().join("data.gone");
    assert!(error.contains(&format!("or remove {} to begin with an empty one", mark.display())), "{error}");
    assert!(!database::file(&dir).exists(), "no database takes the place of the one that is gone");
    assert!(std::fs::read_to_string(&mark).unwrap().contains("restore a backup there"));
    scratch
}

#[tokio::test]
async fn a_hub_whose_directory_is_gone_says_so_and_ends() {
    let scratch = check_gone(|dir| std::fs::remove_dir_all(dir).unwrap()).await;
    let dir = scratch.path().join("data");
    std::fs::remove_file(scratch.path().join("data.gone")).unwrap();
    let hub = Running::start(&dir).await;
    assert!(values(&hub.store()).await.is_empty(), "the operator has decided so");
    hub.stop().await;
}

#[tokio::test]
async fn a_hub_whose_directory_is_gone_when_it_is_stopped_says_so_too() {
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("data");
    let hub = Running::start(&dir).await;
    std::fs::remove_dir_all(&dir).unwrap();
    // It ends by itself at its next check otherwise.
    let _ = hub.stop.send(());
    let error = timeout(TIMEOUT, hub.task).await.unwrap().unwrap().unwrap_err().to_string();
    assert!(error.contains("was removed or replaced"), "{error}");
    assert!(start_fails("127.0.0.1:0", &dir).await.contains("restore a backup there"));
}

#[tokio::test]
async fn a_backup_that_takes_the_place_of_lost_data_is_served() {
    let (scratch, kept) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (dir, copy) = (scratch.path().join("data"), kept.path().join("backup.sqlite"));
    let hub = Running::start(&dir).await;
    put(&hub.store(), "/a", "1").await;
    backup(&dir, &copy).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    timeout(TIMEOUT, hub.task).await.unwrap().unwrap().unwrap_err();
    std::fs::create_dir(&dir).unwrap();
    std::fs::copy(&copy, database::file(&dir)).unwrap();
    let hub = Running::start(&dir).await;
    assert_eq!(values(&hub.store()).await, ["/a=1"]);
    assert!(!scratch.path().join("data.gone").exists(), "it says no longer what is true");
    hub.stop().await;
}

#[tokio::test]
async fn a_hub_whose_lock_is_gone_ends_and_its_database_is_whole() {
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("data");
    let hub = Running::start(&dir).await;
    put(&hub.store(), "/a", "1").await;
    std::fs::remove_file(dir.join("hub.lock")).unwrap();
    let error = timeout(TIMEOUT, hub.task).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, HubError::Store(SqliteError::LockGone(_))), "{error}");
    assert!(error.to_string().ends_with("the database is untouched: start the hub again"), "{error}");
    assert!(!dir.join("hub.sqlite-wal").exists(), "the database is complete in its one file");
    assert!(!scratch.path().join("data.gone").exists());
    let hub = Running::start(&dir).await;
    assert_eq!(values(&hub.store()).await, ["/a=1"]);
    hub.stop().await;
}

#[tokio::test]
async fn a_thread_that_has_ended_ends_the_hub() {
    for name in ["reader", "writer"] {
        let dir = TempDir::new().unwrap();
        let (store, closed) = SqliteStore::open(dir.path()).unwrap();
        let (served, listen) = (store.clone(), "127.0.0.1:0".parse::<ListenAddress>().unwrap());
        let hub = Running::spawn(|ready, stopped| serve_store(served, closed, listen, ready, stopped)).await;
        assert!(hub.get("/healthz").await.starts_with("200"));
        store.end_thread(name).await;
        store.check_health().await.unwrap_err();
        drop(store);
        let error = timeout(TIMEOUT, hub.task).await.unwrap().unwrap().unwrap_err().to_string();
        let expected =
            format!("the hub's {name} thread has ended by an error: the hub stops, and can be started again");
        assert_eq!(error, expected);
    }
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
