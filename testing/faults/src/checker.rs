//! Proves the contract from what a trial left behind, or names the violations. It is pure: it takes the artifacts and
//! returns violations.

mod chains;
mod covers;
mod deliveries;
mod describe;
mod fires;
mod guard;
mod index;
mod repetitions;
mod runs;
#[cfg(test)]
mod tests;
mod violation;

use std::collections::BTreeMap;

use self::index::Index;
use self::violation::Violation;
use crate::artifacts::Artifacts;
use crate::journal::{Answer, Fire};

/// Returns every violation; an empty list proves the contract for this trial.
pub(crate) fn check(artifacts: &Artifacts) -> Vec<Violation> {
    let index = index(artifacts);
    let mut violations = Vec::new();
    fires::check(artifacts, &index, &mut violations);
    deliveries::check(artifacts, &index, &mut violations);
    repetitions::check(&index, &mut violations);
    runs::check(artifacts, &index, &mut violations);
    chains::check(artifacts, &index, &mut violations);
    let all = |rule, found: &[String]| -> Vec<Violation> {
        found.iter().map(|found| Violation { rule, found: found.clone() }).collect()
    };
    violations.extend(all("nothing dies by itself", &artifacts.deaths));
    violations.extend(all("nothing is left behind", &artifacts.leftovers));
    violations
}

/// Returns the deliveries that are exempt because a hub was restored from a backup that lacked them, with the hub's
/// answers about them.
pub(crate) fn forgotten(artifacts: &Artifacts) -> Vec<(String, String)> {
    deliveries::forgotten(artifacts)
}

fn index(artifacts: &Artifacts) -> Index<'_> {
    let answered = artifacts.fires.iter().filter_map(|fire| match &fire.answer {
        Answer::Success { event, .. } => Some((event.as_str(), fire)),
        _ => None,
    });
    let mut fires: BTreeMap<&str, &Fire> = answered.collect();
    fires.extend(fires::unanswered(artifacts, &fires));
    let outcomes = artifacts.records.iter().map(|(run, record)| (run.as_str(), record.outcome.as_str()));
    Index {
        fires,
        runs: artifacts.runs.iter().map(|run| (run.start.run.as_str(), run)).collect(),
        hits: artifacts.hits.iter().map(|hit| hit.run.as_str()).collect(),
        outcomes: outcomes.collect(),
        covering: covers::of(artifacts),
    }
}
