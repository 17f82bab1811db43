//! The time from the start of the firing process to the start of the run's process, for one event after the other.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::figures::{Figure, Figures, Goal, Peer};
use crate::original::Original;
use crate::pki::Key;
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
    /// The key of its certificates, and the lane that is the same without any.
    tls: Option<(Key, usize)>,
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
    let lane = |setup, tls, fire, stamps| Lane { setup, tls, fire, stamps, last: None, samples: Vec::new() };
    let mut lanes = vec![lane("original".to_owned(), None, Box::new(|| original.fire()), original.stamps())];
    for site in sites {
        // Two lanes for each site come after the original's.
        let plain = sites.iter().position(|other| other.key.is_none() && other.is_hub() == site.is_hub());
        let beside = |lane: usize| site.key.zip(plain.map(|plain| 1 + 2 * plain + lane));
        let fire = move |state| {
            let mut command = site.fire(state);
            command.args(["--host", &site.target.certname]);
            command
        };
        let (with, without) = (&site.firing.state, &site.agentless);
        let setup = |which: &str| format!("{}, {which} agent on the firing node", site.backend);
        lanes.push(lane(setup("with"), beside(0), Box::new(move || fire(with)), &site.stamps));
        lanes.push(lane(setup("without"), beside(1), Box::new(move || fire(without)), &site.stamps));
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
    for lane in &lanes[1..] {
        let mut add = |measure, peer, goal| {
            let (setup, samples) = (lane.setup.clone(), lane.samples.clone());
            figures.add(Figure { measure, setup, unit: "ms", samples, peer: Some(peer), goal });
        };
        let is_rsa = matches!(lane.tls, Some((Key::Rsa, _)));
        let half = (!is_rsa).then_some(Goal::OfPeer(0.5));
        add("fire to run start", Peer::original(&lanes[0].samples), half);
        if let Some((_, plain)) = lane.tls {
            let more = Goal::AbovePeer(if is_rsa { 8.0 } else { 3.0 });
            add("the same, beside plain links", Peer::plain(&lanes[plain].samples), Some(more));
        }
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
