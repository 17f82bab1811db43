//! Injects real faults into the real program: a real backend, twenty real agents, hundreds of real fires a minute,
//! and a seeded schedule of kills, pauses, cuts and compactions. At the end a checker proves the contract from the
//! runs' own log, or names the violations and keeps the directory.
//!
//! `trigger-faults run DIRECTORY` is the run command of its nodes.

#![allow(clippy::expect_used, reason = "a trial that cannot do its part fails")]

mod alarm;
mod artifacts;
mod backend;
mod chaos;
mod checker;
mod coverage;
mod fault;
mod figures;
mod fleet;
mod inject;
mod journal;
mod link;
mod load;
mod logs;
mod overtaking;
mod plan;
mod processes;
mod quiesce;
mod records;
mod run;
mod stored;
mod testbed;
mod trial;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use jiff::fmt::friendly::{SpanParser, SpanPrinter};
use trigger_e2e::BackendKind;

use crate::alarm::Alarm;
use crate::plan::SHORTEST;
use crate::trial::Trial;

/// Proves Trigger's contract under real faults.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// For how long each backend is put to the test; the fleet's becoming quiet comes on top
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    budget: Duration,
    /// Repeats the schedule of an earlier trial [default: another one each time]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Keeps the directory although the contract held
    #[arg(long)]
    keep: bool,
    /// What carries the events
    #[arg(long, value_name = "BACKEND", default_value = "both")]
    backend: Choice,
    /// Without TLS and signatures
    #[arg(long)]
    plain: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The run command of the trial's nodes
    #[command(hide = true)]
    Run {
        /// The node's directory
        directory: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    Hub,
    Etcd,
    Both,
}

#[expect(clippy::print_stderr, reason = "a command for people")]
fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(Command::Run { directory }) = &cli.command {
        return run::run(directory).map_or_else(
            |error| {
                eprintln!("error: {error:#}");
                ExitCode::from(99)
            },
            ExitCode::from,
        );
    }
    if cli.budget < SHORTEST {
        let shortest = SpanPrinter::new().unsigned_duration_to_string(&SHORTEST);
        eprintln!("error: a budget of less than {shortest} does not hold every kind of fault");
        return ExitCode::from(2);
    }
    match trials(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn duration(text: &str) -> Result<Duration, jiff::Error> {
    SpanParser::new().parse_unsigned_duration(text)
}

/// Runs one trial after the other, also after a failed one. Returns whether the contract held in all of them.
#[expect(clippy::print_stderr, reason = "a command for people")]
fn trials(cli: &Cli) -> anyhow::Result<bool> {
    let alarm = Alarm::start()?;
    let (hub, etcd) = if cli.plain {
        (BackendKind::PlainHub, BackendKind::PlainEtcd)
    } else {
        (BackendKind::Hub, BackendKind::Etcd)
    };
    let kinds = match cli.backend {
        Choice::Hub => vec![hub],
        Choice::Etcd => vec![etcd],
        Choice::Both => vec![hub, etcd],
    };
    let seed = cli.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let mut holds = true;
    for kind in kinds {
        let trial = Trial { kind, seed, budget: cli.budget, keep: cli.keep };
        holds &= trial.run(&alarm).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            false
        });
    }
    Ok(holds)
}
