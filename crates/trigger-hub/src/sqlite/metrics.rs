//! The store's part of the hub's metrics.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Commits, contents and watches of one store.
#[derive(Debug)]
pub(super) struct Metrics {
    watches_cut: Counter,
    commits: Histogram,
    commit_failures: Counter,
    entries: Gauge,
    revision: Gauge,
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self {
            watches_cut: Counter::default(),
            // From an SSD's quarter of a millisecond to a disk in trouble: 0.25 ms to 8 s.
            commits: Histogram::new(exponential_buckets(0.000_25, 2.0, 16)),
            commit_failures: Counter::default(),
            entries: Gauge::default(),
            revision: Gauge::default(),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("watches_cut", "Watches ended because they fell behind", self.watches_cut.clone());
        let help = "Transactions synced to disk, and how long each took";
        registry.register_with_unit("commit_duration", help, Unit::Seconds, self.commits.clone());
        registry.register("commit_failures", "Writes that could not be stored", self.commit_failures.clone());
        registry.register("entries", "Keys stored", self.entries.clone());
        registry.register("revision", "The latest revision", self.revision.clone());
    }

    /// Counts a watch that was ended because it fell behind.
    pub(super) fn watch_cut(&self) {
        self.watches_cut.inc();
    }

    /// Counts a transaction that is on disk.
    pub(super) fn committed(&self, took: Duration) {
        self.commits.observe(took.as_secs_f64());
    }

    /// Counts a write that failed.
    pub(super) fn commit_failed(&self) {
        self.commit_failures.inc();
    }

    /// Sets the number of stored entries and the latest revision.
    pub(super) fn stored(&self, entries: i64, revision: u64) {
        self.entries.set(entries);
        self.revision.set(revision.cast_signed());
    }
}
