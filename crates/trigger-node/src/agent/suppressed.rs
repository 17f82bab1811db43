//! Whom the loop guard left out of what a run fired, into the log and the figures once the run has ended. One place
//! for all fires: those that no agent saw left their note too, and those that failed left none.

use trigger_core::event::Target;
use trigger_core::identity::RunId;
use trigger_core::run::history::{FiredEvent, SuppressedTarget};

use super::metrics::Metrics;
use crate::host::Host;
use crate::state::Runs;

/// Targets of one run that have a line of their own in the log; an event may have thousands.
const MAX_LOGGED: usize = 20;

pub(super) fn tell<H: Host>(run: RunId, runs: &Runs<H>, metrics: &Metrics) {
    let fired = runs.fired(run).unwrap_or_else(|error| {
        tracing::error!("whom the loop guard left out in run {run} is not told: {error}");
        Vec::new()
    });
    for fired in &fired {
        metrics.suppressed(&fired.by_rule);
    }
    let suppressed = |fired: &FiredEvent| {
        let sentences = fired.suppressed.listed.iter().map(|suppressed| sentence(fired, suppressed));
        sentences.map(|sentence| (fired.event, sentence)).collect::<Vec<_>>()
    };
    let told: Vec<_> = fired.iter().flat_map(suppressed).take(MAX_LOGGED).collect();
    for (event, sentence) in &told {
        tracing::warn!(%event, "{sentence}");
    }
    let untold = fired.iter().map(|fired| fired.suppressed.count()).sum::<usize>() - told.len();
    if untold > 0 {
        tracing::warn!(%run, "the loop guard left out {untold} more targets of what this run fired");
    }
}

fn sentence(fired: &FiredEvent, suppressed: &SuppressedTarget) -> String {
    let whom = match &suppressed.target {
        Target::Node(certname) => certname.to_string(),
        Target::Group(group) => format!("the group {group}"),
    };
    format!("'{}' is not fired at {whom}: {}", fired.trigger, suppressed.reason)
}
