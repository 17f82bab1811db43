//! The state that all requests share.

use std::sync::Arc;

use tokio::sync::watch;

use super::fairness::Fairness;
use super::health::HealthCheck;
use super::metrics::Metrics;
use crate::served_store::ServedStore;

/// The state that all requests share.
pub(super) struct ServerState {
    pub(super) store: Arc<dyn ServedStore>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: HealthCheck,
    pub(super) fairness: Fairness,
    /// Changes once, when the hub stops.
    pub(super) stopping: watch::Receiver<()>,
}
