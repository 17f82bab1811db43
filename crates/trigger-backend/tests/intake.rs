//! What a watch does not tell is read all the same, on the store in memory.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test says what it expects")]

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::{mpsc, watch};
use trigger_backend::intake::{Intake, Outlets, read_again_after};
use trigger_backend::memory::MemoryStore;
use trigger_backend::store::{Change, Entry, Store, Watch, WatchEvent};
use trigger_core::identity::{Certname, Revision};
use trigger_core::layout::Layout;

/// A watch that lives and tells of a renewal each minute, and of nothing else.
fn blind_watch(key: String) -> Watch {
    let renewals = stream::unfold(1, move |revision| {
        let entry = Entry { key: key.clone(), value: String::new(), revision: Revision(revision) };
        async move {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Some((Ok(WatchEvent::Changes(vec![Change::Put(entry)])), revision + 1))
        }
    });
    renewals.boxed()
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_tells_of_other_things_does_not_put_off_the_reading() {
    let (layout, certname): (Layout, Certname) = (Layout::default(), "lb01".parse().unwrap());
    let store = MemoryStore::default();
    let (arrivals, mut arrived) = mpsc::channel(1);
    let (own_record, seen) = watch::channel(Revision::default());
    let outlets = Outlets { arrivals, own_record };
    let intake = Intake::new(layout.clone(), certname.clone(), BTreeMap::new(), outlets);
    let key = layout.host_delivery(&certname, "019356b0-7c4a-7000-8000-000000000001".parse().unwrap());
    store.put_many(vec![(key, r#"{"v":1,"part":0}"#.to_owned())]).await.remove(0).unwrap();

    let soon = read_again_after(0.5);
    let pause = || tokio::time::sleep(soon);
    let began = tokio::time::Instant::now();
    tokio::select! {
        error = intake.follow(&store, blind_watch(layout.node(&certname)), pause) => panic!("{error}"),
        read = arrived.recv() => {
            let batch = read.expect("all there is");
            assert!(batch.is_all && batch.arrivals.len() == 1, "{batch:?}");
        },
    }
    assert_eq!(began.elapsed(), soon);
    assert!(*seen.borrow() >= Revision(9), "and the renewals it was told of meanwhile count");
}
