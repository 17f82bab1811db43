//! Sweeps the backend, so that it holds no data that no node needs. Each agent checks about once an hour whether any
//! agent has swept recently, and sweeps if none has. None does on a backend that sweeps by itself.

use std::sync::Arc;
use std::time::Duration;

use trigger_core::identity::Revision;
use trigger_store::store::StoreError;

use super::Node;
use crate::host::Host;

/// How often an agent checks, with jitter across the fleet.
const POLL_INTERVAL: Duration = Duration::from_secs(60 * 60);

pub(super) async fn run<H: Host>(node: Arc<Node<H>>) {
    if node.fleet.store().sweeps_itself() {
        // The agent ends when one of its tasks does.
        std::future::pending::<()>().await;
    }
    let mut last_seen = None;
    let mut is_first_look = true;
    loop {
        node.host.sleep(POLL_INTERVAL.mul_f64(0.5 + node.host.jitter())).await;
        match look(&node, last_seen, is_first_look).await {
            Ok(seen) => {
                last_seen = seen;
                is_first_look = false;
            }
            Err(error) => tracing::warn!(%error, "cannot sweep the backend now"),
        }
    }
}

async fn look<H: Host>(
    node: &Node<H>,
    last_seen: Option<Revision>,
    is_first_look: bool,
) -> Result<Option<Revision>, StoreError> {
    let (is_ours, seen) = node.fleet.try_acquire_sweep(last_seen, is_first_look).await?;
    if is_ours {
        let swept = node.fleet.sweep(node.host.wall(), last_seen).await?;
        tracing::info!(expired = swept.expired, removed = swept.removed, "swept the backend");
    }
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use trigger_core::keyspace::{Key, Keyspace};
    use trigger_fleet::Fleet;
    use trigger_store::meddled::{Meddled, Meddler};
    use trigger_store::memory::MemoryStore;
    use trigger_store::store::{KeyRange, Store};

    use super::*;
    use crate::agent::{metrics, testing};

    /// A store that may sweep by itself.
    struct Backend {
        store: MemoryStore,
        sweeps_itself: bool,
    }

    #[async_trait]
    impl Meddler for Backend {
        fn store(&self) -> &dyn Store {
            &self.store
        }

        fn sweeps_itself(&self) -> bool {
            self.sweeps_itself
        }
    }

    /// Whether an agent has swept within a day.
    async fn sweeps(sweeps_itself: bool) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let store = MemoryStore::default();
        let backend = Meddled(Backend { store: store.clone(), sweeps_itself });
        let fleet = Fleet::new(Arc::new(backend), Keyspace::default()).acting_as("lb01".parse().unwrap());
        let settings = testing::settings(dir.path());
        let host = *settings.state.host();
        let node = Arc::new(Node { settings, metrics: metrics::Metrics::new(), fleet, host });
        let a_day = Duration::from_secs(24 * 60 * 60);
        assert!(tokio::time::timeout(a_day, run(node)).await.is_err(), "the agent would end with its task");
        let note = KeyRange::Key(Keyspace::default().key(&Key::Sweep));
        !store.list(&[note]).await.unwrap().is_empty()
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_leaves_sweeping_to_a_backend_that_sweeps_by_itself() {
        assert!(sweeps(false).await);
        assert!(!sweeps(true).await);
    }
}
