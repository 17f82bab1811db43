//! One trial: a testbed, a schedule, the load, and the verdict.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::fmt::friendly::{Spacing, SpanPrinter};
use trigger_e2e::{BackendKind, end_all_of};

use crate::alarm::Alarm;
use crate::artifacts::Artifacts;
use crate::chaos::Chaos;
use crate::checker;
use crate::coverage::lacks;
use crate::figures::Figures;
use crate::fleet::NODES;
use crate::load;
use crate::plan::{Lane, kinds_of, plan};
use crate::quiesce::quiesce;
use crate::records::Records;
use crate::testbed::Testbed;

/// The parameters of a trial.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trial {
    /// The backend.
    pub(crate) kind: BackendKind,
    /// The seed of the schedule.
    pub(crate) seed: u64,
    /// The time for which faults are injected.
    pub(crate) budget: Duration,
    /// Whether the directory is kept even if the contract held.
    pub(crate) keep: bool,
}

/// The result of the faults and the load.
struct Happened {
    artifacts: Artifacts,
    /// Whether the harness itself completed all its work.
    is_whole: bool,
}

impl Trial {
    /// Performs the trial and returns whether the contract held. The directory is removed only if it did.
    #[expect(clippy::print_stdout, reason = "the report of a command for people")]
    pub(crate) fn run(self, alarm: &Alarm) -> anyhow::Result<bool> {
        let (name, seed) = (self.name(), self.seed);
        let lanes = plan(self.kind, seed, self.budget);
        let scratch = tempfile::Builder::new().prefix("trigger-faults-").tempdir()?;
        let directory = scratch.path();
        alarm.guard(directory);
        self.announce(directory, &lanes);
        // A part of the harness that fails panics: the directory must be kept in this case too.
        let happened = catch_unwind(AssertUnwindSafe(|| self.perform(&lanes, directory)));
        end_all_of(directory);
        alarm.release();
        let happened = happened.unwrap_or_else(|_| Err(anyhow::anyhow!("the trial failed: see above")));
        let problems = match &happened {
            Ok(happened) => self.judge(happened, &lanes),
            Err(_) => Vec::new(),
        };
        let holds = happened.is_ok() && problems.is_empty();
        problems.iter().for_each(|complaint| println!("{complaint}"));
        match (holds, problems.len()) {
            (true, _) => println!("== {name}: the contract held"),
            (false, 0) => println!("== {name}: there is no verdict with SEED={seed}"),
            (false, count) => println!("== {name}: {count} problems with SEED={seed}"),
        }
        if self.keep || !holds {
            println!("{} is kept", scratch.keep().display());
        }
        println!();
        happened.map(|_| holds)
    }

    fn name(self) -> &'static str {
        if self.kind.is_hub() { "hub" } else { "etcd" }
    }

    #[expect(clippy::print_stdout, reason = "the report of a command for people")]
    fn announce(self, directory: &Path, lanes: &[Lane]) {
        let (name, seed) = (self.name(), self.seed);
        let budget = SpanPrinter::new().spacing(Spacing::None).unsigned_duration_to_string(&self.budget);
        let plain = if self.kind.is_tls() { "" } else { " PLAIN=true" };
        println!("== {name}: to repeat it: make faults BACKEND={name} BUDGET={budget} SEED={seed}{plain}");
        println!("in {}", directory.display());
        let mut all = lanes.concat();
        all.sort_by_key(|planned| planned.from);
        println!("schedule of {} faults:", all.len());
        all.iter().for_each(|planned| println!("  {planned}"));
    }

    /// Prints the figures. Returns the violations of the contract and the defects of the trial.
    #[expect(clippy::print_stdout, reason = "the report of a command for people")]
    fn judge(self, happened: &Happened, lanes: &[Lane]) -> Vec<String> {
        let artifacts = &happened.artifacts;
        println!("{}", Figures::of(artifacts));
        let mut problems: Vec<String> =
            checker::check(artifacts).iter().map(|violation| format!("VIOLATED {violation}")).collect();
        let lacks = lacks(artifacts, &kinds_of(lanes), self.budget);
        problems.extend(lacks.iter().map(|lack| format!("the trial proves too little: {lack}")));
        problems.extend((!happened.is_whole).then(|| "a part of the trial failed: see above".to_owned()));
        problems
    }

    /// Runs the faults and collects the artifacts. The testbed ends with this function: its files stay for inspection,
    /// its processes do not.
    #[expect(clippy::print_stdout, reason = "the report of a command for people")]
    fn perform(self, lanes: &[Lane], directory: &Path) -> anyhow::Result<Happened> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.context("cannot start the wires' runtime")?;
        let testbed = Testbed::start(self.kind, directory, runtime.handle())?;
        let records = Records::of((0..NODES).map(|node| testbed.directory_of(node)).collect());
        println!("what happened:");
        let chaos = Chaos::new(&testbed, self.budget);
        let is_whole = self.trouble(&testbed, &chaos, &records, lanes);
        let quiet = Instant::now();
        testbed.heal();
        let artifacts = quiesce(&testbed, &records, chaos.windows())?;
        println!("quiet {:.0} s after the last fire", quiet.elapsed().as_secs_f64());
        Ok(Happened { artifacts, is_whole })
    }

    /// Runs the load and all lanes of faults side by side. Returns whether each part came to its end.
    fn trouble(self, testbed: &Testbed, chaos: &Chaos<'_>, records: &Records, lanes: &[Lane]) -> bool {
        let over = AtomicBool::new(false);
        let began = Instant::now();
        let all = || {
            scope(|scope| {
                scope.spawn(|| load::keep_firing(testbed, scope, self.seed, &over));
                scope.spawn(|| records.keep_collecting(&over));
                let lanes: Vec<_> = lanes.iter().map(|lane| scope.spawn(|| chaos.perform(lane))).collect();
                let ended: Vec<_> = lanes.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
                std::thread::sleep(self.budget.saturating_sub(began.elapsed()));
                over.store(true, Ordering::Relaxed);
                ended.iter().all(Result::is_ok)
            })
        };
        // Even if a part failed, the rest is worth a report.
        catch_unwind(AssertUnwindSafe(all)).unwrap_or_default()
    }
}
