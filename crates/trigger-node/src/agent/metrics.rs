//! The agent's metrics. Counters start at zero with each start of the agent, as Prometheus expects of a process.

use std::collections::BTreeMap;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use trigger_core::delivery::{DeliveryOutcome, DeliveryState};
use trigger_core::loop_guard::Rule;
use trigger_core::queue::Queue;
use trigger_core::run::{RunOutcome, RunResult};

use crate::firing::Fired;
use crate::metrics;

/// The rule of a target that a member of a group suppresses by its own check of the chain.
const BY_MEMBER: &str = "member";
/// The buckets in seconds: a Puppet run takes from seconds to an hour.
const DURATIONS: [f64; 10] = [1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RuleLabel {
    rule: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// All metrics of one agent.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    fired: Family<ResultLabel, Counter>,
    suppressed: Family<RuleLabel, Counter>,
    ended: Family<StateLabel, Counter>,
    runs: Family<OutcomeLabel, Counter>,
    run_durations: Histogram,
    last_run_end: Gauge,
    deliveries: Family<StateLabel, Gauge>,
    delays: Counter,
    spooled: Gauge,
    quarantined: Gauge,
    connected: Gauge,
    claim_held: Gauge,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("trigger_agent"),
            fired: Family::default(),
            suppressed: Family::default(),
            ended: Family::default(),
            runs: Family::default(),
            run_durations: Histogram::new(DURATIONS),
            last_run_end: Gauge::default(),
            deliveries: Family::default(),
            delays: Counter::default(),
            spooled: Gauge::default(),
            quarantined: Gauge::default(),
            connected: Gauge::default(),
            claim_held: Gauge::default(),
        };
        metrics.register();
        metrics.begin_at_zero();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The version of this agent", build);
        let help = "Events that commands on this node handed to the agent, by what became of them";
        registry.register("events_fired", help, self.fired.clone());
        let help = "Targets and groups that the loop guard suppressed, by its rule: the pair of trigger and target, \
                    the hops of the chain, the fires for one root event (all three at the end of the run that \
                    fired), or the own look of this node as a member";
        registry.register("targets_suppressed", help, self.suppressed.clone());
        registry.register("deliveries_ended", "Deliveries that ended here, by state", self.ended.clone());
        registry.register("runs", "Runs that ended, by outcome", self.runs.clone());
        let help = "How long runs took";
        registry.register_with_unit("run_duration", help, Unit::Seconds, self.run_durations.clone());
        let help = "When the latest run ended, in seconds since 1970; 0 before the first";
        registry.register_with_unit("last_run_end_timestamp", help, Unit::Seconds, self.last_run_end.clone());
        registry.register("deliveries", "Deliveries that are here now, by state", self.deliveries.clone());
        let help = "How often the limit on runs, runs_per_minute, began to delay one";
        registry.register("rate_limit_delays", help, self.delays.clone());
        registry.register("outbox_spooled", "Events that wait in the outbox", self.spooled.clone());
        let help = "Events quarantined that can never be published";
        registry.register("outbox_quarantined", help, self.quarantined.clone());
        registry.register("backend_connected", "Whether the backend is watched", self.connected.clone());
        let help = "Whether this agent holds the claim on its certname";
        registry.register("claim_held", help, self.claim_held.clone());
    }

    /// Creates every series with the value zero, because Prometheus sees no increase when a new series appears.
    fn begin_at_zero(&self) {
        for result in ["committed", "spooled", "failed"] {
            drop(self.fired.get_or_create(&ResultLabel { result }));
        }
        for rule in Rule::ALL.map(Rule::as_str).into_iter().chain([BY_MEMBER]) {
            drop(self.suppressed.get_or_create(&RuleLabel { rule }));
        }
        for state in DeliveryState::ENDS.map(DeliveryState::as_str) {
            drop(self.ended.get_or_create(&StateLabel { state }));
        }
        for outcome in RunOutcome::all().map(RunOutcome::as_str) {
            drop(self.runs.get_or_create(&OutcomeLabel { outcome }));
        }
    }

    /// Counts an event that a command on this node fired through this agent.
    pub(super) fn fired(&self, fired: Option<&Fired>) {
        let result = match fired {
            Some(Fired::Committed(_)) => "committed",
            Some(Fired::Spooled(_)) => "spooled",
            None => "failed",
        };
        self.fired.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts the targets that the loop guard suppressed in a run that has ended, by rule.
    pub(super) fn suppressed(&self, by_rule: &BTreeMap<Rule, usize>) {
        for (rule, count) in by_rule {
            self.suppressed.get_or_create(&RuleLabel { rule: rule.as_str() }).inc_by(*count as u64);
        }
    }

    /// Counts a delivery that ended here.
    pub(super) fn ended(&self, end: &DeliveryOutcome) {
        let state = end.state();
        self.ended.get_or_create(&StateLabel { state: state.as_str() }).inc();
        if state == DeliveryState::Suppressed {
            self.suppressed.get_or_create(&RuleLabel { rule: BY_MEMBER }).inc();
        }
    }

    /// Counts a run that ended.
    pub(super) fn run_ended(&self, result: &RunResult) {
        self.runs.get_or_create(&OutcomeLabel { outcome: result.outcome.as_str() }).inc();
        self.run_durations.observe(result.finished_at.since(result.started_at).as_secs_f64());
        self.last_run_ended(result);
    }

    /// Sets the end of the latest run, which may be an earlier agent's.
    pub(super) fn last_run_ended(&self, result: &RunResult) {
        let seconds = result.finished_at.as_unix_ms() / 1000;
        self.last_run_end.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    /// Sets the numbers of deliveries by state.
    pub(super) fn queue(&self, queue: &Queue) {
        let is_held = queue.held_reason().is_some();
        let waiting = if is_held { 0 } else { queue.waiting_causes().count() };
        let waiting = waiting + queue.repeated_causes().count();
        let (running, held) = (queue.running_causes().len(), queue.held().count());
        for (state, count) in [("running", running), ("waiting", waiting), ("held", held)] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.deliveries.get_or_create(&StateLabel { state }).set(count);
        }
    }

    /// Counts a run that the rate limiter begins to delay.
    pub(super) fn delayed(&self) {
        self.delays.inc();
    }

    /// Sets the numbers of files in the outbox.
    pub(super) fn outbox(&self, spooled: usize, quarantined: usize) {
        self.spooled.set(i64::try_from(spooled).unwrap_or(i64::MAX));
        self.quarantined.set(i64::try_from(quarantined).unwrap_or(i64::MAX));
    }

    /// Sets the state of the agent's connection and claim.
    pub(super) fn backend(&self, is_connected: bool, holds_claim: bool) {
        self.connected.set(i64::from(is_connected));
        self.claim_held.set(i64::from(holds_claim));
    }

    /// Encodes all metrics in the format of the textfile collector.
    pub(super) fn text(&self) -> String {
        metrics::plain(&self.registry)
    }
}
