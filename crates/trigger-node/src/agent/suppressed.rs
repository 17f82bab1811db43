//! Logs and counts, at a run's end, the targets that the loop guard suppressed in the run's fires. It reads the notes of
//! the fires, so that fires which did not go through this agent count too; failed fires leave no note.

use trigger_core::event::Target;
use trigger_core::identity::RunId;
use trigger_core::run::history::{FiredEvent, SuppressedTarget};

use super::metrics::Metrics;
use crate::host::Host;
use crate::state::Runs;

/// The most targets of one run that have a line of their own in the log; an event may have thousands.
const MAX_LOGGED: usize = 20;

pub(super) fn log_and_count<H: Host>(run: RunId, runs: &Runs<H>, metrics: &Metrics) {
    let fired = runs.fired(run).unwrap_or_else(|error| {
        tracing::error!(%error, "cannot read which targets the loop guard suppressed");
        Vec::new()
    });
    for fired in &fired {
        metrics.suppressed(&fired.by_rule);
    }
    let listed: Vec<_> = fired.iter().flat_map(listed_targets).take(MAX_LOGGED).collect();
    for (fired, suppressed) in &listed {
        let (event, trigger, reason) = (fired.event, fired.trigger.as_str(), &suppressed.reason);
        let target = match &suppressed.target {
            Target::Node(certname) => certname.to_string(),
            Target::Group(group) => format!("group {group}"),
        };
        tracing::warn!(%event, trigger, target, reason, "target suppressed");
    }
    let total: usize = fired.iter().map(|fired| fired.suppressed.count()).sum();
    if total > listed.len() {
        tracing::warn!(more = total - listed.len(), "more targets suppressed");
    }
}

fn listed_targets(fired: &FiredEvent) -> impl Iterator<Item = (&FiredEvent, &SuppressedTarget)> {
    fired.suppressed.listed.iter().map(move |suppressed| (fired, suppressed))
}
