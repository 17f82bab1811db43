//! The runs that covered each event: from the runs' own log and, for runs that wrote nothing to it, from their nodes'
//! directories.

use std::collections::{BTreeMap, BTreeSet};

use super::describe::{describe, seconds};
use super::index::{Cover, Index};
use crate::artifacts::Artifacts;

/// Returns the runs by (event, certname), in the order of their starts.
pub(super) fn of(artifacts: &Artifacts) -> BTreeMap<(&str, &str), Vec<Cover<'_>>> {
    let mut covers: BTreeMap<(&str, &str), Vec<Cover<'_>>> = BTreeMap::new();
    for run in &artifacts.runs {
        let start = &run.start;
        for cause in &start.causes {
            let covers = covers.entry((cause.event.as_str(), start.certname.as_str())).or_default();
            covers.push(Cover { run: &start.run, at: start.at, logged: Some(run) });
        }
    }
    let spoke: BTreeSet<&str> = artifacts.runs.iter().map(|run| run.start.run.as_str()).collect();
    for (run, record) in artifacts.records.iter().filter(|(run, _)| !spoke.contains(run.as_str())) {
        for event in &record.causes {
            let covers = covers.entry((event.as_str(), record.certname.as_str())).or_default();
            covers.push(Cover { run, at: record.started, logged: None });
        }
    }
    covers.values_mut().for_each(|covers| covers.sort_by_key(|cover| cover.at));
    covers
}

impl Cover<'_> {
    /// Describes the run in the words of a violation.
    pub(super) fn describe(&self, index: &Index<'_>) -> String {
        let said = self.logged.map_or_else(
            || format!("run {} that never said a word, recorded at {}", self.run, seconds(self.at)),
            describe,
        );
        let outcome = index.outcomes.get(self.run).unwrap_or(&"unknown");
        let hit = if index.hits.contains(self.run) { ", hit" } else { "" };
        format!("{said}, outcome {outcome}{hit}")
    }
}

/// Describes the runs that covered an event at a node, one on each line.
pub(super) fn lines(index: &Index<'_>, event: &str, certname: &str) -> String {
    let covers = index.covers(event, certname).iter();
    covers.map(|cover| format!("\n      {}", cover.describe(index))).collect()
}
