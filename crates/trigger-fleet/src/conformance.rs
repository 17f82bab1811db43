//! The life of an event, on any store: what every backend passes besides [`trigger_store::conformance`].

use std::future::Future;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use trigger_core::delivery::{Completion, DeliveryOutcome};
use trigger_core::event::{DEFAULT_LIFETIME, Event, RunOptions, Target, Targets};
use trigger_core::identity::{Certname, EventId, InvalidName, Revision};
use trigger_core::keyspace::{Key, Keyspace};
use trigger_core::lineage::{Lineage, Loops};
use trigger_core::node::{Activity, NodeRecord};
use trigger_core::publication::Publication;
use trigger_core::run::{CompletedRun, RunOutcome, RunResult};
use trigger_core::status::DeliveryStatus;
use trigger_core::sweep::{EVENT_RETENTION, SWEEP_GRACE_PERIOD};
use trigger_core::time::Timestamp;
use trigger_store::store::{KeyRange, Store};

use crate::Fleet;
use crate::sweeping::Swept;

/// Takes an event from its firing to its removal on the store that `open` returns.
///
/// # Panics
/// When the event does not end as it should: this is a test.
pub async fn check<S: Store + 'static, F: Future<Output = S>>(open: impl Fn() -> F) {
    let nonce = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let prefix = format!("/conformance/{}/life", nonce.as_nanos());
    an_event_lives_and_goes_with_all_that_belongs_to_it(Arc::new(open().await), &prefix).await;
}

/// The code above the store trait, from an event's firing to its sweeping, on this store.
async fn an_event_lives_and_goes_with_all_that_belongs_to_it(store: Arc<dyn Store>, prefix: &str) {
    let keyspace = Keyspace::new(prefix.parse().unwrap_or_else(|error| panic!("{error}")));
    let fleet = Fleet::new(store, keyspace);
    let fired_at = Timestamp::from_unix_ms(1_763_812_800_000);
    register(&fleet, "web01", &[], fired_at).await;
    register(&fleet, "lb01", &["lb"], fired_at).await;
    let publication = publication(prefix, fired_at);
    let published = fleet.publish(&publication, true).await.unwrap_or_else(|error| panic!("{error}"));
    assert!(published.empty_groups.is_empty(), "{published:?}");
    let states = async || {
        let status = fleet.event_status(publication.event.id).await;
        let status =
            status.unwrap_or_else(|error| panic!("{error}")).unwrap_or_else(|| panic!("it is there"));
        let state = |(certname, status): (&Certname, &DeliveryStatus)| format!("{certname} {}", status.state);
        status.targets.iter().map(state).collect::<Vec<_>>()
    };
    assert_eq!(states().await, ["gone pending", "lb01 pending", "web01 pending"]);

    for certname in ["lb01", "web01"] {
        let target =
            if certname == "lb01" { Target::Group(named("lb")) } else { Target::Node(named(certname)) };
        let addressed_as = [target].into();
        let completion = Completion { event: publication.event.id, addressed_as, outcome: done(fired_at) };
        fleet
            .clone()
            .acting_as(named(certname))
            .finish(&[completion])
            .await
            .unwrap_or_else(|e| panic!("{e}"));
    }
    assert_eq!(states().await, ["gone pending", "lb01 done", "web01 done"]);

    // Nodes are registered at every sweep.
    let swept_after = async |after: Duration| {
        let now = publication.event.expires_at().plus(after);
        register(&fleet, "web01", &[], now).await;
        register(&fleet, "lb01", &["lb"], now).await;
        fleet.sweep(now, None).await.unwrap_or_else(|error| panic!("{error}"))
    };
    let late = Duration::from_secs(1);
    assert_eq!(swept_after(SWEEP_GRACE_PERIOD).await, Swept::default());
    assert_eq!(swept_after(SWEEP_GRACE_PERIOD + late).await, Swept { expired: 1, removed: 0 });
    assert_eq!(states().await, ["gone expired", "lb01 done", "web01 done"]);
    assert_eq!(swept_after(EVENT_RETENTION).await, Swept::default(), "it can still be looked at");
    assert_eq!(swept_after(EVENT_RETENTION + late).await, Swept { expired: 0, removed: 1 });
    let all = [KeyRange::Prefix(format!("{prefix}/"))];
    let left = fleet.store().read(&all).await.unwrap_or_else(|error| panic!("{error}"));
    let left: Vec<String> = left.into_iter().map(|entry| entry.key).collect();
    let node = |certname| fleet.keyspace().key(&Key::Node { certname: named(certname) });
    assert_eq!(left, [node("lb01"), node("web01")]);
}

fn named<T: FromStr<Err = InvalidName>>(name: &str) -> T {
    name.parse().unwrap_or_else(|error| panic!("{error}"))
}

async fn register(fleet: &Fleet, certname: &str, groups: &[&str], now: Timestamp) {
    let record = NodeRecord {
        instance: certname.to_owned(),
        lock: None,
        released: false,
        location: String::new(),
        renewals: 1,
        version: "0".to_owned(),
        seen_at: now,
        groups: groups.iter().map(|group| (named(group), Revision(0))).collect(),
        activity: Activity::default(),
    };
    let key = fleet.keyspace().key(&Key::Node { certname: named(certname) });
    let results = fleet.store().put_many(vec![(key, fleet.codec().encode(&record))]).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

fn publication(prefix: &str, fired_at: Timestamp) -> Publication {
    let id: EventId = named("019356b0-7c4a-7000-8000-000000000001");
    let hosts = ["web01", "gone"].map(named).into();
    let event = Event {
        id,
        trigger: named("a whole life"),
        origin: named("web01"),
        targets: Targets { hosts, groups: [named("lb")].into() },
        options: RunOptions::default(),
        lineage: Lineage::root(id),
        fired_in: None,
        fired_by: None,
        catalog: None,
        loops: Loops::Avoid,
        fired_at,
        expires_in: DEFAULT_LIFETIME,
    };
    let (suppressed, suppressed_groups) = Default::default();
    Publication { backend: String::new(), prefix: named(prefix), event, suppressed, suppressed_groups }
}

fn done(at: Timestamp) -> DeliveryOutcome {
    let (started_at, finished_at) = (at, at);
    let result = RunResult {
        outcome: RunOutcome::Changed,
        reason: None,
        reported_noop: false,
        drift: Default::default(),
        started_at,
        finished_at,
    };
    DeliveryOutcome::Done(CompletedRun::new(named("019356b0-7c4a-7000-8000-000000000002"), false, result))
}
