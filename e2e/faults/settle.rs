//! After the last fault: waits until the fleet is quiet, then collects the evidence.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Mutex;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use crate::evidence::{Evidence, Run, Target, Window};
use crate::fleet::{NODES, certname, groups_of};
use crate::journal::{self, Answer, Fire, Hit, RunLine};
use crate::site::Site;

/// How long the fleet may take to become quiet; generous, since it bounds a failure and measures nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Nothing more is waited for once every node has nothing left to do and nothing has changed for so long.
const STILL_FOR: Duration = Duration::from_secs(40);
/// Askers side by side.
const ASKERS: usize = 3;

/// Waits for quiet, at most [`PATIENCE`], and collects everything there is. What was not quiet by then is
/// among the leftovers.
pub(crate) fn settle(site: &Site, windows: Vec<Window>) -> anyhow::Result<Evidence> {
    site.backend().wait_until_it_serves();
    let began = Instant::now();
    let mut statuses = BTreeMap::new();
    let mut still_since = Instant::now();
    let mut latest = (0, (0, 0));
    loop {
        let busy = unquiet(site);
        let logs = Logs::read(site)?;
        let open = ask(site, &logs, &mut statuses)?;
        if (open, logs.counts()) != latest || !busy.is_empty() {
            latest = (open, logs.counts());
            still_since = Instant::now();
        }
        let is_late = began.elapsed() > PATIENCE || still_since.elapsed() > STILL_FOR;
        // A run may have fired between the first question and the last.
        if (busy.is_empty() && open == 0 && Logs::read(site)?.counts() == logs.counts()) || is_late {
            let mut evidence = logs.into_evidence();
            evidence.statuses = statuses;
            evidence.windows = windows;
            evidence.leftovers = busy;
            let pending = site.backend().pending().map_err(|error| anyhow::anyhow!(error))?;
            evidence
                .leftovers
                .extend(pending.into_iter().map(|key| format!("{key} is still in the backend")));
            return Ok(evidence);
        }
        sleep(LOOK_EVERY);
    }
}

/// What keeps the nodes from being quiet, a sentence each.
fn unquiet(site: &Site) -> Vec<String> {
    let sentences = |node: usize| {
        let said = json(site.command(node, &words(&["queue", "--output", "json"])));
        let queue = match said {
            Ok(queue) => queue,
            Err(error) => return vec![format!("{}: {error:#}", certname(node))],
        };
        let holds_nothing = |field: &str| queue[field].is_null() || queue[field] == Value::Array(Vec::new());
        let busy =
            ["disconnected", "blocked", "running", "waiting", "held", "unreadable", "spooled", "set_aside"];
        let busy = busy.into_iter().filter(|field| !holds_nothing(field));
        let busy = busy.map(|field| format!("{}: {field}: {}", certname(node), queue[field]));
        let dead = (queue["agent_running"] != true).then(|| format!("{}: its agent is dead", certname(node)));
        busy.chain(dead).collect()
    };
    (0..NODES).flat_map(sentences).collect()
}

/// All the logs of all nodes.
struct Logs {
    fires: Vec<Fire>,
    lines: Vec<RunLine>,
    hits: Vec<Hit>,
}

impl Logs {
    fn read(site: &Site) -> anyhow::Result<Self> {
        let mut logs = Self { fires: Vec::new(), lines: Vec::new(), hits: Vec::new() };
        for home in (0..NODES).map(|node| site.folder_of(node)) {
            logs.fires.extend(journal::read::<Fire>(&home.join("fires.log"))?);
            logs.lines.extend(journal::read::<RunLine>(&home.join("runs.log"))?);
            logs.hits.extend(journal::read::<Hit>(&home.join("hits.log"))?);
        }
        Ok(logs)
    }

    fn counts(&self) -> (usize, usize) {
        (self.fires.len(), self.lines.len())
    }

    /// The events that were answered for, and those that ran: a fire that was killed may have fired too.
    fn events(&self) -> BTreeSet<String> {
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

    fn into_evidence(self) -> Evidence {
        let mut runs: BTreeMap<String, Run> = BTreeMap::new();
        for line in &self.lines {
            if let RunLine::Start(start) = line {
                runs.insert(start.run.clone(), Run { start: start.clone(), end: None });
            }
        }
        for line in self.lines {
            if let RunLine::End(end) = line
                && let Some(run) = runs.get_mut(&end.run)
            {
                run.end = Some(end);
            }
        }
        let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in 0..NODES {
            for group in groups_of(node) {
                groups.entry(group.to_owned()).or_default().insert(certname(node));
            }
        }
        Evidence {
            groups,
            fires: self.fires,
            runs: runs.into_values().collect(),
            hits: self.hits,
            ..Evidence::default()
        }
    }
}

/// Asks `trigger status` for every event that had not ended when it was asked last; how many have not.
fn ask(site: &Site, logs: &Logs, statuses: &mut BTreeMap<String, Vec<Target>>) -> anyhow::Result<usize> {
    let is_over = |event: &String| {
        statuses.get(event).is_some_and(|targets: &Vec<Target>| targets.iter().all(Target::has_ended))
    };
    let open: Vec<String> = logs.events().into_iter().filter(|event| !is_over(event)).collect();
    let queue = Mutex::new(open);
    let next = || queue.lock().ok()?.pop();
    let answers = Mutex::new(Vec::new());
    scope(|scope| {
        let asker = || {
            while let Some(event) = next() {
                let status = status(site, &event);
                if let Ok(mut answers) = answers.lock() {
                    answers.push((event, status));
                }
            }
        };
        (0..ASKERS).for_each(|_| drop(scope.spawn(asker)));
    });
    let mut still_open = 0;
    for (event, status) in answers.into_inner().unwrap_or_default() {
        match status? {
            Some(targets) => {
                still_open += usize::from(!targets.iter().all(Target::has_ended));
                statuses.insert(event, targets);
            }
            None => drop(statuses.remove(&event)),
        }
    }
    Ok(still_open)
}

/// Where an event stands; nothing for one that the backend does not know.
fn status(site: &Site, event: &str) -> anyhow::Result<Option<Vec<Target>>> {
    let mut command = site.observe(&words(&["status", event, "--output", "json"]));
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
