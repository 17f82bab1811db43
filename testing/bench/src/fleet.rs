//! Thousands of agents on one backend: the load that they cause, and the time until all are served after the backend
//! was killed.
//!
//! The agents are clients in this one process; see [`client`]. The hub is measured beside etcd, and with TLS beside
//! itself without.

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
use trigger_pki::TlsFiles;

use self::agents::Agents;
use self::server::{Kind, Server};
use crate::figures::{Figure, Figures, Goal, Peer, percentile};
use crate::memory::Held;
use crate::pki::{Ca, Key};
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

    fn into_figure(self, kind: Kind, agents: usize, peer: Option<Peer>) -> Figure {
        let Self { measure, unit, samples, goal } = self;
        let setup = format!("{}, {agents} agents", kind.title());
        Figure { measure, setup, unit, samples, peer, goal }
    }
}

pub(crate) fn measure(
    scratch: &Scratch,
    program: &Program,
    load: &Load,
    figures: &mut Figures,
) -> Result<()> {
    let (mut on_etcd, mut on_hub) = (Vec::new(), Vec::new());
    measure_on(Kind::ETCD, None, scratch, program, load, figures, &mut on_etcd)?;
    measure_on(Kind::HUB, None, scratch, program, load, figures, &mut on_hub)?;
    for (beside, own) in on_etcd.into_iter().zip(on_hub) {
        let peer = Peer::etcd(&beside.samples);
        figures.add(beside.into_figure(Kind::ETCD, load.agents, None));
        figures.add(own.into_figure(Kind::HUB, load.agents, Some(peer)));
    }
    Ok(())
}

/// Measures a hub with TLS, with each of the keys, beside one without.
pub(crate) fn measure_tls(
    scratch: &Scratch,
    program: &Program,
    ca: &mut Ca,
    keys: &[Key],
    load: &Load,
    figures: &mut Figures,
) -> Result<()> {
    let issued = (0..load.agents).map(|number| ca.issue(&agents::certname(number), Key::Ec));
    let mut nodes = Nodes { agents: issued.collect::<Result<_>>()?, ca };
    let mut plain = Vec::new();
    measure_on(Kind::HUB, None, scratch, program, load, figures, &mut plain)?;
    let peers: Vec<Vec<f64>> = plain.iter().map(|row| row.samples.clone()).collect();
    plain.into_iter().for_each(|row| figures.add(row.into_figure(Kind::HUB, load.agents, None)));
    for key in keys.iter().copied() {
        // The agents before are being taken down.
        std::thread::sleep(QUIESCE_TIME);
        let kind = Kind { key: Some(key), ..Kind::HUB };
        let mut rows = Vec::new();
        let measured = measure_on(kind, Some(&mut nodes), scratch, program, load, figures, &mut rows);
        for (row, peer) in rows.into_iter().zip(&peers) {
            figures.add(row.into_figure(kind, load.agents, Some(Peer::plain(peer))));
        }
        measured?;
    }
    Ok(())
}

/// The certificates of a fleet with TLS.
struct Nodes<'a> {
    ca: &'a mut Ca,
    agents: Vec<TlsFiles>,
}

/// Adds a row for each measurement, also for those before an error.
fn measure_on(
    kind: Kind,
    nodes: Option<&mut Nodes<'_>>,
    scratch: &Scratch,
    program: &Program,
    load: &Load,
    figures: &mut Figures,
    rows: &mut Vec<Row>,
) -> Result<()> {
    let name = format!("{}-{}", kind.name(), load.agents);
    let (files, certificates) = match (kind.key, nodes) {
        (Some(key), Some(nodes)) => {
            let server = nodes.ca.issue(&format!("{name}.example.com"), key)?;
            let firing = nodes.ca.issue(&format!("{name}-firing.example.com"), Key::Ec)?;
            (Some((server, firing)), &nodes.agents[..])
        }
        _ => (None, &[][..]),
    };
    let server = Server::start(kind, &name, scratch, program, files.as_ref().map(|(server, _)| server))?;
    let empty = Held::by(server.pid())?.resident;
    figures.note(format!("fleet: without agents the server ({}) held {empty:.1} MB", kind.title()));
    let url = server.url();
    let firing = files.as_ref().map(|(_, firing)| firing);
    let firing = Agent::start(scratch, program, &url, &format!("{name}-firing"), "true", firing)?;
    let agents = Agents::start(&url, load.agents, certificates)?;
    let hosts = scratch.write(&format!("{name}-hosts"), &agents.certnames())?;
    agents.wait_for_watches()?;
    let mut scene = Scene { kind, scratch, program, server: Some(server), agents, firing, hosts };
    rows.extend(scene.idle(load.idle_windows, empty)?);
    rows.extend(scene.events(load.events)?);
    rows.extend(scene.restarts(load.restarts, figures)?);
    Ok(())
}

