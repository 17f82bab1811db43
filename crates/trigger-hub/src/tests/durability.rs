//! The data that survives restarts, restores and backups.

use super::*;

#[tokio::test]
async fn a_restart_loses_nothing_and_watchers_come_back() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let (store, listen) = (hub.store(), hub.address.to_string());
    let before = put(&store, "/a", "1").await;
    let mut watch = store.watch(vec![all()]).await.unwrap();
    assert!(matches!(next(&mut watch).await, Some(Ok(WatchEvent::Snapshot(_)))));
    hub.stop().await;
    let ended = next(&mut watch).await.unwrap().unwrap_err().to_string();
    assert!(ended.ends_with("is unreachable: the hub ended the watch: the hub is stopping"), "{ended}");
    assert!(next(&mut watch).await.is_none(), "one error, then the end");

    let hub = Running::start_on(&listen, dir.path()).await;
    // The same client, whose kept connection is broken.
    assert_eq!(values(&store).await, ["/a=1"]);
    assert!(put(&store, "/b", "2").await > before);
    let mut watch = store.watch(vec![all()]).await.unwrap();
    let Some(Ok(WatchEvent::Snapshot(entries))) = next(&mut watch).await else { panic!("a snapshot") };
    assert_eq!(entries.len(), 2);
    assert_eq!(entries[0].revision, before);
    hub.stop().await;
}

#[tokio::test]
async fn revisions_do_not_rewind_after_a_restore() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let store = hub.store();
    put(&store, "/a", "old").await;
    let copy = dir.path().join("copy.sqlite");
    backup(dir.path(), &copy).unwrap();
    let lost = put(&store, "/a", "new").await;
    hub.stop().await;

    let restored = TempDir::new().unwrap();
    std::fs::rename(&copy, database::file(restored.path())).unwrap();
    let hub = Running::start(restored.path()).await;
    let store = hub.store();
    assert_eq!(values(&store).await, ["/a=old"]);
    assert!(put(&store, "/b", "1").await > lost, "a revision never means two things");
    // A client that knows the key's revision from after the backup must not succeed with it.
    let swap = store.compare_and_swap("/a", "newer", Some(lost)).await.unwrap();
    assert!(matches!(swap, CasOutcome::Changed(Some(_))));
    hub.stop().await;
}

#[tokio::test]
async fn a_deleted_entrys_revision_is_not_given_out_again() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    put(&hub.store(), "/a", "1").await;
    hub.store().delete_many(vec!["/a".to_owned()]).await.unwrap();
    hub.stop().await;
    // As if its clock were set back, so that only the stored position is right.
    let far = i64::MAX / 2;
    let database = Connection::open(database::file(dir.path())).unwrap();
    database.execute("UPDATE position SET revision = ?1", [far]).unwrap();
    drop(database);
    let hub = Running::start(dir.path()).await;
    assert_eq!(put(&hub.store(), "/a", "2").await, Revision(far.cast_unsigned() + 1));
    hub.stop().await;
}

#[tokio::test]
async fn a_backup_of_a_busy_hub_is_whole() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let store = hub.store();
    let out = TempDir::new().unwrap();
    // Each put is a pair in one transaction. A copy of two moments would show half of a pair.
    let write = async {
        for n in 0..300 {
            let pair = ["left", "right"].map(|side| (format!("/{side}/{n:03}"), "x".repeat(500)));
            assert!(store.put_many(pair.to_vec()).await.iter().all(Result::is_ok));
        }
    };
    let copy = async {
        for n in 0..10 {
            let (data_dir, file) = (dir.path().to_owned(), out.path().join(format!("{n}.sqlite")));
            tokio::task::spawn_blocking(move || backup(&data_dir, &file)).await.unwrap().unwrap();
        }
    };
    tokio::join!(write, copy);
    for n in 0..10 {
        let copy = Connection::open(out.path().join(format!("{n}.sqlite"))).unwrap();
        let count = |side: &str| -> i64 {
            copy.query_row("SELECT count(*) FROM entries WHERE key LIKE ?1", [side], |row| row.get(0))
                .unwrap()
        };
        assert_eq!(count("/left/%"), count("/right/%"));
    }
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 10, "nothing unfinished stays");
    hub.stop().await;
    backup(dir.path(), &out.path().join("stopped.sqlite")).unwrap();
}

#[tokio::test]
async fn a_backup_put_beside_a_killed_hubs_log_is_not_ruined_by_it() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let store = hub.store();
    put(&store, "/a", "old").await;
    let restored = TempDir::new().unwrap();
    backup(dir.path(), &database::file(restored.path())).unwrap();
    let more = (0..500).map(|n| (format!("/{n}"), "x".repeat(500))).collect();
    assert!(store.put_many(more).await.iter().all(Result::is_ok));
    // The files that a kill -9 would leave there.
    let log = |dir: &TempDir| dir.path().join("hub.sqlite-wal");
    std::fs::copy(log(&dir), log(&restored)).unwrap();
    hub.stop().await;

    let hub = Running::start(restored.path()).await;
    assert_eq!(values(&hub.store()).await, ["/a=old"]);
    assert!(restored.path().join("hub.sqlite-wal.replaced").exists(), "quarantined, not deleted");
    hub.stop().await;
}

