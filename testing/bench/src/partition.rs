//! The time from the end of a partition to the start of the run for an event that was fired during it.
//!
//! A packet filter cuts the nodes off by dropping packets silently, as a switch or a firewall does: TCP then notifies
//! neither side, and only keepalives on the connection show that it is dead. The filter lives in a network namespace
//! of the bench's own, so this measurement is a process of its own inside it; see [`mod@inside`].

mod inside;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub(crate) use self::inside::inside;
use crate::figures::{Figure, Figures, Goal, Peer, percentile};
use crate::process::{require, run};
use crate::trigger::Program;

/// The duration of the partition.
const CUT_OFF: Duration = Duration::from_secs(60);
const GOAL_SECONDS: f64 = 3.0;

/// For each node that ran for the event, the seconds from the end of the partition to its run's start.
#[derive(Serialize, Deserialize)]
struct Measured {
    original: Vec<f64>,
    etcd: Vec<f64>,
    hub: Vec<f64>,
}

/// Runs this program in a namespace of its own and takes over its measurements.
pub(crate) fn measure(program: &Program, scratch: &Path, nodes: usize, figures: &mut Figures) -> Result<()> {
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
    command.args(["--cut-off", &nodes.to_string()]);
    let measured: Measured = serde_json::from_slice(&run(&mut command)?.stdout)
        .context("the measure inside the namespace printed no JSON")?;
    for (backend, seconds) in [("etcd", &measured.etcd), ("hub", &measured.hub)] {
        add(figures, backend, nodes, seconds, &measured.original);
    }
    figures.note(format!(
        "partition: {nodes} nodes of each kind are cut off for {} s, the original's and ours on etcd together; none \
         ran before it healed. TCP kept the original's watch alive and sent it the event again, so it comes late and \
         is not lost; a watch that begins again would miss it",
        CUT_OFF.as_secs()
    ));
    Ok(())
}

fn add(figures: &mut Figures, backend: &str, nodes: usize, seconds: &[f64], original: &[f64]) {
    let setup = format!("{backend}, {nodes} agents cut off for {} s", CUT_OFF.as_secs());
    let mut add = |measure, unit, samples, peer, limit| {
        let (setup, goal) = (setup.clone(), Some(Goal::AtMost(limit)));
        figures.add(Figure { measure, setup, unit, samples, peer, goal });
    };
    // If all nodes lost the event, there is no time to report.
    let peer = |samples: &[f64]| (!original.is_empty()).then(|| Peer::original(samples));
    let (slowest, beside) = (percentile(seconds, 0.99), percentile(original, 0.99));
    let lost = |ran: &[f64]| nodes.saturating_sub(ran.len()) as f64;
    add("healed partition to the missed run", "s", seconds.to_vec(), peer(original), GOAL_SECONDS);
    add("the same, p99", "s", vec![slowest], peer(&[beside]), GOAL_SECONDS);
    let peer = Some(Peer::original(&[lost(original)]));
    add("the same, runs that never came", "", vec![lost(seconds)], peer, 0.0);
}
