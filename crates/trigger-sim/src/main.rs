//! Runs seeds: `cargo run --profile sim -p trigger-sim -- --seeds 10000`. Each seed is a fleet, a workload and
//! faults. A seed that fails is printed with the steps that led to the failure, and replays exactly.
#![expect(clippy::print_stdout, reason = "this program's whole purpose is to tell")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::Parser;
use trigger_sim::{EVENTS, FAULTS, Report, simulate};

/// The number of steps of a failed seed that are shown by default.
const LAST_STEPS: usize = 40;

/// A whole fleet in one thread, with faults drawn from a seed.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds to run
    #[arg(long, default_value_t = 300)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Only this one
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Print all that happens
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Go on after a seed that failed
    #[arg(long)]
    keep_going: bool,
    /// Look for a seed that breaks this rule, and for no other: for code with a defect in it
    #[arg(long, value_name = "RULE", conflicts_with_all = ["seed", "keep_going"])]
    expect: Option<String>,
    /// How many seeds at the same time [default: one for each processor]
    #[arg(long)]
    jobs: Option<usize>,
}

thread_local! {
    /// The seed that this thread simulates, for the report of a panic.
    static SEED: Cell<u64> = const { Cell::new(0) };
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // In a release build a panic ends the program at once, so the seed must be printed first.
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        println!("seed {} panicked", SEED.get());
        tell(panic);
    }));
    match arguments.seed {
        Some(seed) => replay(seed, arguments.trace),
        None => run_all(&arguments),
    }
}

/// Runs one seed, with its trace if that is asked for.
fn replay(seed: u64, is_traced: bool) -> ExitCode {
    SEED.set(seed);
    let report = simulate(seed, true);
    let shown = if is_traced { report.trace.len() } else { LAST_STEPS.min(report.trace.len()) };
    if is_traced || report.violation.is_some() {
        report.trace[report.trace.len() - shown..].iter().for_each(|line| println!("{line}"));
    }
    println!("{}", sentence(&report));
    if report.violation.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn sentence(report: &Report) -> String {
    let Report { seed, hash, steps, lasted, .. } = report;
    let what = report.violation.as_ref().map_or_else(|| "ok".to_owned(), |v| format!("FAILED: {v}"));
    format!("seed {seed}: {what} (trace {hash:016x}, {steps} steps, {} s simulated)", lasted.as_secs())
}

fn run_all(arguments: &Arguments) -> ExitCode {
    let seeds = arguments.from..arguments.from + arguments.seeds;
    let jobs = arguments.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let began = Instant::now();
    let (done, failures, counts) = run(seeds, jobs, arguments);
    if arguments.expect.is_some() {
        return if failures.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    for (what, count) in &counts {
        println!("{count:>10}  {what}");
    }
    let missing: Vec<&str> =
        FAULTS.iter().chain(EVENTS).copied().filter(|what| !counts.contains_key(what)).collect();
    println!("{done} seeds in {:.1} s, {} failed", began.elapsed().as_secs_f64(), failures.len());
    let Some(first) = failures.iter().min() else { return ended_well(done, &missing) };
    println!();
    replay(*first, false);
    println!("To replay it: make sim SEED={first}");
    ExitCode::FAILURE
}

/// The number of seeds in which every kind of fault must happen.
const MEETS_ALL: u64 = 300;

/// Reports whether all rules held and, if enough seeds ran, whether each kind of fault occurred.
fn ended_well(done: u64, missing: &[&str]) -> ExitCode {
    if done < MEETS_ALL || missing.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("FAILED: in none of them happened: {}", missing.join(", "));
    ExitCode::FAILURE
}

type Counts = BTreeMap<&'static str, u64>;

/// Runs seeds until one fails, by the expected rule if one is given. Each seed stays on one thread from start to end.
fn run(seeds: Range<u64>, jobs: usize, arguments: &Arguments) -> (u64, Vec<u64>, Counts) {
    let is_meant = |rule: &str| arguments.expect.as_deref().is_none_or(|expected| rule == expected);
    let (next, done, stop) = (AtomicU64::new(seeds.start), AtomicU64::new(0), AtomicBool::new(false));
    let results: Mutex<(Vec<u64>, Counts)> = Mutex::default();
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return;
            }
            SEED.set(seed);
            let report = simulate(seed, false);
            done.fetch_add(1, Ordering::Relaxed);
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            for (what, count) in &report.counts {
                *results.1.entry(what).or_default() += count;
            }
            if report.violation.as_ref().is_some_and(|violation| is_meant(violation.invariant)) {
                println!("{}", sentence(&report));
                results.0.push(seed);
                stop.store(!arguments.keep_going, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
    let (failures, counts) = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    (done.into_inner(), failures, counts)
}
