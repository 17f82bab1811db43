//! Measures Trigger beside the loop that it grew from, in one run on one machine, and prints both.
//!
//! This is a bench, not a test: a goal that is missed is reported and fails nothing, since the machine may be busy.
//! The bench fails if a program is missing, or if the set-up is not the one that it should measure. Lost events are a
//! figure.

mod burst;
mod day;
mod etcd;
mod figures;
mod fleet;
#[path = "../../free_port.rs"]
mod free_port;
mod gate;
mod handshake;
mod latency;
mod memory;
mod original;
mod partition;
mod pki;
mod process;
mod publish;
mod refresh;
mod relay;
mod samples;
mod scratch;
mod stop;
mod trigger;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use mimalloc::MiMalloc;

use self::figures::Figures;
use self::original::Original;
use self::pki::{Ca, Key};
use self::process::require;
use self::samples::Samples;
use self::scratch::Scratch;
use self::trigger::{Program, Site};

// The agents of a fleet are clients in this process. Each real one has a small heap of its own, in which glibc finds a free block at
// once; with the blocks of thousands in one heap it searches long lists, which took a seventh of this process's time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Measures Trigger beside the original's loop.
#[derive(Debug, Parser)]
struct Cli {
    /// A table for people, or one JSON document
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    output: Format,
    /// Fewer samples: for a look, not for a comparison
    #[arg(long)]
    quick: bool,
    /// Only this measure; repeat for more [default: all]
    #[arg(long, value_name = "MEASURE")]
    only: Vec<Measure>,
    /// The `trigger` to measure [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    trigger: Option<PathBuf>,
    /// So many agents in the fleets, instead of 1000 without and 5000 with TLS
    #[arg(long, value_name = "NUMBER")]
    agents: Option<usize>,
    /// The key of the hub in the fleet with TLS; repeat for more [default: both]
    #[arg(long, value_name = "KEY")]
    key: Vec<Key>,
    /// Where to make the scratch directory; what is synced goes to this disk
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Cuts off so many agents, inside a network namespace that this program made for itself
    #[arg(long, value_name = "AGENTS", hide = true)]
    cut_off: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measure {
    Latency,
    Burst,
    Publish,
    Memory,
    Refresh,
    Partition,
    Fleet,
    Handshake,
    Day,
    TlsFleet,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = if let Some(agents) = cli.cut_off { cut_off(&cli, agents) } else { print(&cli) };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn cut_off(cli: &Cli, agents: usize) -> Result<()> {
    let scratch = Scratch::new(cli.scratch.as_deref())?;
    let program = Program::find(&scratch, cli.trigger.as_deref())?;
    partition::inside(&program, &scratch, agents)
}

fn print(cli: &Cli) -> Result<()> {
    let mut figures = Figures::default();
    let measured = measure(cli, &mut figures);
    // What was measured before an error took its time, too.
    let text = match cli.output {
        Format::Text => figures.to_table(),
        Format::Json => figures.to_json().to_string(),
    };
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output").and(measured)
}

fn measure(cli: &Cli, figures: &mut Figures) -> Result<()> {
    for (program, package) in [
        ("etcd", "etcd-server"),
        ("etcdctl", "etcd-client"),
        ("tsp", "task-spooler"),
        ("bash", "bash"),
        ("puppet", "puppet-agent"),
        ("openssl", "openssl"),
    ] {
        require(program, package)?;
    }
    let mut samples = if cli.quick { Samples::few() } else { Samples::many() };
    if let Some(agents) = cli.agents {
        (samples.fleet.agents, samples.tls_fleet.agents) = (agents, agents);
    }
    let wanted = |measure| cli.only.is_empty() || cli.only.contains(&measure);

    let scratch = Scratch::new(cli.scratch.as_deref())?;
    let program = Program::find(&scratch, cli.trigger.as_deref())?;
    let etcd = etcd::start(&scratch, "etcd")?;
    let original = Original::start(&scratch, &etcd, &program)?;
    let mut ca = Ca::new(&scratch)?;
    let tls_etcd = ca.issue("etcd.example.com", Key::Ec)?;
    let tls_etcd = etcd::start_with_tls(&scratch, "etcd-tls", tls_etcd)?;
    let mut sites = vec![Site::on_etcd(&scratch, &etcd, &program)?, Site::on_hub(&scratch, &program)?];
    for key in [Key::Ec, Key::Rsa] {
        sites.push(Site::on_tls_etcd(&scratch, &tls_etcd, &program, &mut ca, key)?);
        sites.push(Site::on_tls_hub(&scratch, &program, &mut ca, key)?);
    }
    let plain = &sites[..2];

    if wanted(Measure::Memory) {
        note("memory: idle processes");
        memory::measure(&scratch, &sites, (&etcd, &original), &program, figures)?;
    }
    if wanted(Measure::Latency) {
        note("latency: fire to the run's start");
        latency::measure(&sites, &original, samples.latency, figures)?;
        if wanted(Measure::Memory) {
            memory::measure_used(&sites, figures)?;
        }
    }
    if wanted(Measure::Handshake) {
        note("handshake: connections with TLS, one after the other");
        handshake::measure(&sites, &mut ca, samples.handshakes, figures)?;
    }
    if wanted(Measure::Burst) {
        note("burst: 200 events at one node");
        burst::measure(plain, &original, figures)?;
    }
    if wanted(Measure::Refresh) {
        note("refresh: inside real Puppet runs");
        refresh::measure(&scratch, plain, samples.refresh_runs, &program, figures)?;
    }
    if wanted(Measure::Partition) {
        note("partition: three minutes, in two of which nodes are cut off");
        partition::measure(&program, scratch.root(), samples.cut_off, figures)?;
    }
    if wanted(Measure::Fleet) {
        note("fleet: many agents on one backend, which is killed and started again");
        fleet::measure(&scratch, &program, &samples.fleet, figures)?;
    }
    if wanted(Measure::TlsFleet) {
        note("tls-fleet: thousands of agents on a hub without TLS, and with an EC and an RSA key");
        let keys = if cli.key.is_empty() { &[Key::Ec, Key::Rsa] } else { &cli.key[..] };
        fleet::measure_tls(&scratch, &program, &mut ca, keys, &samples.tls_fleet, figures)?;
    }
    if wanted(Measure::Day) {
        note("day: ten thousand events at one node");
        day::measure(&scratch, &program, &mut ca, samples.day, figures)?;
    }
    // This comes last, since ten thousand keys make every etcd and every hub slower than before.
    if wanted(Measure::Publish) {
        note("publish: one event to 10,000 targets");
        publish::measure(&scratch, plain, &original, &samples, figures)?;
    }
    Ok(())
}

/// Prints progress for the operator who waits.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
