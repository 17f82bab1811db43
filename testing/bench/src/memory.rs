//! The memory of idle processes. Resident memory counts shared pages in full, as `ps` and the goals do; the notes
//! give the proportional size, in which a page that several processes share counts once.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::etcd::Etcd;
use crate::figures::{Figure, Figures, Goal, Peer};
use crate::original::Original;
use crate::process::{living_children, run, wait_for};
use crate::scratch::Scratch;
use crate::trigger::{Agent, Program, Site};

/// The time without any activity after which a process counts as idle.
pub(crate) const QUIESCE_TIME: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) fn measure(
    scratch: &Scratch,
    sites: &[Site<'_>],
    (etcd, original): (&Etcd, &Original<'_>),
    program: &Program,
    figures: &mut Figures,
) -> Result<()> {
    std::thread::sleep(QUIESCE_TIME);
    let watcher = original.watcher().context("the original's `etcdctl watch` is gone")?;
    let beside = Held::by(watcher)?;
    figures
        .note(format!("memory: proportional size of the idle `etcdctl watch` {:.1} MB", beside.proportional));
    for site in sites {
        let held = Held::by(site.target.process.pid())?;
        let plain = sites.iter().find(|other| other.key.is_none() && other.is_hub() == site.is_hub());
        let peer = match (site.key, plain) {
            (Some(_), Some(plain)) => Peer::plain(&[Held::by(plain.target.process.pid())?.resident]),
            _ => Peer::original(&[beside.resident]),
        };
        add(figures, "idle agent", &site.backend, &held, Some(peer), goal(site));
    }
    for site in sites {
        if let Some(hub) = &site.hub {
            let beside = Peer::etcd(&[Held::by(etcd.process.pid())?.resident]);
            let tls = site.key.map_or_else(String::new, |key| format!(", TLS, {}", key.name()));
            add(figures, "idle hub", &format!("two agents{tls}"), &Held::by(hub.pid())?, Some(beside), None);
        }
    }
    for site in sites.iter().filter(|site| site.key.is_none()) {
        let supervisor = supervisor(scratch, site, program)?;
        add(figures, "supervisor of a run", &site.backend, &supervisor, None, None);
    }
    Ok(())
}

/// Measures the same agents after they have worked.
pub(crate) fn measure_used(sites: &[Site<'_>], figures: &mut Figures) -> Result<()> {
    std::thread::sleep(QUIESCE_TIME);
    for site in sites {
        let held = Held::by(site.target.process.pid())?;
        add(figures, "idle agent after all those runs", &site.backend, &held, None, goal(site));
    }
    Ok(())
}

fn goal(site: &Site<'_>) -> Option<Goal> {
    Some(Goal::AtMost(match site.key {
        Some(_) => 9.0,
        None if site.is_hub() => 8.0,
        None => 10.0,
    }))
}

fn add(
    figures: &mut Figures,
    measure: &'static str,
    setup: &str,
    held: &Held,
    peer: Option<Peer>,
    goal: Option<Goal>,
) {
    figures.add(Figure {
        measure,
        setup: setup.to_owned(),
        unit: "MB",
        samples: vec![held.resident],
        peer,
        goal,
    });
    figures.note(format!(
        "memory: proportional size of the {measure} ({setup}) {:.1} MB, of which its own {:.1} MB",
        held.proportional, held.anonymous
    ));
}

fn supervisor(scratch: &Scratch, site: &Site<'_>, program: &Program) -> Result<Held> {
    let agent =
        Agent::start(scratch, program, &site.url, &format!("{}-supervised", site.backend), "sleep 3", None)?;
    run(site.fire(&site.firing.state).args(["--host", &agent.certname]).stdout(Stdio::null()))?;
    let found =
        || living_children(agent.process.pid()).into_iter().find(|pid| !living_children(*pid).is_empty());
    wait_for("the start of a supervisor", TIMEOUT, || found().is_some())?;
    std::thread::sleep(Duration::from_millis(500));
    let pid = found().context("the supervisor is gone")?;
    let held = Held::by(pid)?;
    // The agent is killed with its process group; the supervisor has a session of its own and ends with its run.
    wait_for("the end of a run", TIMEOUT, || living_children(agent.process.pid()).is_empty())?;
    Ok(held)
}

/// Memory in megabytes (of 1,048,576 bytes).
pub(crate) struct Held {
    pub(crate) resident: f64,
    pub(crate) proportional: f64,
    /// Of pages that have no file.
    pub(crate) anonymous: f64,
}

impl Held {
    pub(crate) fn by(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let field = |name: &str| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .with_context(|| format!("{path}: no {name}"));
            let kilobytes: f64 = line?.trim().trim_end_matches(" kB").parse()?;
            anyhow::Ok(kilobytes / 1024.0)
        };
        Ok(Self { resident: field("Rss:")?, proportional: field("Pss:")?, anonymous: field("Anonymous:")? })
    }
}
