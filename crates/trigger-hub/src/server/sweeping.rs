//! Removes what no node needs any more. A hub that knows its clients does it by itself, because no node may remove what
//! others have written. A plain hub leaves it to the agents.

use std::time::Duration;

use tokio::time::sleep;
use trigger_core::identity::Revision;
use trigger_fleet::Fleet;
use trigger_store::store::StoreError;

use super::clock::now;

/// How often the hub sweeps.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How long after its start it begins: the agents connect first, and their registrations say what time it is.
const FIRST_SWEEP_AFTER: Duration = Duration::from_secs(5 * 60);

/// Sweeps `fleet`, which acts for the hub, for as long as it is polled. Calls `removed` after each sweep that has removed events.
pub(super) async fn sweep_by_itself(fleet: Fleet, removed: impl Fn()) {
    sleep(FIRST_SWEEP_AFTER).await;
    let mut last = None;
    loop {
        match sweep(&fleet, last, &removed).await {
            Ok(revision) => last = revision,
            Err(error) => tracing::warn!(%error, "cannot sweep now"),
        }
        sleep(SWEEP_INTERVAL).await;
    }
}

/// Sweeps once, and leaves a note of it, by whose revision the next one knows which nodes have registered since.
async fn sweep(
    fleet: &Fleet,
    last: Option<Revision>,
    removed: impl Fn(),
) -> Result<Option<Revision>, StoreError> {
    let noted = fleet.note_sweep().await?;
    // Whoever shows that a delivery has expired verifies that the hub says so.
    fleet.announce_certificate().await?;
    let swept = fleet.sweep(now(), last).await;
    // Also one that was broken off may have removed some.
    if swept.as_ref().map_or(true, |swept| swept.removed > 0) {
        removed();
    }
    let swept = swept?;
    tracing::info!(expired = swept.expired, removed = swept.removed, "swept the store");
    Ok(Some(noted))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use trigger_core::delivery::DeliveryState;
    use trigger_core::event::{Event, RunOptions, Targets};
    use trigger_core::identity::{Certname, EventId, KeyPrefix};
    use trigger_core::keyspace::{Key, Keyspace, Range};
    use trigger_core::lineage::{Lineage, Loops};
    use trigger_core::publication::Publication;
    use trigger_core::time::Timestamp;
    use trigger_store::memory::MemoryStore;
    use trigger_store::store::{KeyRange, Store};

    use super::*;

    /// Publishes an event of the year 2025 for `lb01`.
    async fn fire_long_ago(fleet: &Fleet) -> EventId {
        let id: EventId = "0192a000-0000-7000-8000-000000000001".parse().unwrap();
        let target: Certname = "lb01".parse().unwrap();
        let event = Event {
            id,
            trigger: "t".parse().unwrap(),
            origin: "web01".parse().unwrap(),
            targets: Targets { hosts: [target].into(), groups: Default::default() },
            options: RunOptions::default(),
            lineage: Lineage::root(id),
            fired_in: None,
            fired_by: None,
            catalog: None,
            loops: Loops::Avoid,
            fired_at: Timestamp::from_unix_ms(1_735_689_600_000),
            expires_in: Duration::from_secs(60),
        };
        let publication = Publication {
            backend: "memory:".to_owned(),
            prefix: KeyPrefix::default(),
            event,
            suppressed: Default::default(),
            suppressed_groups: Default::default(),
        };
        fleet.publish(&publication, false).await.unwrap();
        id
    }

    #[tokio::test(start_paused = true)]
    async fn the_hub_expires_what_is_overdue_and_removes_what_has_ended() {
        let store = MemoryStore::default();
        let hub: Certname = "puppet".parse().unwrap();
        let fleet = Fleet::new(Arc::new(store.clone()), Keyspace::default()).acting_as(hub);
        let event = fire_long_ago(&fleet).await;
        let removals = Arc::new(AtomicUsize::default());
        let counted = Arc::clone(&removals);
        let count = move || {
            counted.fetch_add(1, Ordering::Relaxed);
        };
        let sweeping = tokio::spawn(sweep_by_itself(fleet.clone(), count));
        let state = async || {
            let status = fleet.event_status(event).await.unwrap()?;
            status.targets.values().next().map(|target| target.state)
        };
        assert_eq!(state().await, Some(DeliveryState::Pending));
        while state().await == Some(DeliveryState::Pending) {
            sleep(Duration::from_secs(60)).await;
        }
        assert_eq!(removals.load(Ordering::Relaxed), 0, "nothing was removed yet");
        while state().await.is_some() {
            sleep(Duration::from_secs(60)).await;
        }
        sleep(Duration::from_secs(60)).await;
        assert_eq!(removals.load(Ordering::Relaxed), 1);
        let keyspace = Keyspace::default();
        let sweep = KeyRange::Key(keyspace.key(&Key::Sweep));
        assert_eq!(store.read(&[sweep]).await.unwrap()[0].value, "puppet");
        let left = KeyRange::Prefix(keyspace.range(&Range::Events));
        assert_eq!(store.list(&[left]).await.unwrap(), []);
        sweeping.abort();
    }
}
