//! A day's worth of events at one node: what its agent holds in memory, in open files and on disk before and after them.
//!
//! The nodes have RSA-4096 keys, as Puppet makes them by default, and a hub of their own with TLS. Other nodes fire, each
//! no more than the hub stores of one node at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::figures::{Figure, Figures, Peer};
use crate::memory::{Held, QUIESCE_TIME};
use crate::pki::{Ca, Key};
use crate::process::{open_files, run, wait_for};
use crate::scratch::Scratch;
use crate::trigger::{Agent, Hub, Program, Stamps, committed};

/// The number of nodes that fire. The hub stores bursts of a thousand events of each.
const FIRING_NODES: usize = 10;
/// The memory of the target is read after each of so many equal shares of the events.
const SHARES: usize = 4;
/// One of so many events is asked for by `trigger status`; in the target's log of ended events, all are.
const ASKED_FOR: usize = 100;
/// How long the last runs may take.
const TIMEOUT: Duration = Duration::from_secs(120);
const MB: f64 = 1024.0 * 1024.0;

pub(crate) fn measure(
    scratch: &Scratch,
    program: &Program,
    ca: &mut Ca,
    events: usize,
    figures: &mut Figures,
) -> Result<()> {
    let mut issue = |name: &str| ca.issue(&format!("{name}.example.com"), Key::Rsa);
    let hub = Hub::start(scratch, program, "day-hub", Some(&issue("day-hub")?))?;
    let stamps = Stamps::new(scratch.path("day.stamps"));
    let run_cmd = format!("{} {} {}", program.stamp.display(), stamps.path().display(), Stamps::RUN_MS);
    let target_files = issue("day-target")?;
    let start_target =
        || Agent::start(scratch, program, &hub.url(), "day-target", &run_cmd, Some(&target_files));
    let target = start_target()?;
    let mut firing = Vec::new();
    for number in 0..FIRING_NODES {
        let name = format!("day-firing{number}");
        firing.push(Agent::start(scratch, program, &hub.url(), &name, &run_cmd, Some(&issue(&name)?))?);
    }

    std::thread::sleep(QUIESCE_TIME);
    let pids = [target.process.pid(), firing[0].process.pid(), hub.process.pid()];
    let before = pids.iter().map(|pid| Use::of(*pid)).collect::<Result<Vec<_>>>()?;

    let started = Instant::now();
    let mut fired = Vec::new();
    let mut course = Vec::new();
    for share in 1..=SHARES {
        let of_each = (events * share / SHARES).div_ceil(FIRING_NODES) - fired.len() / FIRING_NODES;
        fired.extend(fire_all(program, &firing, &target, of_each)?);
        wait_for("the end of all deliveries", TIMEOUT, || ended(&target).len() >= fired.len())?;
        course.push(format!("{:.1}", Held::by(target.process.pid())?.resident));
    }
    let took = started.elapsed();
    have_all_ended(program, &target, &fired)?;

    std::thread::sleep(QUIESCE_TIME);
    let after = pids.iter().map(|pid| Use::of(*pid)).collect::<Result<Vec<_>>>()?;
    let of_each = fired.len() / FIRING_NODES;
    let setups = [
        format!("agent, target of {}", fired.len()),
        format!("agent that fired {of_each}"),
        format!("hub, {} agents", FIRING_NODES + 1),
    ];
    for ((setup, before), after) in setups.iter().zip(&before).zip(&after) {
        add(figures, setup, before, after);
    }
    figures.note(format!(
        "day: {} events from {FIRING_NODES} nodes in {:.0} s shared {} runs; resident memory of the target after each of {SHARES} equal \
         shares: {} MB",
        fired.len(),
        took.as_secs_f64(),
        stamps.read().len(),
        course.join(", ")
    ));
    for (name, directory) in [
        ("the target", target.state.as_path()),
        ("a firing node", &firing[0].state),
        ("the hub", &scratch.path("day-hub")),
    ] {
        figures.note(format!("day: on the disk of {name}, in kB (files): {}", on_disk(directory)?));
    }

    // What the target remembers is read again at the start.
    drop(target);
    let target = start_target()?;
    std::thread::sleep(QUIESCE_TIME);
    let again = Use::of(target.process.pid())?;
    add(figures, &format!("agent, target of {}, started again", fired.len()), &before[0], &again);
    Ok(())
}

