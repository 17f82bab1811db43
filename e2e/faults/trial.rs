//! One trial: a site, a schedule, the load, the verdict.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use anyhow::Context;
use trigger_e2e::{BackendKind, end_all_of};

use crate::chaos::Chaos;
use crate::checker;
use crate::evidence::Evidence;
use crate::figures::Figures;
use crate::load;
use crate::plan::{Lane, plan};
use crate::settle::settle;
use crate::site::Site;

/// Puts one backend to the test; whether the contract held. The folder is kept unless it did.
#[expect(clippy::print_stdout, reason = "the report of a command for people")]
pub(crate) fn run(kind: BackendKind, seed: u64, budget: Duration, keep: bool) -> anyhow::Result<bool> {
    let name = format!("{kind:?}").to_lowercase();
    let limit = humantime::format_duration(budget);
    println!(
        "== {name}: to repeat it: make faults BACKEND={name} BUDGET={} SEED={seed}",
        limit.to_string().replace(' ', "")
    );
    let lanes = plan(kind, seed, budget);
    print_plan(&lanes);
    let scratch = tempfile::Builder::new().prefix("trigger-faults-").tempdir()?;
    let folder = scratch.path();
    // A part of the harness that cannot do its work panics: the folder must be kept then too.
    let evidence = catch_unwind(AssertUnwindSafe(|| perform(kind, seed, budget, &lanes, folder)));
    end_all_of(folder);
    let violations = match evidence.map_err(|_| anyhow::anyhow!("the trial itself came to grief: see above"))
    {
        Ok(Ok(evidence)) => {
            println!("{}", Figures::of(&evidence));
            checker::check(&evidence)
        }
        Ok(Err(error)) | Err(error) => {
            println!("{} is kept", scratch.keep().display());
            return Err(error);
        }
    };
    if violations.is_empty() {
        println!("== {name}: the contract held\n");
        if keep {
            println!("{} is kept", scratch.keep().display());
        }
        return Ok(true);
    }
    for violation in &violations {
        println!("VIOLATED {violation}");
    }
    println!(
        "== {name}: {} violations with SEED={seed}; {} is kept\n",
        violations.len(),
        scratch.keep().display()
    );
    Ok(false)
}

#[expect(clippy::print_stdout, reason = "the report of a command for people")]
fn print_plan(lanes: &[Lane]) {
    let mut all = lanes.concat();
    all.sort_by_key(|planned| planned.from);
    println!("schedule of {} faults:", all.len());
    all.iter().for_each(|planned| println!("  {planned}"));
}

/// The site lives no longer than this: what is left of it can be looked at, but does nothing any more.
#[expect(clippy::print_stdout, reason = "the report of a command for people")]
fn perform(
    kind: BackendKind,
    seed: u64,
    budget: Duration,
    lanes: &[Lane],
    folder: &Path,
) -> anyhow::Result<Evidence> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.context("cannot start the wires' runtime")?;
    let site = Site::start(kind, folder, runtime.handle())?;
    println!("what happened:");
    let chaos = Chaos::new(&site, kind);
    let over = AtomicBool::new(false);
    let began = Instant::now();
    scope(|scope| {
        scope.spawn(|| load::keep_firing(&site, scope, seed, &over));
        let lanes: Vec<_> = lanes.iter().map(|lane| scope.spawn(|| chaos.perform(lane))).collect();
        let ended: Vec<_> = lanes.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        std::thread::sleep(budget.saturating_sub(began.elapsed()));
        over.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|lane| lane.expect("a lane of faults to come to its end"));
    });
    let quiet = Instant::now();
    let evidence = settle(&site, chaos.into_windows())?;
    println!("quiet {:.0} s after the last fire", quiet.elapsed().as_secs_f64());
    Ok(evidence)
}
