//! Watchers that are slow, and watches that begin while others write.

use super::*;
use crate::served_store::{PagedEvent, ServedStore};

#[tokio::test]
async fn a_watcher_that_does_not_read_stalls_no_other_and_is_cut() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let store = hub.store();
    let mut watch = store.watch(vec![all()]).await.unwrap();
    assert!(matches!(next(&mut watch).await, Some(Ok(WatchEvent::Snapshot(_)))));
    // More data than the watcher's backlog and the sockets' buffers hold.
    let value = "x".repeat(1024 * 1024);
    for n in 0..60 {
        put(&store, &format!("/{}", n % 4), &value).await;
    }
    let ended = loop {
        match next(&mut watch).await.unwrap() {
            Ok(WatchEvent::Changes(_)) => {}
            Ok(WatchEvent::Snapshot(_)) => panic!("one snapshot"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(ended.ends_with("the hub ended the watch: the watcher fell too far behind"), "{ended}");
    hub.stop().await;
}

#[tokio::test]
async fn a_watch_of_puts_reports_no_deletion_and_another_one_does() {
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let store = hub.store();
    let (mut changes, mut puts) =
        (store.watch(vec![all()]).await.unwrap(), store.watch_puts(vec![all()]).await.unwrap());
    for watch in [&mut changes, &mut puts] {
        assert!(matches!(next(watch).await, Some(Ok(WatchEvent::Snapshot(_)))));
    }
    put(&store, "/a", "1").await;
    store.delete_many(vec!["/a".to_owned()]).await.unwrap();
    put(&store, "/b", "2").await;
    for (mut watch, expected) in [(changes, "/a gone /a /b"), (puts, "/a /b")] {
        let mut seen = Vec::new();
        while seen.last().is_none_or(|last| last != "/b") {
            let Some(Ok(WatchEvent::Changes(changes))) = next(&mut watch).await else { panic!("{seen:?}") };
            seen.extend(changes.into_iter().map(|change| match change {
                Change::Put(entry) => entry.key,
                Change::Deleted(key) => format!("gone {key}"),
            }));
        }
        assert_eq!(seen.join(" "), expected);
    }
    hub.stop().await;
}

#[tokio::test]
async fn watches_opened_while_others_write_miss_nothing() {
    const KEYS: usize = 1000;
    let dir = TempDir::new().unwrap();
    let hub = Running::start(dir.path()).await;
    let store = hub.store();
    let write = async {
        for n in 0..KEYS {
            put(&store, &format!("/{n}"), "1").await;
        }
    };
    // The watches open one after the other, so that each opens at another moment of the writing.
    let watch = async |store: HubStore| {
        for _ in 0..20 {
            let mut watch = store.watch(vec![all()]).await.unwrap();
            let mut seen = std::collections::BTreeSet::new();
            let Some(Ok(WatchEvent::Snapshot(entries))) = next(&mut watch).await else {
                panic!("a snapshot")
            };
            let known = entries.len();
            seen.extend(entries.into_iter().map(|entry| entry.key));
            while seen.len() < (known + 20).min(KEYS) {
                let Some(Ok(WatchEvent::Changes(changes))) = next(&mut watch).await else {
                    panic!("changes")
                };
                for change in changes {
                    let Change::Put(entry) = change else { panic!("nothing is deleted") };
                    assert_eq!(entry.key, format!("/{}", seen.len()), "each once, in order, none missing");
                    seen.insert(entry.key);
                }
            }
        }
    };
    tokio::join!(write, watch(hub.store()), watch(hub.store()), watch(hub.store()));
    hub.stop().await;
}

/// A snapshot is as large as what is stored, and a hub has many clients that do not take theirs.
#[tokio::test]
async fn a_large_snapshot_is_read_in_pages_and_shows_each_change_once() {
    let dir = TempDir::new().unwrap();
    let (store, closed) = SqliteStore::open(dir.path()).unwrap();
    let write = async |key: &str, value: &str| {
        store.put_many(vec![(key.to_owned(), value.repeat(100 * 1024))]).await.remove(0).unwrap();
    };
    for n in 0..8 {
        write(&format!("/a/{n}"), "1").await;
    }
    let mut watch = store.watch_in_pages(vec![KeyRange::Prefix("/a/".to_owned())], false).await.unwrap();
    let (mut shown, mut pages) = (Vec::new(), 0);
    loop {
        let Some(Ok(PagedEvent::Snapshot { entries, is_last })) = watch.next().await else {
            panic!("a page")
        };
        assert!(entries.len() <= 3, "a page is bounded: {}", entries.len());
        shown.extend(entries.into_iter().map(|entry| (entry.key, entry.value[..1].to_owned())));
        pages += 1;
        if pages == 1 {
            // In a page that was shown, and in one that was not.
            write("/a/1", "2").await;
            write("/a/7", "2").await;
        }
        if is_last {
            break;
        }
    }
    write("/a/8", "3").await;
    let keys: Vec<&str> = shown.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["/a/0", "/a/1", "/a/2", "/a/3", "/a/4", "/a/5", "/a/6", "/a/7"]);
    assert_eq!((shown[1].1.as_str(), shown[7].1.as_str()), ("1", "2"));
    let mut changed = Vec::new();
    while changed.len() < 2 {
        let Some(Ok(PagedEvent::Changes(changes))) = watch.next().await else { panic!("changes") };
        changed.extend(changes.into_iter().map(|change| match change {
            Change::Put(entry) => (entry.key, entry.value[..1].to_owned()),
            Change::Deleted(key) => panic!("{key} was not deleted"),
        }));
    }
    assert_eq!(
        changed,
        [("/a/1", "2"), ("/a/8", "3")].map(|(key, value)| (key.to_owned(), value.to_owned()))
    );
    drop((watch, store));
    closed.wait().await;
}
