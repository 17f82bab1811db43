//! Makes etcd compact changes that an agent's watch has not received. A watch that keeps up is never cancelled by a
//! compaction: it must first fall behind, which the server notices when its queue for the watch is full.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use trigger_store::store::{Store, StoreError};

use crate::fleet::certname;
use crate::link::Mode;
use crate::stored::PREFIX;
use crate::testbed::Testbed;

/// The number of changes by which a watch must fall behind: the server's queue holds 1024 in etcd 3.4, and the data
/// on its way to a client that reads nothing is limited to 128 KiB.
const CHANGES: usize = 1_600;
/// The size of each change in bytes.
const BYTES: usize = 600;
/// The number of changes on their way at the same time.
const AT_ONCE: usize = 64;
/// The time that a backend under faults may take to delete the changes again.
const DELETION_TIMEOUT: Duration = Duration::from_secs(90);
/// The message that an agent logs when its watch was cancelled because of a compaction.
const LOGGED: &str = "a compaction overtook the watch";
/// The time that an agent may take to read everything that was sent before.
const LOG_TIMEOUT: Duration = Duration::from_secs(10);
/// The time for which the link is broken, long enough to end a watch.
const BROKEN_FOR: Duration = Duration::from_millis(500);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Silences a node's watch, makes etcd compact what it has not received, and lets it go on. Fails with the reason if
/// the agent did not notice.
pub(crate) fn overtake(
    testbed: &Testbed,
    node: usize,
    silence: impl FnOnce() -> Result<(), String>,
    go_on: impl FnOnce(),
) -> Result<(), String> {
    let before = times_overtaken(testbed, node);
    let store = testbed.store()?;
    silence()?;
    let forgotten = testbed.runtime().block_on(forget(&store, &certname(node)));
    let forgotten = forgotten.and_then(|()| testbed.backend().compact());
    go_on();
    let overtaken = forgotten.and_then(|()| wait_until_overtaken(testbed, node, before));
    if overtaken.is_err() {
        // The agent may have seen the key that is no delivery, and reports it until it reads everything again.
        testbed.wire(node, None, Mode::Broken);
        sleep(BROKEN_FOR);
        testbed.wire(node, None, Mode::Open);
    }
    overtaken
}

fn wait_until_overtaken(testbed: &Testbed, node: usize, before: usize) -> Result<(), String> {
    let began = Instant::now();
    while times_overtaken(testbed, node) == before {
        if began.elapsed() > LOG_TIMEOUT {
            return Err(format!("the watch of {} was not overtaken", certname(node)));
        }
        sleep(POLL_INTERVAL);
    }
    Ok(())
}

fn times_overtaken(testbed: &Testbed, node: usize) -> usize {
    testbed.node(node).agent_log().matches(LOGGED).count()
}

/// Changes a key that the agent watches and that is no delivery, and deletes it.
async fn forget(store: &Arc<dyn Store>, certname: &str) -> Result<(), String> {
    let key = format!("{PREFIX}deliveries/{certname}/no-delivery");
    let written = write(store, &key).await;
    // Whatever the result, the key must be deleted before the agent reads everything again.
    let began = Instant::now();
    let mut deleted = store.delete_many(vec![key.clone()]).await;
    while deleted.is_err() && began.elapsed() < DELETION_TIMEOUT {
        tokio::time::sleep(POLL_INTERVAL).await;
        deleted = store.delete_many(vec![key.clone()]).await;
    }
    written?;
    deleted.map_err(|error| error.to_string())
}

async fn write(store: &Arc<dyn Store>, key: &str) -> Result<(), String> {
    let mut writers = JoinSet::new();
    for writer in 0..AT_ONCE {
        let (store, key) = (Arc::clone(store), key.to_owned());
        writers.spawn(async move {
            for _ in (writer..CHANGES).step_by(AT_ONCE) {
                let entry = (key.clone(), "v".repeat(BYTES));
                store.put_many(vec![entry]).await.into_iter().collect::<Result<Vec<_>, _>>()?;
            }
            Ok::<(), StoreError>(())
        });
    }
    while let Some(ended) = writers.join_next().await {
        let written = ended.map_err(|error| error.to_string())?;
        written.map_err(|error| error.to_string())?;
    }
    Ok(())
}
