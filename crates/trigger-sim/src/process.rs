//! What a simulated process has at hand: its machine's disk and clocks, a connection to the backend, and
//! the places between its effects where it may die.

use std::sync::Arc;
use std::time::Duration;

use trigger_core::time::{Now, Timestamp};
use trigger_fleet::Fleet;

use crate::disk::Disk;
use crate::executor::{ProcessId, Sim};
use crate::store::SimStore;
use crate::world::{Kind, World};

/// A process's view of the world.
#[derive(Clone)]
pub(crate) struct Proc {
    pub(crate) sim: Sim,
    pub(crate) id: ProcessId,
    pub(crate) machine: usize,
    started: Duration,
}

impl Proc {
    /// A new process on a machine.
    pub(crate) fn start(sim: &Sim, machine: usize, kind: Kind) -> Self {
        let (id, started) = sim.with(|world| (world.start_process(machine, kind), world.now));
        Self { sim: sim.clone(), id, machine, started }
    }

    /// Its connection to the backend.
    pub(crate) fn connect(&self) -> Fleet {
        let keyspace = self.sim.with(|world| world.keyspace.clone());
        Fleet::new(Arc::new(SimStore::new(self.clone())), keyspace)
    }

    pub(crate) fn now(&self) -> Now {
        self.sim.with(|world| Now { wall: world.wall(self.machine), elapsed: world.now - self.started })
    }

    pub(crate) fn wall(&self) -> Timestamp {
        self.now().wall
    }

    pub(crate) fn jitter(&self) -> f64 {
        self.sim.with(|world| world.rng.f64())
    }

    pub(crate) fn disk<T>(&self, act: impl FnOnce(&mut Disk) -> T) -> T {
        self.sim.with(|world| act(world.machines[self.machine].disk.at(world.now)))
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        self.sim.with(act)
    }

    pub(crate) fn note(&self, what: std::fmt::Arguments<'_>) {
        let (id, machine) = (self.id.0, self.machine);
        self.sim.with(|world| world.note(format_args!("m{machine} p{id} {what}")));
    }

    /// The place between two effects: the process, or its whole machine, may end here, and others go on.
    pub(crate) async fn step(&self, what: &'static str) {
        let wait = self.sim.with(|world| {
            let chance = world.plan.crash;
            if world.strikes(chance) {
                if world.rng.u8(..4) == 0 {
                    world.fault(
                        "power loss between effects",
                        format_args!("m{} before: {what}", self.machine),
                    );
                    world.lose_power(self.machine);
                } else {
                    world.fault("crash between effects", format_args!("p{} before: {what}", self.id.0));
                    world.end_process(self.id);
                }
                return Some(Duration::from_secs(1));
            }
            (world.rng.u8(..4) == 0).then(|| Duration::from_micros(world.rng.u64(..3000)))
        });
        if let Some(wait) = wait {
            self.sim.sleep(wait).await;
        }
    }
}
