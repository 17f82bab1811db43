//! A thousand agents on one backend: the load that they cause, and the time until all are served after the backend
//! was killed.
//!
//! The agents are clients in this one process; see [`client`]. The hub is measured beside etcd.

mod agents;
mod client;
mod clock;
mod restarts;
mod seen;
mod server;
mod work;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use trigger_core::identity::EventId;

use self::agents::Agents;
use self::server::Server;
use crate::figures::{Figure, Figures, Goal, Peer};
use crate::memory::Held;
use crate::process::{cpu_seconds, run};
use crate::scratch::Scratch;
use crate::trigger::{Agent, Program};

/// The number of agents, and of samples of each measurement.
pub(crate) struct Load {
    pub(crate) agents: usize,
    pub(crate) idle_windows: usize,
    pub(crate) events: usize,
    pub(crate) restarts: usize,
}

/// The time for which the server's processor time is measured for one sample while only renewals happen.
const IDLE: Duration = Duration::from_secs(10);
/// The pause after a measurement, so that its work cannot affect the next one.
const QUIESCE_TIME: Duration = Duration::from_secs(3);

/// One line of the table before it has its peer.
struct Row {
    measure: &'static str,
    unit: &'static str,
    samples: Vec<f64>,
    goal: Option<Goal>,
}

impl Row {
    fn new(measure: &'static str, unit: &'static str, samples: Vec<f64>) -> Self {
        Self { measure, unit, samples, goal: None }
    }

    fn at_most(self, limit: f64) -> Self {
        Self { goal: Some(Goal::AtMost(limit)), ..self }
    }

    fn into_figure(self, backend: &str, agents: usize, peer: Option<Peer>) -> Figure {
        let Self { measure, unit, samples, goal } = self;
        Figure { measure, setup: format!("{backend}, {agents} agents"), unit, samples, peer, goal }
    }
}

pub(crate) fn measure(
    scratch: &Scratch,
    program: &Program,
    load: &Load,
    figures: &mut Figures,
) -> Result<()> {
    let on_etcd = measure_on("etcd", scratch, program, load, figures)?;
    let on_hub = measure_on("hub", scratch, program, load, figures)?;
    for (beside, own) in on_etcd.into_iter().zip(on_hub) {
        let peer = Peer::etcd(&beside.samples);
        figures.add(beside.into_figure("etcd", load.agents, None));
        figures.add(own.into_figure("hub", load.agents, Some(peer)));
    }
    Ok(())
}

fn measure_on(
    kind: &'static str,
    scratch: &Scratch,
    program: &Program,
    load: &Load,
    figures: &mut Figures,
) -> Result<Vec<Row>> {
    let server = Server::start(kind, scratch, program)?;
    let empty = Held::by(server.pid())?.resident;
    figures.note(format!("fleet: without agents the {kind} server held {empty:.1} MB"));
    let mut scene = Scene::start(kind, scratch, program, server, load.agents)?;
    let mut rows = scene.idle(load.idle_windows)?;
    rows.extend(scene.events(load.events)?);
    rows.extend(scene.restarts(load.restarts, figures)?);
    Ok(rows)
}

/// A backend with its agents, and a node that fires at all of them.
struct Scene<'a> {
    kind: &'static str,
    scratch: &'a Scratch,
    program: &'a Program,
    url: String,
    /// Absent while the server is killed.
    server: Option<Server>,
    agents: Agents,
    firing: Agent,
    hosts: PathBuf,
}

/// The answer of `trigger fire`.
struct Fired {
    event: EventId,
    is_spooled: bool,
}

impl<'a> Scene<'a> {
    fn start(
        kind: &'static str,
        scratch: &'a Scratch,
        program: &'a Program,
        server: Server,
        count: usize,
    ) -> Result<Self> {
        let url = server.url();
        let firing = Agent::start(scratch, program, &url, &format!("{kind}-fleet-firing"), "true")?;
        let agents = Agents::start(&url, count)?;
        let hosts = scratch.write(&format!("{kind}-fleet"), &agents.certnames())?;
        agents.wait_for_watches()?;
        Ok(Self { kind, scratch, program, url, server: Some(server), agents, firing, hosts })
    }

    fn pid(&self) -> Result<u32> {
        Ok(self.server.as_ref().context("the server was not started again")?.pid())
    }

    fn fire(&self) -> Result<Fired> {
        let mut command = self.program.command();
        command.args(["fire", "fleet", "--output", "json", "--certname", "origin.example.com"]);
        command.args(["--backend", &self.url, "--hosts-from"]).arg(&self.hosts);
        let reply = json(command.arg("--state-dir").arg(&self.firing.state))?;
        let event = reply["event_id"].as_str().and_then(|id| id.parse().ok());
        Ok(Fired {
            event: event.context("an event without its id")?,
            is_spooled: reply["state"] == "spooled",
        })
    }

    fn idle(&self, windows: usize) -> Result<Vec<Row>> {
        let pid = self.pid()?;
        let (mut held, mut busy) = (Vec::new(), Vec::new());
        std::thread::sleep(QUIESCE_TIME);
        for _ in 0..windows {
            let (since, before) = (Instant::now(), cpu_seconds(pid)?);
            std::thread::sleep(IDLE);
            busy.push((cpu_seconds(pid)? - before) / since.elapsed().as_secs_f64() * 100.0);
            held.push(Held::by(pid)?.resident);
        }
        Ok(vec![
            Row::new("memory of the server, idle", "MB", held),
            Row::new("processor of the server, idle", "%", busy),
        ])
    }

    /// Measures one event after the other.
    fn events(&self, times: usize) -> Result<Vec<Row>> {
        let pid = self.pid()?;
        let (mut each, mut last, mut busy) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..times {
            let (fired_at, before) = (Instant::now(), cpu_seconds(pid)?);
            let fired = self.fire()?;
            ensure!(!fired.is_spooled, "an event was not committed by a backend that answers");
            self.agents.wait_for_outcomes(&[fired.event]);
            let seconds = self.agents.seconds(&[fired.event], fired_at);
            let missing = self.agents.count - seconds.len();
            ensure!(missing == 0, "{missing} agents were not given an event");
            last.push(slowest(&seconds));
            each.extend(seconds);
            // The sample includes the agents' own reports afterwards.
            std::thread::sleep(QUIESCE_TIME);
            busy.push(cpu_seconds(pid)? - before);
        }
        Ok(vec![
            Row::new("one event, the fire to each agent", "s", each),
            Row::new("the same, the last agent", "s", last),
            Row::new("the same, processor of the server", "s", busy),
        ])
    }
}

fn json(command: &mut Command) -> Result<Value> {
    serde_json::from_slice(&run(command)?.stdout).with_context(|| format!("{command:?} printed no JSON"))
}

fn slowest(seconds: &[f64]) -> f64 {
    seconds.iter().copied().fold(0.0, f64::max)
}