/// A backend with its agents, and a node that fires at all of them.
struct Scene<'a> {
    kind: Kind,
    scratch: &'a Scratch,
    program: &'a Program,
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

impl Scene<'_> {
    fn pid(&self) -> Result<u32> {
        Ok(self.server.as_ref().context("the server was not started again")?.pid())
    }

    /// Returns a command on the node that fires.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.firing.command(self.program);
        command.args(arguments).args(["--output", "json", "--certname", &self.firing.certname]);
        command.args(["--backend", &self.firing.url]);
        command
    }

    fn fire(&self) -> Result<Fired> {
        let mut command = self.command(&["fire", "fleet"]);
        command.arg("--hosts-from").arg(&self.hosts);
        let reply = json(command.arg("--state-dir").arg(&self.firing.state))?;
        let event = reply["event_id"].as_str().and_then(|id| id.parse().ok());
        Ok(Fired {
            event: event.context("an event without its id")?,
            is_spooled: reply["state"] == "spooled",
        })
    }

    /// Measures the server while nothing happens; without agents it held so many megabytes.
    fn idle(&self, windows: usize, empty: f64) -> Result<Vec<Row>> {
        let pid = self.pid()?;
        let (mut held, mut busy) = (Vec::new(), Vec::new());
        std::thread::sleep(QUIESCE_TIME);
        for _ in 0..windows {
            let (since, before) = (Instant::now(), cpu_seconds(pid)?);
            std::thread::sleep(IDLE);
            busy.push((cpu_seconds(pid)? - before) / since.elapsed().as_secs_f64() * 100.0);
            held.push(Held::by(pid)?.resident);
        }
        let for_each = |held: &f64| (held - empty) * 1024.0 / self.agents.count as f64;
        let each = Row::new("the same, for each agent", "kB", held.iter().map(for_each).collect());
        let is_tls = self.kind.key.is_some();
        Ok(vec![
            Row::new("memory of the server, idle", "MB", held),
            if is_tls { each.at_most(16.0) } else { each },
            Row::new("processor of the server, idle", "%", busy),
        ])
    }

    /// Measures one event after the other.
    fn events(&self, times: usize) -> Result<Vec<Row>> {
        let pid = self.pid()?;
        let (mut each, mut slow, mut last, mut busy) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..times {
            let (fired_at, before) = (Instant::now(), cpu_seconds(pid)?);
            let fired = self.fire()?;
            ensure!(!fired.is_spooled, "an event was not committed by a backend that answers");
            self.agents.wait_for_outcomes(&[fired.event]);
            let seconds = self.agents.seconds(&[fired.event], fired_at);
            let missing = self.agents.count - seconds.len();
            ensure!(missing == 0, "{missing} agents were not given an event");
            last.push(slowest(&seconds));
            slow.push(percentile(&seconds, 0.99));
            each.extend(seconds);
            // The sample includes the agents' own reports afterwards.
            std::thread::sleep(QUIESCE_TIME);
            busy.push(cpu_seconds(pid)? - before);
        }
        Ok(vec![
            Row::new("one event, the fire to each agent", "s", each),
            Row::new("the same, p99 of the agents", "s", slow).at_most(2.0),
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
