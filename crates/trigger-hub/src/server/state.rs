//! The state that all requests share.

use std::sync::Arc;

use tokio::sync::watch;

use super::authorization::{Authorization, Check};
use super::caller::Caller;
use super::fairness::Fairness;
use super::health::HealthCheck;
use super::metrics::Metrics;
use super::refusal::Refusal;
use crate::served_store::ServedStore;

/// The state that all requests share.
pub(super) struct ServerState {
    pub(super) store: Arc<dyn ServedStore>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) health: HealthCheck,
    /// The checks of requests; absent on a hub that does not know its clients.
    pub(super) authorization: Option<Authorization>,
    pub(super) fairness: Fairness,
    /// Changes once, when the hub stops.
    pub(super) stopping: watch::Receiver<()>,
}

impl ServerState {
    pub(super) fn new(
        store: Arc<dyn ServedStore>,
        metrics: Arc<Metrics>,
        authorization: Option<Authorization>,
        stopping: watch::Receiver<()>,
    ) -> Self {
        let (health, fairness) = (HealthCheck::default(), Fairness::default());
        Self { store, metrics, health, authorization, fairness, stopping }
    }

    /// The checks of a request of `caller`; `None` on a hub that does not know its clients.
    ///
    /// # Errors
    /// When the hub has to know its clients and does not know this one.
    pub(super) fn check<'a>(
        &'a self,
        caller: Option<&'a Caller>,
        kind: &'static str,
    ) -> Result<Option<Check<'a>>, Refusal> {
        match (&self.authorization, caller) {
            (None, _) => Ok(None),
            (Some(authorization), Some(caller)) => {
                Ok(Some(authorization.check(&*self.store, &self.metrics, caller, kind)))
            }
            (Some(_), None) => Err(Refusal::denied("this hub serves those only who prove a certname")),
        }
    }
}
