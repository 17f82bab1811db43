//! Reads the nodes' logs of fires, runs, and kills that hit a run.

use std::collections::{BTreeMap, BTreeSet};

use crate::artifacts::{Artifacts, Run};
use crate::fleet::{NODES, certname, groups_of};
use crate::journal::{self, Answer, Fire, Hit, RunLine};
use crate::testbed::Testbed;

/// All logs of all nodes.
pub(crate) struct Logs {
    fires: Vec<Fire>,
    lines: Vec<RunLine>,
    hits: Vec<Hit>,
}

impl Logs {
    /// Reads the logs in their current state.
    pub(crate) fn read(testbed: &Testbed) -> anyhow::Result<Self> {
        let mut logs = Self { fires: Vec::new(), lines: Vec::new(), hits: Vec::new() };
        for home in (0..NODES).map(|node| testbed.directory_of(node)) {
            logs.fires.extend(journal::read::<Fire>(&home.join("fires.log"))?);
            logs.lines.extend(journal::read::<RunLine>(&home.join("runs.log"))?);
            logs.hits.extend(journal::read::<Hit>(&home.join("hits.log"))?);
        }
        Ok(logs)
    }

    /// Returns the number of fires and the number of lines about runs.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.fires.len(), self.lines.len())
    }

    /// Returns the events that fires answered for and those that runs covered: a fire that was killed may have fired
    /// too.
    pub(crate) fn events(&self) -> BTreeSet<String> {
        let answered = self.fires.iter().filter_map(|fire| match &fire.answer {
            Answer::Success { event, .. } => Some(event.clone()),
            _ => None,
        });
        let ran = self.lines.iter().filter_map(|line| match line {
            RunLine::Start(start) => Some(start.causes.iter().map(|cause| cause.event.clone())),
            RunLine::End(_) => None,
        });
        answered.chain(ran.flatten()).collect()
    }

    /// Returns artifacts that hold what the logs report, and nothing else yet.
    pub(crate) fn into_evidence(self) -> Artifacts {
        let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in 0..NODES {
            for group in groups_of(node) {
                groups.entry(group.to_owned()).or_default().insert(certname(node));
            }
        }
        Artifacts {
            groups,
            fires: one_for_each_event(self.fires),
            runs: runs_in(self.lines),
            hits: self.hits,
            ..Artifacts::default()
        }
    }
}

/// Returns every start of a run, with its end if it reached one.
fn runs_in(lines: Vec<RunLine>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut going: BTreeMap<String, usize> = BTreeMap::new();
    for line in lines {
        match line {
            RunLine::Start(start) => {
                going.insert(start.run.clone(), runs.len());
                runs.push(Run { start, end: None });
            }
            RunLine::End(end) => {
                if let Some(at) = going.remove(&end.run) {
                    runs[at].end = Some(end);
                }
            }
        }
    }
    runs
}

/// Keeps one entry for each fire. A fire inside a run is logged before and after it is answered; the first entry
/// counts if the run was killed between the two.
fn one_for_each_event(fires: Vec<Fire>) -> Vec<Fire> {
    let key = |fire: &Fire| fire.parent.clone().map(|parent| (parent, fire.before));
    let is_answer = |fire: &&Fire| fire.answer != Answer::Killed;
    let answered: BTreeSet<_> = fires.iter().filter(is_answer).filter_map(key).collect();
    let is_superfluous =
        |fire: &Fire| fire.answer == Answer::Killed && key(fire).is_some_and(|key| answered.contains(&key));
    fires.into_iter().filter(|fire| !is_superfluous(fire)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{RunEnd, RunStart};

    fn start(run: &str, at: u64) -> RunLine {
        RunLine::Start(RunStart {
            run: run.to_owned(),
            certname: "n01".to_owned(),
            pid: 1,
            supervisor: 1,
            at,
            alone: true,
            causes: Vec::new(),
        })
    }

    #[test]
    fn a_run_that_started_twice_is_read_twice() {
        let end = |run: &str, at| RunLine::End(RunEnd { run: run.to_owned(), at, code: 0 });
        let runs = runs_in(vec![start("r1", 1), end("r1", 2), start("r1", 3), start("r2", 4), end("r2", 5)]);
        let read: Vec<_> =
            runs.iter().map(|run| (run.start.at, run.end.as_ref().map(|end| end.at))).collect();
        assert_eq!(read, [(1, Some(2)), (3, None), (4, Some(5))]);
    }

    #[test]
    fn an_answered_fire_is_read_once() {
        let fire = |parent: &str, before, answer| Fire {
            origin: "n01".to_owned(),
            parent: Some(parent.to_owned()),
            trigger: "t".to_owned(),
            hosts: Vec::new(),
            groups: Vec::new(),
            noop: false,
            away: false,
            before,
            after: before,
            answer,
        };
        let answer = Answer::Success { event: "e1".to_owned(), state: "committed".to_owned() };
        let (begun, answered) = (fire("r1", 1, Answer::Killed), fire("r1", 1, answer));
        let cut_short = fire("r2", 1, Answer::Killed);
        assert_eq!(
            one_for_each_event(vec![begun, answered.clone(), cut_short.clone()]),
            [answered, cut_short]
        );
    }
}
