//! The figures of a trial. They decide nothing: see `coverage.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::artifacts::{Artifacts, Run};
use crate::checker::forgotten;
use crate::journal::{Answer, Fire, Moment};

/// The figures of one trial.
pub(crate) struct Figures {
    events: usize,
    states: BTreeMap<String, usize>,
    inside_runs: usize,
    killed: usize,
    deliveries: BTreeMap<String, usize>,
    runs: usize,
    covered: usize,
    hits: usize,
    slowest_fire: Duration,
    faults: BTreeMap<String, usize>,
    forgotten: Vec<(String, String)>,
    /// The waits, each with the run that ended it.
    waits: Vec<(Duration, String)>,
}

impl Figures {
    /// Counts the figures of the artifacts.
    pub(crate) fn of(artifacts: &Artifacts) -> Self {
        let mut figures = Self {
            events: 0,
            states: BTreeMap::new(),
            inside_runs: artifacts.fires.iter().filter(|fire| fire.parent.is_some()).count(),
            killed: artifacts.fires.iter().filter(|fire| fire.answer == Answer::Killed).count(),
            deliveries: BTreeMap::new(),
            runs: artifacts.runs.len(),
            covered: artifacts.runs.iter().map(|run| run.start.causes.len()).sum(),
            hits: artifacts.hits.len(),
            slowest_fire: Duration::ZERO,
            faults: BTreeMap::new(),
            forgotten: forgotten(artifacts),
            waits: waits(artifacts),
        };
        for fire in &artifacts.fires {
            if let Answer::Success { event, state } = &fire.answer {
                figures.events += 1;
                *figures.states.entry(state.clone()).or_default() += 1;
                for target in artifacts.statuses.get(event).into_iter().flatten() {
                    *figures.deliveries.entry(target.state.clone()).or_default() += 1;
                }
                let took = Duration::from_nanos(fire.after - fire.before);
                figures.slowest_fire = figures.slowest_fire.max(took);
            }
        }
        for window in &artifacts.windows {
            *figures.faults.entry(window.kind.clone()).or_default() += 1;
        }
        figures
    }
}

/// Returns, for each delivery that a fault delayed, the time from the last relevant heal to the start of its run.
fn waits(artifacts: &Artifacts) -> Vec<(Duration, String)> {
    let mut waits: Vec<_> = artifacts
        .runs
        .iter()
        .flat_map(|run| {
            let fires = run.start.causes.iter().filter_map(|cause| fire_of(artifacts, &cause.event));
            fires.filter_map(|fire| {
                let waited = Duration::from_nanos(run.start.at - last_heal(artifacts, fire, run)?);
                Some((waited, format!("run {} on {}", run.start.run, run.start.certname)))
            })
        })
        .collect();
    waits.sort_unstable();
    waits
}

fn fire_of<'a>(artifacts: &'a Artifacts, id: &str) -> Option<&'a Fire> {
    artifacts.fires.iter().find(|fire| matches!(&fire.answer, Answer::Success { event, .. } if event == id))
}

/// Returns the last heal of the backend, the origin or the target, between the fire and the run's start.
fn last_heal(artifacts: &Artifacts, fire: &Fire, run: &Run) -> Option<Moment> {
    let matters = |node: &Option<String>| {
        node.as_ref().is_none_or(|node| *node == fire.origin || *node == run.start.certname)
    };
    let heals = artifacts.windows.iter().filter(|window| matters(&window.node)).map(|window| window.to);
    heals.filter(|heal| (fire.before..run.start.at).contains(heal)).max()
}

fn counts(counts: &BTreeMap<String, usize>) -> String {
    let words: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    words.join(", ")
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_run = self.covered as f64 / self.runs.max(1) as f64;
        writeln!(
            f,
            "  events      {} ({}), {} of them fired inside runs; {} fires were killed; the slowest took {:.1} s",
            self.events,
            counts(&self.states),
            self.inside_runs,
            self.killed,
            self.slowest_fire.as_secs_f64()
        )?;
        let deliveries: usize = self.deliveries.values().sum();
        writeln!(f, "  deliveries  {deliveries} ({})", counts(&self.deliveries))?;
        writeln!(f, "  runs        {}, {per_run:.2} events each; {} hits on runs", self.runs, self.hits)?;
        let faults: usize = self.faults.values().sum();
        writeln!(f, "  faults      {faults} ({})", counts(&self.faults))?;
        if !self.forgotten.is_empty() {
            let half = self.forgotten.iter().filter(|(_, state)| state != "unknown");
            let half: Vec<String> =
                half.map(|(delivery, state)| format!("; {delivery} is {state}")).collect();
            let count = self.forgotten.len();
            writeln!(f, "  forgotten   {count} deliveries, by a restored hub{}", half.concat())?;
        }
        let Some((longest, run)) = self.waits.last() else {
            return write!(f, "  heal to run no fault held up anything");
        };
        let median = self.waits[self.waits.len() / 2].0;
        write!(
            f,
            "  heal to run {} deliveries that a fault held up: median {:.1} s, longest {:.1} s ({run})",
            self.waits.len(),
            median.as_secs_f64(),
            longest.as_secs_f64()
        )
    }
}
