//! An event runs again at a node only after a run for it was interrupted, and only once (C4).

use super::covers;
use super::index::Index;
use super::violation::Violation;

const ONCE: &str = "no repetition without a crash";
/// The number of runs that may cover one event at one node: the first, and one repetition after a crash.
const MAX_RUNS: usize = 2;

pub(super) fn check(index: &Index<'_>, violations: &mut Vec<Violation>) {
    for (event, certname) in index.covering.keys() {
        if let Some(why) = objection(index, event, certname) {
            let lines = covers::lines(index, event, certname);
            let found = format!("event {event} at {certname}: {why}{lines}");
            violations.push(Violation { rule: ONCE, found });
        }
    }
}

fn objection(index: &Index<'_>, event: &str, certname: &str) -> Option<String> {
    let covers = index.covers(event, certname);
    // A kill may have come when the run already had its result: then it excuses nothing.
    let is_over = |run: &str| !index.was_interrupted(run);
    let repeated = covers.iter().rev().skip(1).find(|cover| is_over(cover.run));
    match repeated {
        Some(cover) => Some(format!("it ran again although nothing interrupted {}", cover.describe(index))),
        None if covers.len() > MAX_RUNS => Some(format!("{} runs covered it", covers.len())),
        None => None,
    }
}

/// Returns whether a delivery may end as `interrupted`: a run for it was repeated, and the repetition was interrupted
/// too.
pub(super) fn was_interrupted_twice(index: &Index<'_>, event: &str, certname: &str) -> bool {
    let covers = index.covers(event, certname).iter();
    covers.filter(|cover| index.was_interrupted(cover.run)).count() == MAX_RUNS
}
