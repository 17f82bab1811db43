//! After the last fault: waits until the fleet is quiet, then collects the evidence.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use crate::artifacts::{Evidence, Target, Window};
use crate::fleet::{NODES, certname};
use crate::logs::Logs;
use crate::records::Records;
use crate::testbed::{QUIET_TIMEOUT, Testbed};

const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Nothing more is waited for once every node has nothing left to do and nothing has changed for so long.
const STILL_FOR: Duration = Duration::from_secs(40);
/// And so often in a row.
const STILL_PASSES: usize = 3;
/// Askers side by side.
const ASKERS: usize = 3;

/// Waits for quiet, at most [`QUIET_TIMEOUT`], and collects everything there is. What was not quiet by then is
/// among the leftovers.
pub(crate) fn quiesce(
    testbed: &Testbed,
    records: &Records,
    windows: Vec<Window>,
) -> anyhow::Result<Evidence> {
    let mut statuses = Statuses::default();
    let mut stillness = Stillness::new();
    loop {
        let mut busy = unquiet(testbed);
        let logs = Logs::read(testbed)?;
        let open = statuses.ask(testbed, &logs);
        stillness.look((open, logs.counts()), busy.is_empty());
        // A run may have fired between the first question and the last.
        let is_quiet = busy.is_empty() && open == 0 && Logs::read(testbed)?.counts() == logs.counts();
        if is_quiet || stillness.is_over() {
            busy.extend(statuses.failures);
            let deaths = testbed.deaths();
            match testbed.backend().pending() {
                Ok(keys) => busy.extend(keys.iter().map(|key| format!("{key} is still in the backend"))),
                Err(error) => busy.push(error),
            }
            return Ok(Evidence {
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

/// For how long nothing has changed.
struct Stillness {
    began: Instant,
    since: Instant,
    passes: usize,
    latest: Option<Counts>,
}

/// Deliveries that are open, fires, lines of the runs' logs.
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

    /// Whether waiting any longer is no use: one pass over a slow machine may take as long as [`STILL_FOR`], so
    /// several must have seen the same.
    fn is_over(&self) -> bool {
        let is_still = self.since.elapsed() > STILL_FOR && self.passes >= STILL_PASSES;
        is_still || self.began.elapsed() > QUIET_TIMEOUT
    }
}

/// What keeps the nodes from being quiet, a sentence each.
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

/// What `trigger status` says of each event.
#[derive(Default)]
struct Statuses {
    known: BTreeMap<String, Vec<Target>>,
    /// Questions that the latest pass got no answer to.
    failures: Vec<String>,
}

impl Statuses {
    /// Asks for every event that had not ended when it was asked last; how many have not. One that cannot be
    /// asked for now counts among them.
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

/// Where an event stands; nothing for one that the backend does not know.
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
        assert!(!stillness.is_over(), "something changed a look ago");
    }
}
