//! Watchers that are slow, and watches that begin while others write.

use super::*;

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
