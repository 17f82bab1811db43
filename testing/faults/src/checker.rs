//! Proves the contract from what a trial left behind, or says what speaks against it. Pure: evidence in,
//! violations out.

mod chains;
mod covers;
mod deliveries;
mod fires;
mod guard;
mod repetitions;
mod runs;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use self::covers::Cover;
use crate::artifacts::{Evidence, Run};
use crate::journal::{Answer, Fire};

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
pub(crate) fn check(artifacts: &Evidence) -> Vec<Violation> {
    let index = Index::of(artifacts);
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

/// The deliveries that are not asked for, since a hub was restored from a backup that did not know them, with
/// what the hub says of them.
pub(crate) fn forgotten(artifacts: &Evidence) -> Vec<(String, String)> {
    deliveries::forgotten(artifacts)
}

/// The evidence by what it is asked for.
struct Index<'a> {
    /// By event; those too that were killed before they could answer, and fired all the same.
    fires: BTreeMap<&'a str, &'a Fire>,
    /// By id; of those that began twice, the last.
    runs: BTreeMap<&'a str, &'a Run>,
    hits: BTreeSet<&'a str>,
    /// How the runs ended, as their results say.
    outcomes: BTreeMap<&'a str, &'a str>,
    /// The runs at a node that cover an event, by (event, certname), in the order of their starts.
    covering: BTreeMap<(&'a str, &'a str), Vec<Cover<'a>>>,
}

impl<'a> Index<'a> {
    fn of(artifacts: &'a Evidence) -> Self {
        let answered = artifacts.fires.iter().filter_map(|fire| match &fire.answer {
            Answer::Success { event, .. } => Some((event.as_str(), fire)),
            _ => None,
        });
        let mut fires: BTreeMap<&str, &Fire> = answered.collect();
        fires.extend(fires::unanswered(artifacts, &fires));
        let outcome = |(run, record): (&'a String, &'a crate::artifacts::Record)| {
            (run.as_str(), record.outcome.as_str())
        };
        Self {
            fires,
            runs: artifacts.runs.iter().map(|run| (run.start.run.as_str(), run)).collect(),
            hits: artifacts.hits.iter().map(|hit| hit.run.as_str()).collect(),
            outcomes: artifacts.records.iter().map(outcome).collect(),
            covering: covers::of(artifacts),
        }
    }

    fn covers<'b>(&'b self, event: &'b str, certname: &'b str) -> &'b [Cover<'b>] {
        self.covering.get(&(event, certname)).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether the run's own result says that something ended it.
    fn was_interrupted(&self, run: &str) -> bool {
        self.outcomes.get(run) == Some(&"interrupted")
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
