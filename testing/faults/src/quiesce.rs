//! Waits after the last fault until the fleet is quiet, then collects the artifacts.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use crate::artifacts::{Artifacts, Target, Window};
use crate::fleet::{NODES, certname};
use crate::logs::Logs;
use crate::records::Records;
use crate::testbed::{QUIET_TIMEOUT, Testbed};

const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The wait ends once every node is idle and nothing has changed for this long.
const STILL_FOR: Duration = Duration::from_secs(40);
/// The number of consecutive passes that must see no change.
const STILL_PASSES: usize = 3;
/// The number of threads that query the status.
const ASKERS: usize = 3;

/// Waits until the fleet is quiet, for at most [`QUIET_TIMEOUT`], and collects the artifacts. Nodes that were not
/// quiet by then are among the leftovers.
pub(crate) fn quiesce(
    testbed: &Testbed,
    records: &Records,
    windows: Vec<Window>,
) -> anyhow::Result<Artifacts> {
    let mut statuses = Statuses::default();
    let mut stillness = Stillness::new();
    loop {
        let mut busy = unquiet(testbed);
        let logs = Logs::read(testbed)?;
        let open = statuses.ask(testbed, &logs);
        stillness.look((open, logs.counts()), busy.is_empty());
        // A run may have fired between the first query and the last.
        let is_quiet = busy.is_empty() && open == 0 && Logs::read(testbed)?.counts() == logs.counts();
        if is_quiet || stillness.is_over() {
            busy.extend(statuses.failures);
            let deaths = testbed.deaths();
            match testbed.backend().pending() {
                Ok(keys) => busy.extend(keys.iter().map(|key| format!("{key} is still in the backend"))),
                Err(error) => busy.push(error),
            }
            return Ok(Artifacts {
                statuses: statuses.known,
                windows,
                leftovers: busy,
                records: records.collect(),
                epoch: records.epoch(),
                forgotten: testbed.forgotten(),
                deaths,
                ..logs.into_evidence()
            });
        }
        sleep(POLL_INTERVAL);
    }
}

/// Measures for how long nothing has changed.
struct Stillness {
    began: Instant,
    since: Instant,
    passes: usize,
    latest: Option<Counts>,
}

/// The number of open deliveries, of fires, and of lines in the runs' logs.
type Counts = (usize, (usize, usize));

impl Stillness {
    fn new() -> Self {
        Self { began: Instant::now(), since: Instant::now(), passes: 0, latest: None }
    }

    fn look(&mut self, counts: Counts, is_idle: bool) {
        if self.latest.replace(counts) != Some(counts) || !is_idle {
            self.since = Instant::now();
            self.passes = 0;
        } else {
            self.passes += 1;
        }
    }

    /// Returns whether waiting longer is of no use. One pass over a slow machine may take as long as [`STILL_FOR`],
    /// so several passes must have seen the same state.
    fn is_over(&self) -> bool {
        let is_still = self.since.elapsed() > STILL_FOR && self.passes >= STILL_PASSES;
        is_still || self.began.elapsed() > QUIET_TIMEOUT
    }
}

/// Returns the reasons why the nodes are not quiet, one sentence each.
fn unquiet(testbed: &Testbed) -> Vec<String> {
    let sentences = |node: usize| {
        let said = json(testbed.command(node, &words(&["queue", "--output", "json"])));
        let queue = match said {
            Ok(queue) => queue,
            Err(error) => return vec![format!("{}: {error:#}", certname(node))],
        };
        let holds_nothing = |field: &str| queue[field].is_null() || queue[field] == Value::Array(Vec::new());
        let busy =
            ["disconnected", "blocked", "running", "waiting", "held", "unreadable", "spooled", "quarantined"];
        let busy = busy.into_iter().filter(|field| !holds_nothing(field));
        let busy = busy.map(|field| format!("{}: {field}: {}", certname(node), queue[field]));
        let dead = (queue["agent_running"] != true).then(|| format!("{}: its agent is dead", certname(node)));
        busy.chain(dead).collect()
    };
    (0..NODES).flat_map(sentences).collect()
}

/// The answers of `trigger status` for each event.
#[derive(Default)]
struct Statuses {
    known: BTreeMap<String, Vec<Target>>,
    /// The queries of the latest pass that failed.
    failures: Vec<String>,
}

impl Statuses {
    /// Queries every event that had not ended at the last query, and returns how many still have not. An event whose
    /// query failed counts among them.
    fn ask(&mut self, testbed: &Testbed, logs: &Logs) -> usize {
        let is_over = |event: &String| {
            self.known.get(event).is_some_and(|targets| targets.iter().all(Target::has_ended))
        };
        let open: Vec<String> = logs.events().into_iter().filter(|event| !is_over(event)).collect();
        self.failures.clear();
        let mut still_open = 0;
        for (event, status) in ask_all(testbed, open) {
            match status {
                Ok(Some(targets)) => {
                    still_open += usize::from(!targets.iter().all(Target::has_ended));
                    self.known.insert(event, targets);
                }
                Ok(None) => drop(self.known.remove(&event)),
                Err(error) => {
                    still_open += 1;
                    self.failures.push(format!("{error:#}"));
                }
            }
        }
        still_open
    }
}

type Status = anyhow::Result<Option<Vec<Target>>>;

fn ask_all(testbed: &Testbed, events: Vec<String>) -> Vec<(String, Status)> {
    let queue = Mutex::new(events);
    let next = || queue.lock().ok()?.pop();
    let answers = Mutex::new(Vec::new());
    scope(|scope| {
        let asker = || {
            while let Some(event) = next() {
                let status = status(testbed, &event);
                if let Ok(mut answers) = answers.lock() {
                    answers.push((event, status));
                }
            }
        };
        (0..ASKERS).for_each(|_| drop(scope.spawn(asker)));
    });
    answers.into_inner().unwrap_or_default()
}

/// Returns the state of an event; nothing if the backend does not know it.
fn status(testbed: &Testbed, event: &str) -> Status {
    let mut command = testbed.observe(&words(&["status", event, "--output", "json"]));
    let output = command.output().context("trigger status")?;
    let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    match output.status.code() {
        Some(0) => Ok(Some(serde_json::from_value(json["targets"].clone())?)),
        Some(1) if json["error"].as_str().is_some_and(|error| error.starts_with("no event ")) => Ok(None),
        _ => anyhow::bail!("trigger status {event}: {output:?}"),
    }
}

fn json(mut command: Command) -> anyhow::Result<Value> {
    let output = command.output()?;
    anyhow::ensure!(output.status.success(), "{output:?}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stillness_takes_time_and_several_looks() {
        let mut stillness = Stillness::new();
        let long_ago = Instant::now().checked_sub(2 * STILL_FOR).unwrap();
        (0..=STILL_PASSES).for_each(|_| stillness.look((1, (1, 1)), true));
        assert!(!stillness.is_over(), "it is not still for long");
        stillness.since = long_ago;
        assert!(stillness.is_over());
        stillness.look((1, (1, 2)), true);
        stillness.since = long_ago;
        assert!(!stillness.is_over(), "something changed in the previous pass");
    }
}
