//! Checks that no chain of events is a runaway loop (C7).

use std::collections::{BTreeMap, BTreeSet};

use super::guard::{MAX_FIRES, MAX_HOPS};
use super::index::Index;
use super::violation::Violation;
use crate::artifacts::Artifacts;
use crate::journal::{Answer, Cause, Chain};

const BOUNDED: &str = "no runaway loops";

pub(super) fn check(artifacts: &Artifacts, index: &Index<'_>, violations: &mut Vec<Violation>) {
    let mut chains: BTreeMap<&str, &Cause> = BTreeMap::new();
    for run in &artifacts.runs {
        for cause in &run.start.causes {
            chains.insert(&cause.event, cause);
            if let Some(why) = objection(cause, &run.start.certname) {
                let found = format!("event {} ran on {}: {why}", cause.event, run.start.certname);
                violations.push(Violation { rule: BOUNDED, found });
            }
        }
    }
    budgets(artifacts, index, &chains, violations);
}

fn objection(cause: &Cause, certname: &str) -> Option<String> {
    let repeats = |chain: &Chain| {
        chain.hops.iter().any(|(trigger, node)| *trigger == cause.trigger && node == certname)
    };
    if cause.chains.is_empty() {
        return Some("it has no chain".to_owned());
    }
    if cause.chains.iter().all(repeats) {
        return Some(format!("every chain has this trigger and node already: {:?}", cause.chains));
    }
    let is_bad = |chain: &&Chain| {
        let pairs: BTreeSet<_> = chain.hops.iter().collect();
        // A chain whose hops reach the ttl fires nothing more, so no chain is longer.
        chain.hops.len() > MAX_HOPS || pairs.len() < chain.hops.len()
    };
    cause.chains.iter().find(is_bad).map(|chain| format!("a chain too long or twice the same: {chain:?}"))
}

/// Checks that one trigger fires at most three times on one node for one root, and once more for each run that was
/// killed, since that run may not have counted its last fire.
fn budgets(
    artifacts: &Artifacts,
    index: &Index<'_>,
    chains: &BTreeMap<&str, &Cause>,
    violations: &mut Vec<Violation>,
) {
    let mut fired: BTreeMap<(&str, &str, &str), Vec<&str>> = BTreeMap::new();
    for fire in &artifacts.fires {
        let (Some(_), Answer::Success { event, state }) = (&fire.parent, &fire.answer) else { continue };
        let Some(cause) = chains.get(event.as_str()).filter(|_| state != "suppressed") else { continue };
        let roots: BTreeSet<&str> = cause.chains.iter().map(|chain| chain.root.as_str()).collect();
        for root in roots {
            fired.entry((&fire.origin, &fire.trigger, root)).or_default().push(event);
        }
    }
    for ((node, trigger, root), events) in fired {
        let hits = artifacts.runs.iter().filter(|run| run.start.certname == node);
        let hits = hits.filter(|run| index.hits.contains(run.start.run.as_str())).count();
        if events.len() > MAX_FIRES + hits {
            let found =
                format!("'{trigger}' fired {} times on {node} for root {root}: {events:?}", events.len());
            violations.push(Violation { rule: BOUNDED, found });
        }
    }
}
