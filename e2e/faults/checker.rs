//! Proves the contract from what a trial left behind, or says what speaks against it. Pure: evidence in,
//! violations out.

mod chains;
mod deliveries;
mod runs;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::evidence::{Evidence, Run};
use crate::journal::{Answer, Fire};

/// Runs that may cover one event at one node: the first, and one repetition after a crash (contract 4).
const RUNS_AT_MOST: usize = 2;

/// Something that the contract forbids, with the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Which sentence of the contract.
    pub(crate) rule: &'static str,
    /// What was found.
    pub(crate) found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.found)
    }
}

/// Every violation there is; none proves the contract for this trial.
pub(crate) fn check(evidence: &Evidence) -> Vec<Violation> {
    let index = Index::of(evidence);
    let mut violations = Vec::new();
    fires_are_answered(evidence, &mut violations);
    deliveries::check(evidence, &index, &mut violations);
    runs::check(evidence, &index, &mut violations);
    chains::check(evidence, &index, &mut violations);
    let left = |found: &String| Violation { rule: "nothing is left behind", found: found.clone() };
    violations.extend(evidence.leftovers.iter().map(left));
    violations
}

/// The deliveries that are not asked for, since a hub was restored from a backup that did not know them, with
/// what the hub says of them.
pub(crate) fn forgotten(evidence: &Evidence) -> Vec<(String, String)> {
    deliveries::forgotten(evidence)
}

/// The evidence by what it is asked for.
struct Index<'a> {
    fires: BTreeMap<&'a str, &'a Fire>,
    runs: BTreeMap<&'a str, &'a Run>,
    hits: BTreeSet<&'a str>,
    /// The runs at a node that cover an event, by (event, certname), in the order of their starts.
    covering: BTreeMap<(&'a str, &'a str), Vec<&'a Run>>,
}

impl<'a> Index<'a> {
    fn of(evidence: &'a Evidence) -> Self {
        let answered = evidence.fires.iter().filter_map(|fire| match &fire.answer {
            Answer::Success { event, .. } => Some((event.as_str(), fire)),
            _ => None,
        });
        let mut covering: BTreeMap<_, Vec<&Run>> = BTreeMap::new();
        for run in &evidence.runs {
            for cause in &run.start.causes {
                covering.entry((cause.event.as_str(), run.start.certname.as_str())).or_default().push(run);
            }
        }
        covering.values_mut().for_each(|runs| runs.sort_by_key(|run| run.start.at));
        Self {
            fires: answered.collect(),
            runs: evidence.runs.iter().map(|run| (run.start.run.as_str(), run)).collect(),
            hits: evidence.hits.iter().map(|hit| hit.run.as_str()).collect(),
            covering,
        }
    }
}

/// Every node has an outbox, so nothing that we left alive may fail (contract 1).
fn fires_are_answered(evidence: &Evidence, violations: &mut Vec<Violation>) {
    for fire in &evidence.fires {
        if let Answer::Failure(said) = &fire.answer {
            let inside = fire.parent.as_deref().unwrap_or_default();
            // Its run was killed, and with it perhaps this fire.
            if !evidence.hits.iter().any(|hit| hit.run == inside) {
                let found = format!("a fire on {} failed: {said}", fire.origin);
                violations.push(Violation { rule: "durable before it answers", found });
            }
        }
    }
}

/// What the log says of a run, for a complaint.
fn describe(run: &Run) -> String {
    let end = run
        .end
        .as_ref()
        .map_or_else(|| "no end".to_owned(), |end| format!("ended at {} with {}", seconds(end.at), end.code));
    format!(
        "run {} on {} started at {} for {} events, {end}",
        run.start.run,
        run.start.certname,
        seconds(run.start.at),
        run.start.causes.len()
    )
}

fn seconds(at: u64) -> String {
    format!("{:.6} s", std::time::Duration::from_nanos(at).as_secs_f64())
}
