//! A whole fleet in one thread: the shipped agent, supervisor and `trigger fire` on simulated machines, disks and
//! clocks, over a simulated backend, with faults drawn from a seed.
//!
//! [`simulate`] runs one seed. It replays exactly, because it reads no real clock, starts no thread and depends on no
//! hash map's order.

mod agent;
mod attacks;
mod cancelling;
mod check;
mod checker;
mod director;
mod disk;
mod executor;
mod faults;
mod file;
mod file_lock;
mod firing;
mod holding;
mod host;
mod mail;
mod manifest;
mod plan;
mod process;
mod requests;
mod run;
mod server;
mod service_manager;
mod serving;
mod state_files;
mod store;
mod tasks;
mod timers;
mod trace;
mod wanted;
mod world;

use std::collections::BTreeMap;
use std::time::Duration;

pub use world::Violation;

use executor::Sim;
use tasks::ProcessId;
use world::World;

/// Every kind of fault. All of them have to happen within a few hundred seeds, or the simulation proves less than it
/// claims.
pub const FAULTS: &[&str] = &[
    "Puppet disabled or enabled",
    "Puppet killed",
    "Puppet not started",
    "agent killed",
    "agent reloaded",
    "agent stopped",
    "all connections lost",
    "backend down",
    "backend restored amid writes",
    "backend restored from a backup",
    "clock jumps",
    "clock right again",
    "cancellation forged",
    "clock years ahead",
    "clock years behind",
    "crash between effects",
    "delivery moved",
    "delivery put back",
    "disk full",
    "event copied",
    "everything of a run killed",
    "fire killed",
    "fleet off for days",
    "machine cloned",
    "machine copied with its memory",
    "machine cut off",
    "order forged",
    "order put back",
    "power loss between effects",
    "power lost",
    "request refused for now",
    "stale read",
    "supervisor killed",
    "supervisor not started",
    "unsynced writes lost",
    "watch compacted",
    "watch ended by a lost connection",
    "watch ended silently",
    "watch ended with an error",
    "watch event late",
    "watch event lost",
    "watch event twice",
    "watch events out of order",
    "watch stalled",
    "write done after its time was over",
    "write done and not answered",
    "write done by halves",
    "write lost on its way",
];

/// Further events that have to happen for the rules to mean anything.
pub const EVENTS: &[&str] = &[
    "claim changed hands",
    "claim released",
    "delivery expired by a sweeper",
    "ended cancelled",
    "ended done",
    "ended expired",
    "ended failed",
    "ended refused",
    "ended superseded",
    "ended suppressed",
    "event cancelled",
    "event cancelled by another node",
    "event removed by a sweeper",
    "fire inside a run",
    "fire spooled",
    "fire suppressed",
    "hold ended by its time",
    "node held",
    "node released",
    "node still held after a start",
    "order to another node",
    "order to itself",
    "read again",
    "run adopted",
    "run interrupted",
    "run timed out",
    "run with several causes",
    "spooled event expired",
    "spooled event published",
];

/// The result of one seed.
#[derive(Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The first violation of a rule, if there was one.
    pub violation: Option<Violation>,
    /// A hash of everything that happened.
    pub hash: u64,
    /// The number of occurrences of each kind of event and fault.
    pub counts: BTreeMap<&'static str, u64>,
    /// What happened step by step, if the trace was kept.
    pub trace: Vec<String>,
    /// The time that passed on the simulation's own clock.
    pub lasted: Duration,
    /// The number of steps that it took.
    pub steps: u64,
}

/// Runs one seed to its end, or to the first rule that does not hold. A panic of the simulated code, such as a failed
/// assertion of the core, counts as a violation too.
pub fn simulate(seed: u64, keeps_trace: bool) -> Report {
    let sim = Sim::new(World::new(seed, keeps_trace));
    sim.spawn(ProcessId(0), director::direct(sim.clone()));
    if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sim.run())) {
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        sim.with(|world| world.violate("nothing panics", words.unwrap_or_default()));
    }
    sim.with(|world| {
        if !world.is_finished && world.violation.is_none() {
            world.violate("it comes to rest", "no process waits for anything".to_owned());
        }
        let trace = std::mem::replace(&mut world.trace, trace::Trace::new(false));
        Report {
            seed,
            violation: world.violation.take(),
            hash: trace.hash(),
            counts: std::mem::take(&mut world.counts),
            trace: trace.into_lines(),
            lasted: world.now,
            steps: world.steps,
        }
    })
}