#[tokio::test]
async fn a_killed_hub_is_backed_up_with_its_log() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    put(&hub.store(), "/a", "1").await;
    let killed = TempDir::new().unwrap();
    for name in ["hub.sqlite", "hub.sqlite-wal"] {
        std::fs::copy(dir.path().join(name), killed.path().join(name)).unwrap();
    }
    hub.stop().await;
    let copy = killed.path().join("copy.sqlite");
    backup(killed.path(), &copy).unwrap();
    let count: i64 = Connection::open(copy)
        .unwrap()
        .query_row("SELECT count(*) FROM entries", (), |row| row.get(0))
        .unwrap();
    assert_eq!(count, 1);
    let hub = Running::start(killed.path()).await;
    assert_eq!(values(&hub.store()).await, ["/a=1"]);
    hub.stop().await;
}

#[tokio::test]
async fn a_backup_overwrites_nothing() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("copy.sqlite");
    assert_eq!(
        backup(dir.path(), &file).unwrap_err().to_string(),
        format!("there is no hub's database in {}: give the --data-dir of the hub", dir.path().display())
    );
    Running::start(dir.path()).await.stop().await;
    std::fs::write(&file, "precious").unwrap();
    assert_eq!(
        backup(dir.path(), &file).unwrap_err().to_string(),
        format!(
            "{} exists already: a backup never overwrites a file; give another name or remove it",
            file.display()
        )
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    let error = backup(dir.path(), &dir.path().join("missing/copy.sqlite")).unwrap_err().to_string();
    assert!(error.contains("No such file or directory"), "{error}");
}

#[tokio::test]
async fn a_hub_that_was_stopped_is_complete_in_its_one_file() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let store = hub.store();
    let mut watch = store.watch(vec![all()]).await.unwrap();
    assert!(matches!(next(&mut watch).await, Some(Ok(WatchEvent::Snapshot(_)))));
    put(&store, "/a", "1").await;
    hub.stop().await;
    let copied = TempDir::new().unwrap();
    std::fs::copy(database::file(dir.path()), database::file(copied.path())).unwrap();
    let names: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "the lock and the database, without a log: {names:?}");
    let hub = Running::start(copied.path()).await;
    assert_eq!(values(&hub.store()).await, ["/a=1"]);
    hub.stop().await;
}

#[tokio::test]
async fn another_reader_does_not_keep_the_log_out_of_the_database() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let reader = Connection::open(database::file(dir.path())).unwrap();
    reader.query_row("SELECT count(*) FROM entries", (), |row| row.get::<_, i64>(0)).unwrap();
    put(&hub.store(), "/a", "1").await;
    hub.stop().await;
    let copied = TempDir::new().unwrap();
    std::fs::copy(database::file(dir.path()), database::file(copied.path())).unwrap();
    let hub = Running::start(copied.path()).await;
    assert_eq!(values(&hub.store()).await, ["/a=1"]);
    hub.stop().await;
    drop(reader);
}

#[tokio::test]
async fn a_copy_of_a_stopped_hub_put_beside_a_killed_hubs_log_is_not_ruined_by_it() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    put(&hub.store(), "/a", "old").await;
    hub.stop().await;
    let restored = TempDir::new().unwrap();
    std::fs::copy(database::file(dir.path()), database::file(restored.path())).unwrap();
    let hub = Running::start(dir.path()).await;
    put(&hub.store(), "/a", "new").await;
    let log = |dir: &TempDir| dir.path().join("hub.sqlite-wal");
    std::fs::copy(log(&dir), log(&restored)).unwrap();
    hub.stop().await;
    let hub = Running::start(restored.path()).await;
    assert_eq!(values(&hub.store()).await, ["/a=old"]);
    hub.stop().await;
}

#[tokio::test]
async fn a_hub_never_begins_again_with_an_empty_database_by_itself() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    put(&hub.store(), "/a", "1").await;
    hub.stop().await;
    let path = database::file(dir.path());
    let aside = dir.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    let error = start_fails("127.0.0.1:0", dir.path()).await;
    let (database, lock) = (path.display(), dir.path().join("hub.lock"));
    assert_eq!(
        error,
        format!(
            "the hub's database {database} is gone: restore a backup there, or remove {} to begin with an \
             empty one",
            lock.display()
        )
    );
    assert!(!path.exists());
    std::fs::rename(&aside, &path).unwrap();
    let hub = Running::start(dir.path()).await;
    assert_eq!(values(&hub.store()).await, ["/a=1"]);
    hub.stop().await;
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(lock).unwrap();
    Running::start(dir.path()).await.stop().await;
}
