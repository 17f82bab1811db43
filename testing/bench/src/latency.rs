//! The time from the start of the firing process to the start of the run's process, for one event after the other.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::figures::{Figure, Figures, Goal, Peer};
use crate::original::Original;
use crate::process::{now, spawn, wait_for};
use crate::trigger::{Site, Stamps};

/// The interval between two events. An agent starts runs at least one second apart, so events that should not wait
/// come no faster.
const SPACING: Duration = Duration::from_millis(1100);
/// The pause after an event, for the work that remains when its run has started.
const QUIESCE_TIME: Duration = Duration::from_millis(100);
const TIMEOUT: Duration = Duration::from_secs(10);
/// The number of rounds that do not count, while caches and first connections warm up.
const WARM_UP: usize = 3;

/// One way to fire, and the file in which its runs leave their stamps.
struct Lane<'a> {
    setup: String,
    fire: Box<dyn Fn() -> Command + 'a>,
    stamps: &'a Stamps,
    last: Option<Instant>,
    samples: Vec<f64>,
}

pub(crate) fn measure(
    sites: &[Site<'_>],
    original: &Original<'_>,
    count: usize,
    figures: &mut Figures,
) -> Result<()> {
    let lane = |setup, fire, stamps| Lane { setup, fire, stamps, last: None, samples: Vec::new() };
    let mut lanes = vec![lane("original".to_owned(), Box::new(|| original.fire()), original.stamps())];
    for site in sites {
        let fire = move |state| {
            let mut command = site.fire(state);
            command.args(["--host", &site.target.certname]);
            command
        };
        let (with, without) = (&site.firing.state, &site.agentless);
        let setup = |which: &str| format!("{}, {which} agent on the firing node", site.backend);
        lanes.push(lane(setup("with"), Box::new(move || fire(with)), &site.stamps));
        lanes.push(lane(setup("without"), Box::new(move || fire(without)), &site.stamps));
    }
    // The lanes take turns, so that other load on this machine affects all of them alike.
    for round in 0..WARM_UP + count {
        for index in 0..lanes.len() {
            let since = last_start(&lanes, index);
            std::thread::sleep(SPACING.saturating_sub(since.map_or(SPACING, |at| at.elapsed())));
            let sample = lanes[index].sample()?;
            if round >= WARM_UP {
                lanes[index].samples.push(sample);
            }
            std::thread::sleep(QUIESCE_TIME);
        }
    }
    let (original, ours) = lanes.split_at(1);
    for lane in ours {
        figures.add(Figure {
            measure: "fire to run start",
            setup: lane.setup.clone(),
            unit: "ms",
            samples: lane.samples.clone(),
            peer: Some(Peer::original(&original[0].samples)),
            goal: Some(Goal::OfPeer(0.5)),
        });
    }
    figures.note(format!(
        "fire to run start: process start to process start, one event at a time, at least {} ms apart at one node \
         (an agent starts runs at least 1 s apart); all set-ups in turn in each round",
        SPACING.as_millis()
    ));
    Ok(())
}

/// Returns the latest start of a run at the node that this lane fires at.
fn last_start(lanes: &[Lane<'_>], index: usize) -> Option<Instant> {
    let stamps = lanes[index].stamps.path();
    lanes.iter().filter(|lane| lane.stamps.path() == stamps).filter_map(|lane| lane.last).max()
}

impl Lane<'_> {
    /// Takes one sample, in milliseconds.
    fn sample(&mut self) -> Result<f64> {
        let before = self.stamps.read().len();
        let mut command = (self.fire)();
        command.stdout(Stdio::null());
        let fired_at = now();
        let status = spawn(&mut command)?.wait()?;
        anyhow::ensure!(status.success(), "{command:?} failed: {status}");
        let what = format!("a run ({})", self.setup);
        wait_for(&what, TIMEOUT, || self.stamps.read().len() > before)?;
        self.last = Some(Instant::now());
        let started_at = self.stamps.read()[before];
        Ok(started_at.saturating_sub(fired_at) as f64 / 1e6)
    }
}
