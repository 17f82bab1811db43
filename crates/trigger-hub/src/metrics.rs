//! What a hub tells Prometheus.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

/// A request, counted when it has been answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    kind: &'static str,
    result: &'static str,
}

/// All figures of one hub.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    watchers: Gauge,
    watches_cut: Counter,
    commits: Histogram,
    commit_failures: Counter,
    entries: Gauge,
    revision: Gauge,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("trigger_hub"),
            requests: Family::default(),
            watchers: Gauge::default(),
            watches_cut: Counter::default(),
            // From an SSD's quarter of a millisecond to a disk in trouble: 0.25 ms to 8 s.
            commits: Histogram::new(exponential_buckets(0.000_25, 2.0, 16)),
            commit_failures: Counter::default(),
            entries: Gauge::default(),
            revision: Gauge::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        let build = Info::new([("version", env!("CARGO_PKG_VERSION")), ("sqlite", rusqlite::version())]);
        registry.register("build", "The version of this hub", build);
        registry.register("requests", "Requests answered, by kind and result", self.requests.clone());
        registry.register("watchers", "Watches that are open", self.watchers.clone());
        registry.register("watches_cut", "Watches ended because they fell behind", self.watches_cut.clone());
        let help = "Transactions synced to disk, and how long each took";
        registry.register_with_unit("commit_duration", help, Unit::Seconds, self.commits.clone());
        registry.register("commit_failures", "Writes that could not be stored", self.commit_failures.clone());
        registry.register("entries", "Keys stored", self.entries.clone());
        registry.register("revision", "The latest revision", self.revision.clone());
    }

    /// A request has been answered.
    pub(super) fn answered(&self, kind: &'static str, result: &'static str) {
        self.requests.get_or_create(&RequestLabels { kind, result }).inc();
    }

    /// A watch is open until the value is dropped.
    pub(super) fn watching(&self) -> Watching {
        self.watchers.inc();
        Watching(self.watchers.clone())
    }

    /// A watch has been ended because it fell behind.
    pub(super) fn watch_cut(&self) {
        self.watches_cut.inc();
    }

    /// A transaction is on disk.
    pub(super) fn committed(&self, took: Duration) {
        self.commits.observe(took.as_secs_f64());
    }

    /// A write failed.
    pub(super) fn commit_failed(&self) {
        self.commit_failures.inc();
    }

    /// What is stored now.
    pub(super) fn stored(&self, entries: i64, revision: u64) {
        self.entries.set(entries);
        self.revision.set(revision.cast_signed());
    }

    /// All of it, as whoever asks for it reads it.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail; half a page would still be one that Prometheus refuses.
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "cannot write the metrics");
        }
        text
    }
}

/// Counts an open watch.
#[derive(Debug)]
pub(super) struct Watching(Gauge);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.dec();
    }
}
