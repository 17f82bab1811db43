//! The resources of a simulated process: its machine's disk and clocks, a connection to the backend, and the points
//! between its effects at which it may die.

use std::fmt;
use std::time::Duration;

use crate::executor::Sim;
use crate::tasks::ProcessId;
use crate::world::{Kind, World};

/// A process's view of the world.
#[derive(Clone)]
pub(crate) struct Proc {
    pub(crate) sim: Sim,
    pub(crate) id: ProcessId,
    pub(crate) machine: usize,
    pub(crate) started: Duration,
}

impl fmt::Debug for Proc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m{} p{}", self.machine, self.id.0)
    }
}

impl Proc {
    /// Starts a process on a machine.
    pub(crate) fn start(sim: &Sim, machine: usize, kind: Kind) -> Self {
        let (id, started) = sim.with(|world| (world.start_process(machine, kind), world.now));
        Self { sim: sim.clone(), id, machine, started }
    }

    /// Performs an action, unless this process is dead: a dead process goes on to its next await and changes nothing.
    pub(crate) fn act<T>(&self, act: impl FnOnce(&mut World) -> T) -> Option<T> {
        self.sim.with(|world| world.is_alive(self.id).then(|| act(world)))
    }

    pub(crate) fn note(&self, what: std::fmt::Arguments<'_>) {
        let (id, machine) = (self.id.0, self.machine);
        self.sim.with(|world| world.note(format_args!("m{machine} p{id} {what}")));
    }

    /// Ends the process, which has done its work.
    pub(crate) fn exit(&self) {
        self.sim.with(|world| world.end_process(self.id));
    }

    /// Marks a change within a step: this process may die before it.
    pub(crate) fn step_now(&self, what: &str) -> std::io::Result<()> {
        match self.act(|world| world.may_crash(self, what)) {
            Some(false) => Ok(()),
            _ => Err(std::io::Error::other("this process is no more")),
        }
    }

    /// Marks the point between two effects: the process, or its whole machine, may end here, and other tasks may run.
    pub(crate) async fn step(&self, what: &'static str) {
        let wait = self.sim.with(|world| {
            if !world.is_alive(self.id) || world.may_crash(self, what) {
                return Some(Duration::MAX);
            }
            (world.rng.u8(..4) == 0).then(|| Duration::from_micros(world.rng.u64(..3000)))
        });
        match wait {
            Some(Duration::MAX) => std::future::pending().await,
            Some(wait) => self.sim.sleep(wait).await,
            None => {}
        }
    }
}

impl World {
    /// Returns whether a process, or its whole machine, ends before its next effect.
    pub(crate) fn may_crash(&mut self, process: &Proc, before: &str) -> bool {
        let chance = self.plan.crash;
        if !self.strikes(chance) {
            return false;
        }
        if self.rng.u8(..4) == 0 {
            self.fault("power loss between effects", format_args!("m{} before: {before}", process.machine));
            self.lose_power(process.machine);
        } else {
            self.fault("crash between effects", format_args!("p{} before: {before}", process.id.0));
            self.end_process(process.id);
        }
        true
    }
}
