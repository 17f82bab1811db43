//! From the end of a partition to the start of the run that was missed during it.
//!
//! Agents are cut off by a packet filter that drops without a word, as a switch or a firewall does: TCP then
//! tells nobody, and only signs of life on the connection show that it is dead. The filter lives in a network
//! namespace of the bench's own, so this measure is a process of its own inside it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::figures::{Figure, Figures, Goal, percentile};
use crate::original;
use crate::process::{now, require, run, wait_for};
use crate::relay;
use crate::scratch::Scratch;
use crate::trigger::{Agent, Hub, Program, Stamps, committed};

/// How long nothing gets through.
const CUT_OFF: Duration = Duration::from_secs(60);
/// When in that time the event is fired.
const FIRED_AFTER: Duration = Duration::from_secs(5);
/// Until every agent has run after the partition.
const PATIENCE: Duration = Duration::from_secs(180);
const GOAL_SECONDS: f64 = 3.0;

/// Runs this program in a namespace of its own and takes over what it measured.
pub(crate) fn measure(program: &Program, scratch: &Path, agents: usize, figures: &mut Figures) -> Result<()> {
    for (program, package) in [("unshare", "util-linux"), ("ip", "iproute2"), ("nft", "nftables")] {
        require(program, package)?;
    }
    let mut command = Command::new("unshare");
    command.arg("--net");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--").arg(std::env::current_exe()?);
    command.arg("--trigger").arg(program.path()).arg("--scratch").arg(scratch);
    command.args(["--cut-off", &agents.to_string()]).stderr(Stdio::inherit());
    let measured: Value = serde_json::from_slice(&run(&mut command)?.stdout)
        .context("the measure inside the namespace printed no JSON")?;
    for backend in ["etcd", "hub"] {
        let samples: Vec<f64> = serde_json::from_value(measured[backend].clone())?;
        let slowest = percentile(&samples, 0.99);
        let mut add = |measure, samples| {
            let goal = Some(Goal::AtMost(GOAL_SECONDS));
            let setup = format!("{backend}, {agents} agents cut off for {} s", CUT_OFF.as_secs());
            figures.add(Figure { measure, setup, unit: "s", samples, peer: None, goal });
        };
        add("healed partition to the missed run", samples);
        add("the same, p99", vec![slowest]);
    }
    figures.note(
        "partition: the original's watch misses what was set while it was cut off, so it has no figure",
    );
    Ok(())
}

/// Inside the namespace: measures and prints seconds for each agent on each backend.
pub(crate) fn inside(program: &Program, scratch: &Scratch, agents: usize) -> Result<()> {
    run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    let etcd = original::start_etcd(scratch, "etcd")?;
    let on_etcd = cut_off_and_heal(program, scratch, "etcd", "etcd://", &etcd.address, agents)?;
    let hub = Hub::start(scratch, program, "hub")?;
    let on_hub = cut_off_and_heal(program, scratch, "hub", "hub+http://", &hub.address, agents)?;
    writeln!(std::io::stdout(), "{}", json!({ "etcd": on_etcd, "hub": on_hub }))
        .context("cannot write to standard output")
}

fn cut_off_and_heal(
    program: &Program,
    scratch: &Scratch,
    backend: &str,
    scheme: &str,
    address: &str,
    count: usize,
) -> Result<Vec<f64>> {
    let port =
        address.rsplit(':').next().and_then(|port| port.parse().ok()).context("an address without a port")?;
    relay::start(port)?;
    let relayed = format!("{scheme}[::1]:{port}");
    let mut agents = Vec::new();
    for number in 0..count {
        let name = format!("{backend}-cut-off-{number}");
        let stamps = Stamps::new(scratch.path(&format!("{name}.stamps")));
        let run_cmd = format!("{} {} {}", program.stamp.display(), stamps.path().display(), Stamps::RUN_MS);
        agents.push((Agent::start(scratch, program, &relayed, &name, &run_cmd)?, stamps));
    }

    let filter = Filter::drop_relayed(port)?;
    std::thread::sleep(FIRED_AFTER);
    let mut fire = program.command();
    fire.args(["fire", "missed", "--output", "json", "--certname", "origin.example.com"]);
    fire.args(["--backend", &format!("{scheme}{address}"), "--state-dir"]).arg(scratch.path("origin"));
    for (agent, _) in &agents {
        fire.args(["--host", &agent.certname]);
    }
    committed(&run(&mut fire)?.stdout)?;
    std::thread::sleep(CUT_OFF.saturating_sub(FIRED_AFTER));
    drop(filter);
    let healed_at = now();

    wait_for("the missed run of every agent", PATIENCE, || {
        agents.iter().all(|(_, stamps)| !stamps.read().is_empty())
    })?;
    let seconds = |stamps: &Stamps| {
        let started = stamps.read().first().copied().unwrap_or_default();
        started.saturating_sub(healed_at) as f64 / 1e9
    };
    Ok(agents.iter().map(|(_, stamps)| seconds(stamps)).collect())
}

/// Drops every packet from and to the relay, until it goes away.
struct Filter;

impl Filter {
    fn drop_relayed(port: u16) -> Result<Self> {
        let rules = format!(
            "table inet cut_off {{\nchain input {{\ntype filter hook input priority 0;\n\
             ip6 daddr ::1 tcp dport {port} drop\nip6 saddr ::1 tcp sport {port} drop\n}}\n}}"
        );
        run(Command::new("nft").arg(rules))?;
        Ok(Self)
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        let _ = run(Command::new("nft").args(["delete", "table", "inet", "cut_off"]));
    }
}
