//! Real faults against the real program: a real backend, twenty real agents, hundreds of real fires a minute,
//! and meanwhile a seeded schedule of kills, pauses, cuts and compactions. At the end a checker proves the
//! contract from the runs' own log, or says what speaks against it and keeps the folder.
//!
//! `trigger-faults run FOLDER` is the run command of its nodes.

#![allow(clippy::expect_used, reason = "a trial that cannot do its part fails")]

mod carrier;
mod chaos;
mod checker;
mod evidence;
mod figures;
mod fleet;
mod journal;
mod link;
mod load;
mod plan;
mod processes;
mod run;
mod settle;
mod site;
mod trial;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use trigger_e2e::BackendKind;

/// The shortest budget in which anything can happen.
const SHORTEST: Duration = Duration::from_secs(20);

/// Proves Trigger's contract under real faults.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// For how long each backend is put to the test; the fleet's becoming quiet comes on top
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration)]
    budget: Duration,
    /// Repeats the schedule of an earlier trial [default: another one each time]
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Keeps the folder although the contract held
    #[arg(long)]
    keep: bool,
    /// What carries the events
    #[arg(long, value_name = "BACKEND", default_value = "both")]
    backend: Choice,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The run command of the trial's nodes
    #[command(hide = true)]
    Run {
        /// The node's folder
        folder: PathBuf,
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
    if let Some(Command::Run { folder }) = &cli.command {
        return run::run(folder).map_or_else(
            |error| {
                eprintln!("error: {error:#}");
                ExitCode::from(99)
            },
            ExitCode::from,
        );
    }
    if cli.budget < SHORTEST {
        eprintln!("error: a budget of less than {} proves nothing", humantime::format_duration(SHORTEST));
        return ExitCode::from(2);
    }
    let kinds = match cli.backend {
        Choice::Hub => vec![BackendKind::Hub],
        Choice::Etcd => vec![BackendKind::Etcd],
        Choice::Both => vec![BackendKind::Hub, BackendKind::Etcd],
    };
    let seed = cli.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let mut holds = true;
    for kind in kinds {
        match trial::run(kind, seed, cli.budget, cli.keep) {
            Ok(verdict) => holds &= verdict,
            Err(error) => {
                eprintln!("error: {error:#}");
                holds = false;
            }
        }
    }
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
