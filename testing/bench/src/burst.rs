//! Two hundred events at one node, fired as fast as several processes can.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::figures::{Figure, Figures, Goal, Peer};
use crate::original::Original;
use crate::process::{now, run};
use crate::trigger::{Site, Stamps, committed};

const EVENTS: usize = 200;
/// The number of processes that fire at once, on both sides.
const FIRERS: usize = 8;
/// The time without a run after which no more runs are expected.
const QUIET: Duration = Duration::from_secs(3);
const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) fn measure(sites: &[Site<'_>], original: &Original<'_>, figures: &mut Figures) -> Result<()> {
    let before = original.stamps().read().len();
    let (_, took) = fire_all(&|| original.fire())?;
    let runs = runs_after(original.stamps(), before)?;
    let (original_runs, original_lost) = (runs.len() as f64, EVENTS.saturating_sub(runs.len()) as f64);
    figures.note(format!(
        "burst: {EVENTS} events by {FIRERS} firers at once; the original took {:.1} s to set its keys and merges \
         nothing, so what started no run is lost",
        took.as_secs_f64()
    ));

    for site in sites {
        let before = site.stamps.read().len();
        let fire = || {
            let mut command = site.fire(&site.firing.state);
            command.args(["--host", &site.target.certname]);
            command
        };
        let (fired, took) = fire_all(&fire)?;
        let last_answer = now();
        let runs = runs_after(&site.stamps, before)?;
        let mut lost = 0;
        let mut run_ids = BTreeSet::new();
        for stdout in &fired {
            match covering_run(site, &committed(stdout)?)? {
                Some(run) => drop(run_ids.insert(run)),
                None => lost += 1,
            }
        }
        let mut add = |measure, sample: usize, original: f64, goal| {
            let (setup, samples) = (site.backend.clone(), vec![sample as f64]);
            let peer = Some(Peer::original(&[original]));
            figures.add(Figure { measure, setup, unit: "", samples, peer, goal: Some(goal) });
        };
        add("burst of 200: runs", runs.len(), original_runs, Goal::AtMost(5.0));
        add("burst of 200: lost", lost, original_lost, Goal::AtMost(0.0));
        let last = runs.last().copied().unwrap_or_default();
        let last = if last >= last_answer {
            format!("{} ms after", (last - last_answer) / 1_000_000)
        } else {
            format!("{} ms before", (last_answer - last) / 1_000_000)
        };
        figures.note(format!(
            "burst on {}: fired in {:.1} s; {} runs cover the events; the last started {last} the last fire's end; \
             every event's run was recorded later than the event",
            site.backend,
            took.as_secs_f64(),
            run_ids.len()
        ));
    }
    Ok(())
}

/// Returns the output of each firing process, and the time that all of them took.
fn fire_all(fire: &(dyn Fn() -> Command + Sync)) -> Result<(Vec<Vec<u8>>, Duration)> {
    let (started, next) = (Instant::now(), AtomicUsize::new(0));
    let firer = || {
        let mut printed = Vec::new();
        while next.fetch_add(1, Ordering::Relaxed) < EVENTS {
            printed.push(run(&mut fire())?.stdout);
        }
        Ok(printed)
    };
    let printed = std::thread::scope(|scope| {
        let firers: Vec<_> = (0..FIRERS).map(|_| scope.spawn(firer)).collect();
        let join = |firer: std::thread::ScopedJoinHandle<'_, Result<Vec<Vec<u8>>>>| match firer.join() {
            Ok(printed) => printed,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        firers.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    Ok((printed.concat(), started.elapsed()))
}

/// Returns the starts of all runs, once no more runs come.
fn runs_after(stamps: &Stamps, before: usize) -> Result<Vec<u128>> {
    let started = Instant::now();
    let (mut known, mut since) = (before, Instant::now());
    while since.elapsed() < QUIET {
        if started.elapsed() > TIMEOUT {
            bail!("runs go on and on after a burst");
        }
        std::thread::sleep(Duration::from_millis(50));
        let count = stamps.read().len();
        if count != known {
            (known, since) = (count, Instant::now());
        }
    }
    Ok(stamps.read().split_off(before))
}

/// Returns the run that honours the event, if it began after the event was fired and ended well. A backlog may be
/// superseded: such an event names the later one that stands for it.
fn covering_run(site: &Site<'_>, event: &str) -> Result<Option<String>> {
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a status without its fields");
    let status = site.status(event)?;
    let fired_at = text(&status["fired_at"])?;
    let mut target = status["targets"][0].clone();
    while target["state"] == "superseded" {
        let reason = text(&target["reason"])?;
        let successor = reason.split(' ').next_back().unwrap_or_default();
        target = site.status(successor)?["targets"][0].clone();
    }
    if target["state"] != "done" {
        return Ok(None);
    }
    // Both are RFC 3339 in UTC with milliseconds, so the order of the texts is the order of the times.
    let is_later = text(&target["started_at"])? >= fired_at;
    Ok(is_later.then_some(text(&target["run_id"])?))
}
