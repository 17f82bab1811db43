//! The measurement itself, in a network namespace of its own: everything that it leaves there disappears with it.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{CUT_OFF, Measured};
use crate::etcd::{self, Etcd};
use crate::original::{self, CONNECT_TIMEOUT, Loop};
use crate::process::{happens_within, now, run};
use crate::relay;
use crate::scratch::Scratch;
use crate::trigger::{Agent, Hub, Program, Stamps, committed};

/// The time within the partition at which the event is fired.
const FIRED_AFTER: Duration = Duration::from_secs(5);
/// The time after the partition at which a node that has not run counts as having lost the event. TCP retransmits at
/// doubling intervals, the last of them some 54 s and 108 s after the first try, so the original may receive the
/// event over 50 s after the end.
const TIMEOUT: Duration = Duration::from_secs(180);

/// The parts that all measurements here share.
struct Scene<'a> {
    program: &'a Program,
    scratch: &'a Scratch,
    /// The number of nodes of each kind.
    count: usize,
}

/// Takes the measurements and prints them as JSON.
pub(crate) fn inside(program: &Program, scratch: &Scratch, count: usize) -> Result<()> {
    run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    let scene = Scene { program, scratch, count };
    let (original, etcd) = scene.on_etcd()?;
    let measured = Measured { original, etcd, hub: scene.on_hub()? };
    let text = serde_json::to_string(&measured)?;
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")
}

impl Scene<'_> {
    /// Cuts the original's nodes and Trigger's off from one etcd at the same time.
    fn on_etcd(&self) -> Result<(Vec<f64>, Vec<f64>)> {
        let etcd = etcd::start(self.scratch, "etcd")?;
        let port = relay::start(&etcd.address)?;
        let loops = self.start_loops(port)?;
        let agents = self.start_agents("etcd", &format!("etcd://[::1]:{port}"))?;
        let nodes = loops.iter().map(|node| &node.stamps).chain(agents.iter().map(|(_, stamps)| stamps));
        let fire = || {
            self.set_all(&etcd)?;
            self.fire(&etcd.url(), &agents)
        };
        let mut seconds = cut_off_and_heal(port, &nodes.collect::<Vec<_>>(), fire)?;
        let of_agents = seconds.split_off(loops.len());
        Ok((ran(seconds), ran(of_agents)))
    }

    fn on_hub(&self) -> Result<Vec<f64>> {
        let hub = Hub::start(self.scratch, self.program, "hub", None)?;
        let port = relay::start(&hub.address)?;
        let agents = self.start_agents("hub", &format!("hub+http://[::1]:{port}"))?;
        let nodes: Vec<_> = agents.iter().map(|(_, stamps)| stamps).collect();
        let fire = || self.fire(&hub.url(), &agents);
        Ok(ran(cut_off_and_heal(port, &nodes, fire)?))
    }

    fn start_loops(&self, port: u16) -> Result<Vec<Loop>> {
        let url = format!("http://[::1]:{port}");
        // Without this option, it first asks etcd for its own address, which is not the relay's.
        let flags = ["--no-sync", "--endpoints", &url];
        let start =
            |name: String| Loop::start(self.scratch, self.program, &name, &flags, &original::key(&name));
        let loops = self.names("original").map(start).collect();
        std::thread::sleep(CONNECT_TIMEOUT);
        loops
    }

    fn start_agents(&self, backend: &str, url: &str) -> Result<Vec<(Agent, Stamps)>> {
        let start = |name: String| {
            let stamps = Stamps::new(self.scratch.path(&format!("{name}.stamps")));
            let (stamp, path) = (self.program.stamp.display(), stamps.path().display());
            let run_cmd = format!("{stamp} {path} {}", Stamps::RUN_MS);
            Ok((Agent::start(self.scratch, self.program, url, &name, &run_cmd, None)?, stamps))
        };
        self.names(backend).map(start).collect()
    }

    fn names(&self, kind: &str) -> impl Iterator<Item = String> {
        (0..self.count).map(move |number| format!("{kind}-cut-off-{number}"))
    }

    /// Fires at every agent, without the relay.
    fn fire(&self, url: &str, agents: &[(Agent, Stamps)]) -> Result<()> {
        let mut fire = self.program.command();
        fire.args(["fire", "missed", "--output", "json", "--certname", "origin.example.com"]);
        fire.args(["--backend", url, "--state-dir"]).arg(self.scratch.path("origin"));
        for (agent, _) in agents {
            fire.args(["--host", &agent.certname]);
        }
        committed(&run(&mut fire)?.stdout).map(drop)
    }

    /// Fires at every node of the original, without the relay.
    fn set_all(&self, etcd: &Etcd) -> Result<()> {
        self.names("original").try_for_each(|name| run(&mut etcd.set(&original::key(&name))).map(drop))
    }
}

/// Cuts off the nodes behind this port and fires meanwhile. Returns for each node the seconds from just before the
/// partition's end to the start of its run; `None` for a node that did not run.
fn cut_off_and_heal(
    port: u16,
    nodes: &[&Stamps],
    fire: impl FnOnce() -> Result<()>,
) -> Result<Vec<Option<f64>>> {
    let filter = Filter::drop_relayed(port)?;
    let since = Instant::now();
    std::thread::sleep(FIRED_AFTER);
    fire()?;
    std::thread::sleep(CUT_OFF.saturating_sub(since.elapsed()));
    let early = nodes.iter().filter(|stamps| !stamps.read().is_empty()).count();
    ensure!(
        early == 0,
        "{early} of {} nodes ran while they were cut off: there was no partition",
        nodes.len()
    );
    let healed_at = now();
    filter.remove()?;

    happens_within(TIMEOUT, || nodes.iter().all(|stamps| !stamps.read().is_empty()));
    let seconds = |stamps: &&Stamps| {
        let started_at = *stamps.read().first()?;
        Some(started_at.saturating_sub(healed_at) as f64 / 1e9)
    };
    Ok(nodes.iter().map(seconds).collect())
}

fn ran(seconds: Vec<Option<f64>>) -> Vec<f64> {
    seconds.into_iter().flatten().collect()
}

/// Drops every packet from and to the relay until it is removed, or until the namespace is gone.
struct Filter;

impl Filter {
    fn drop_relayed(port: u16) -> Result<Self> {
        let rules = format!(
            "table inet cut_off {{\nchain input {{\ntype filter hook input priority 0;\n\
             ip6 daddr ::1 tcp dport {port} drop\nip6 saddr ::1 tcp sport {port} drop\n}}\n}}"
        );
        run(Command::new("nft").arg(rules)).context("cannot cut the nodes off")?;
        Ok(Self)
    }

    fn remove(self) -> Result<()> {
        run(Command::new("nft").args(["delete", "table", "inet", "cut_off"]))
            .context("cannot end the partition")?;
        Ok(())
    }
}