/// What a process uses.
struct Use {
    held: Held,
    open_files: usize,
}

impl Use {
    fn of(pid: u32) -> Result<Self> {
        Ok(Self { held: Held::by(pid)?, open_files: open_files(pid)? })
    }
}

fn add(figures: &mut Figures, setup: &str, before: &Use, after: &Use) {
    let mut row = |measure, unit, before: f64, after: f64| {
        let (setup, peer) = (setup.to_owned(), Some(Peer::before(&[before])));
        figures.add(Figure { measure, setup, unit, samples: vec![after], peer, goal: None });
    };
    row("day: resident", "MB", before.held.resident, after.held.resident);
    row("day: proportional", "MB", before.held.proportional, after.held.proportional);
    row("day: its own", "MB", before.held.anonymous, after.held.anonymous);
    row("day: open files", "", before.open_files as f64, after.open_files as f64);
}

/// Fires so many events from each node, all nodes at once, and returns the events.
fn fire_all(program: &Program, firing: &[Agent], target: &Agent, of_each: usize) -> Result<Vec<String>> {
    let fire = |node: &Agent| {
        let mut fired = Vec::new();
        for _ in 0..of_each {
            let mut command = node.command(program);
            command.args(["fire", "bench", "--output", "json", "--host", &target.certname]);
            command.args(["--certname", &node.certname, "--backend", &node.url, "--state-dir"]);
            fired.push(committed(&run(command.arg(&node.state))?.stdout)?);
        }
        anyhow::Ok(fired)
    };
    let fired = std::thread::scope(|scope| {
        let threads: Vec<_> = firing.iter().map(|node| scope.spawn(|| fire(node))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Vec<String>>>| match thread.join() {
            Ok(fired) => fired,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        threads.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    Ok(fired.concat())
}

/// Returns the events in the target's log of what has ended there.
fn ended(target: &Agent) -> BTreeSet<String> {
    let text = fs::read_to_string(target.state.join("ended")).unwrap_or_default();
    text.lines().filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect()
}

/// Fails unless every event has ended at the target, each that is asked for by a run or in a later event's.
fn have_all_ended(program: &Program, target: &Agent, fired: &[String]) -> Result<()> {
    let ended = ended(target);
    let missing = fired.iter().filter(|event| !ended.contains(*event)).count();
    ensure!(missing == 0, "{missing} of {} events have not ended at the target", fired.len());
    for event in fired.iter().step_by(ASKED_FOR) {
        let mut command = target.command(program);
        command.args(["status", event, "--output", "json", "--certname", &target.certname]);
        let output = run(command.args(["--backend", &target.url, "--state-dir"]).arg(&target.state))?;
        let status: Value = serde_json::from_slice(&output.stdout).context("a status that is no JSON")?;
        let state = &status["targets"][0]["state"];
        ensure!(state == "done" || state == "superseded", "event {event} has not ended well: {status}");
    }
    Ok(())
}

/// Describes what lies in a directory: the size of each file and directory in it, and the number of files, the largest first.
fn on_disk(directory: &Path) -> Result<String> {
    let mut entries = BTreeMap::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        entries.insert(name, size(&path)?);
    }
    let mut entries: Vec<_> = entries.into_iter().filter(|(_, (bytes, _))| *bytes > 0).collect();
    entries.sort_by_key(|(_, (bytes, _))| std::cmp::Reverse(*bytes));
    let described =
        entries.iter().map(|(name, (bytes, files))| format!("{name} {} ({files})", bytes.div_ceil(1024)));
    let total: u64 = entries.iter().map(|(_, (bytes, _))| bytes).sum();
    Ok(format!("{}; all {:.1} MB", described.collect::<Vec<_>>().join(", "), total as f64 / MB))
}

/// Returns the bytes and the number of the files at a path.
fn size(path: &Path) -> Result<(u64, usize)> {
    let metadata = fs::symlink_metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if !metadata.is_dir() {
        return Ok((metadata.len(), 1));
    }
    let mut sum = (0, 0);
    for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
        let (bytes, files) = size(&entry?.path())?;
        sum = (sum.0 + bytes, sum.1 + files);
    }
    Ok(sum)
}
