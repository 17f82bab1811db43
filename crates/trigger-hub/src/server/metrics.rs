//! The hub's metrics for Prometheus: requests and watches here, the rest by the store.

use axum::http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use trigger_store::hub_protocol::{COMPARE_AND_SWAP, DELETE, HEALTH, PUT, READ, STATUS, WATCH, WHY};

use crate::served_store::ServedStore;

/// Where the hub's metrics are.
pub(super) const METRICS: &str = "/metrics";

/// A request, counted when it has been answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    kind: &'static str,
    result: &'static str,
}

/// A denied request, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DenialLabels {
    kind: &'static str,
    reason: &'static str,
}

/// What came of a handshake, or why a live connection was closed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// All metrics of one hub.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    watchers: Gauge,
    denied: Family<DenialLabels, Counter>,
    handshakes: Family<ResultLabels, Counter>,
    connections: Gauge,
    closed: Family<ReasonLabels, Counter>,
    limited: Counter,
    reloads: Family<ResultLabels, Counter>,
    crl_fetches: Family<ResultLabels, Counter>,
}

impl Metrics {
    pub(super) fn new(store: &dyn ServedStore) -> Self {
        let mut registry = Registry::with_prefix("trigger_hub");
        let mut versions = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        versions.extend(store.versions());
        registry.register("build", "The version of this hub", Info::new(versions));
        let (requests, watchers) = (Family::default(), Gauge::default());
        registry.register("requests", "Requests answered, by kind and result", requests.clone());
        registry.register("watchers", "Watches that are open", watchers.clone());
        let (handshakes, connections, closed) = (Family::default(), Gauge::default(), Family::default());
        let (limited, reloads, crl_fetches) = (Counter::default(), Family::default(), Family::default());
        let r = &mut registry;
        r.register("handshakes", "TLS handshakes that ended, by result", handshakes.clone());
        r.register("tls_connections", "TLS connections that are open", connections.clone());
        r.register(
            "closed_connections",
            "TLS connections closed because of their certificate",
            closed.clone(),
        );
        r.register("limited_requests", "Requests refused because of their certname's rate", limited.clone());
        r.register(
            "tls_reloads",
            "Certificates, keys and revocation lists read again after a change",
            reloads.clone(),
        );
        r.register(
            "crl_fetches",
            "Revocation lists fetched from the Puppet server, by result",
            crl_fetches.clone(),
        );
        let denied = Family::default();
        let help = "Requests denied by the rights or the quota of their client, by kind and reason";
        r.register("denied_requests", help, denied.clone());
        store.register_metrics(&mut registry);
        Self {
            registry,
            requests,
            watchers,
            denied,
            handshakes,
            connections,
            closed,
            limited,
            reloads,
            crl_fetches,
        }
    }

    /// Counts a handshake that has ended.
    pub(super) fn handshake(&self, result: &'static str) {
        self.handshakes.get_or_create(&ResultLabels { result }).inc();
    }

    /// Sets the number of open TLS connections.
    pub(super) fn tls_connections(&self, count: usize) {
        self.connections.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Counts a connection that was closed because of its certificate.
    pub(super) fn closed(&self, reason: &'static str) {
        self.closed.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// Counts a request that was refused because of its certname's rate.
    pub(super) fn limited(&self) {
        self.limited.inc();
    }

    /// Counts a change of the TLS files: `ok` or `failed`.
    pub(super) fn reloaded(&self, result: &'static str) {
        self.reloads.get_or_create(&ResultLabels { result }).inc();
    }

    /// Counts an answered request.
    pub(super) fn answered(&self, kind: &'static str, status: StatusCode) {
        self.requests.get_or_create(&RequestLabels { kind, result: result(status) }).inc();
    }

    /// Counts a request that its client has no right to, or no quota for.
    pub(super) fn denied(&self, kind: &'static str, reason: &'static str) {
        self.denied.get_or_create(&DenialLabels { kind, reason }).inc();
    }

    /// Counts a watch as open until the value is dropped.
    pub(super) fn open_watch(&self) -> OpenWatch {
        self.watchers.inc();
        OpenWatch(self.watchers.clone())
    }

    /// Counts a fetch of revocation lists: `new`, `unchanged` or `failed`.
    pub(super) fn crl_fetched(&self, result: &'static str) {
        self.crl_fetches.get_or_create(&ResultLabels { result }).inc();
    }

    /// Returns the page for Prometheus.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail. If it did, Prometheus would refuse the incomplete page.
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "cannot write the metrics");
        }
        text
    }
}

/// Counts an open watch.
#[derive(Debug)]
pub(super) struct OpenWatch(Gauge);

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn result(status: StatusCode) -> &'static str {
    if status.is_server_error() {
        "failed"
    } else if status.is_client_error() {
        "refused"
    } else {
        "ok"
    }
}

/// What metrics and logs call a request.
pub(super) fn kind(path: &str) -> &'static str {
    match path {
        PUT => "put",
        DELETE => "delete",
        COMPARE_AND_SWAP => "compare_and_swap",
        READ => "read",
        WHY => "why",
        STATUS => "status",
        WATCH => "watch",
        HEALTH => "healthz",
        METRICS => "metrics",
        _ => "other",
    }
}
