//! The faults of machines, processes, clocks and the backend. Those of single requests, watches and effects are
//! injected where they occur.

use std::time::Duration;

use trigger_node::agent::Signal;

use crate::executor::Sim;
use crate::service_manager::take_care;
use crate::tasks::ProcessId;
use crate::world::{Kind, Machine, World};

/// The number of milliseconds by which a wild clock is off.
const YEARS: i64 = 5 * 365 * 86_400_000;

/// Injects faults until the simulation's busy time is over.
pub(crate) async fn inject(sim: Sim) {
    loop {
        let wait = sim.with(|world| world.plan.fault_every.mul_f64(-(1.0 - world.rng.f64()).ln()));
        sim.sleep(wait).await;
        if !sim.with(|world| world.faults_happen) {
            return;
        }
        if sim.with(|world| world.is_busy) {
            strike(&sim);
        }
    }
}

fn strike(sim: &Sim) {
    sim.with(|world| {
        let machine = world.rng.usize(..world.machines.len());
        match world.rng.u8(..17) {
            0 => kill(world, machine, "agent killed", |kind| kind == Kind::Agent),
            1 => kill(world, machine, "supervisor killed", |kind| matches!(kind, Kind::Supervisor(_))),
            2 => kill(world, machine, "Puppet killed", |kind| matches!(kind, Kind::Puppet(_))),
            3 => kill(world, machine, "everything of a run killed", |kind| {
                matches!(kind, Kind::Puppet(_) | Kind::Supervisor(_))
            }),
            4 => {
                let off_for =
                    Duration::from_secs(if world.rng.u8(..4) == 0 { world.rng.u64(..3600) } else { 0 });
                world.fault("power lost", format_args!("m{machine} for {off_for:?}"));
                world.machines[machine].off_until = world.now + off_for;
                world.lose_power(machine);
            }
            5 | 6 => cut_off(world, machine),
            14 => fill_disk(world, machine),
            15 | 16 if world.plan.attacks => world.attack(),
            7 => backend_down(world),
            8 if world.plan.rewinds => rewind(world),
            9 => jump(world, machine),
            13 if world.plan.wild_clocks => jump(world, 0),
            10 => {
                let is_disabled = !world.machines[machine].is_disabled;
                world.fault("Puppet disabled or enabled", format_args!("m{machine} {is_disabled}"));
                world.machines[machine].is_disabled = is_disabled;
            }
            11 => {
                if let Some(socket) = &world.machines[machine].socket {
                    let signals = socket.signals.clone();
                    let (signal, what) = match world.rng.u8(..3) {
                        0 => (Signal::Reload, "agent reloaded"),
                        _ => (Signal::Terminate, "agent stopped"),
                    };
                    world.fault(what, format_args!("m{machine}"));
                    let _ = signals.try_send(signal);
                }
            }
            12 if world.plan.clones && world.machines.len() < 2 * world.plan.nodes => {
                clone(sim, world, machine);
            }
            _ => {
                world.fault("all connections lost", format_args!("m{machine}"));
                world.break_watches(Some(machine));
            }
        }
    });
}

/// Lets a clock jump by minutes. In a seed with wild clocks, one machine's clock jumps by years, in either direction,
/// and back.
fn jump(world: &mut World, machine: usize) {
    let minutes = world.rng.i64(-120_000..120_000);
    let is_wild = world.plan.wild_clocks && machine == 0;
    let was_off = world.machines[machine].clock_ahead.abs() >= YEARS;
    let (what, ahead) = match if is_wild { world.rng.u8(..4) } else { 3 } {
        0 => ("clock years ahead", YEARS),
        1 => ("clock years behind", -YEARS),
        _ if was_off => ("clock right again", minutes),
        _ => ("clock jumps", minutes),
    };
    world.fault(what, format_args!("m{machine} to {ahead} ms"));
    let machine = &mut world.machines[machine];
    machine.clock_ahead = ahead;
    machine.was_wild |= ahead.abs() >= YEARS;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Copied {
    /// Another file under the same kernel.
    Directory,
    /// The same file under another kernel.
    Machine,
    /// The same file under the same kernel, which together are all that names a lock.
    MachineWithMemory,
}

/// Copies a machine with its disk and its name, and keeps both, as the restore of a backup on another machine does.
fn clone(sim: &Sim, world: &mut World, of: usize) {
    let number = world.machines.len();
    let kind = [Copied::Directory, Copied::Machine, Copied::MachineWithMemory][world.rng.usize(..3)];
    let boot = if kind == Copied::Machine { world.new_boot() } else { world.machines[of].boot };
    let has_same_name = world.rng.bool();
    let original = &world.machines[of];
    let copy = Machine {
        certname: original.certname.clone(),
        groups: original.groups.clone(),
        disk: original.disk.copy(),
        identity: match kind {
            Copied::Directory => u32::try_from(number).unwrap_or_default(),
            Copied::Machine | Copied::MachineWithMemory => original.identity,
        },
        boot,
        is_on: true,
        is_gone: false,
        off_until: Duration::ZERO,
        is_cut_off: false,
        clock_ahead: original.clock_ahead,
        was_wild: original.was_wild,
        is_disabled: false,
        runs_puppet: original.runs_puppet,
        manifest: original.manifest.clone(),
        socket: None,
        instance: String::new(),
        // A program in the middle of its work cannot be copied here; the lock that its agent holds and its instance
        // name can.
        remembered_instance: (kind == Copied::MachineWithMemory && has_same_name)
            .then(|| original.instance.clone()),
        restarts: None,
        is_full: false,
        locks: Default::default(),
    };
    let what = match kind {
        Copied::MachineWithMemory => "machine copied with its memory",
        Copied::Directory | Copied::Machine => "machine cloned",
    };
    world.fault(what, format_args!("m{of} as m{number}"));
    world.machines.push(copy);
    world.check.copy_fires(of, number);
    let director = world.director.unwrap_or(ProcessId(0));
    world.spawn(director, take_care(sim.clone(), number));
}

/// Throws away all but one of the machines with one name. The seed decides which one stays.
fn keep_one_of_each(world: &mut World) {
    for node in 0..world.plan.nodes {
        let name = world.machines[node].certname.clone();
        let same = |world: &World| -> Vec<usize> {
            let all = world.machines.iter().enumerate();
            all.filter(|(_, m)| m.certname == name && !m.is_gone).map(|(index, _)| index).collect()
        };
        while let [_, _, ..] = same(world)[..] {
            let machines = same(world);
            let gone = machines[world.rng.usize(..machines.len())];
            world.note(format_args!("m{gone} is thrown away"));
            world.lose_power(gone);
            world.machines[gone].is_gone = true;
        }
    }
}

fn kill(world: &mut World, machine: usize, what: &'static str, is_meant: impl Fn(Kind) -> bool) {
    let doomed = world.processes_of(machine, is_meant);
    if !doomed.is_empty() {
        world.fault(what, format_args!("m{machine}"));
    }
    for process in doomed {
        world.end_process(process);
    }
}

fn cut_off(world: &mut World, machine: usize) {
    if std::mem::replace(&mut world.machines[machine].is_cut_off, true) {
        return;
    }
    let lasts =
        Duration::from_secs(if world.rng.bool() { world.rng.u64(1..60) } else { world.rng.u64(60..900) });
    world.fault("machine cut off", format_args!("m{machine} for {lasts:?}"));
    world.break_watches(Some(machine));
    world.after(lasts, move |world| {
        world.note(format_args!("m{machine} is connected again"));
        world.machines[machine].is_cut_off = false;
    });
}

/// Fills a disk for a while.
fn fill_disk(world: &mut World, machine: usize) {
    if std::mem::replace(&mut world.machines[machine].is_full, true) {
        return;
    }
    let lasts =
        Duration::from_secs(if world.rng.bool() { world.rng.u64(1..60) } else { world.rng.u64(60..900) });
    world.check.were_full.insert(machine);
    world.fault("disk full", format_args!("m{machine} for {lasts:?}"));
    world.after(lasts, move |world| {
        world.note(format_args!("m{machine} has room again"));
        world.machines[machine].is_full = false;
    });
}

fn backend_down(world: &mut World) {
    if std::mem::replace(&mut world.server.is_down, true) {
        return;
    }
    let lasts =
        Duration::from_secs(if world.rng.bool() { world.rng.u64(1..30) } else { world.rng.u64(30..600) });
    world.fault("backend down", format_args!("for {lasts:?}"));
    world.break_watches(None);
    world.after(lasts, |world| {
        world.note(format_args!("the backend is up again"));
        world.server.is_down = false;
    });
}

fn rewind(world: &mut World) {
    let ago = Duration::from_secs(world.rng.u64(..600));
    let to = world.server.revision_at(world.now.saturating_sub(ago));
    world.fault("backend restored from a backup", format_args!("{ago:?} old, revision {to}"));
    world.rewind(to);
}

impl World {
    /// Restores the backend in the middle of a sequence of writes: the first ones may be lost when the later ones
    /// arrive.
    pub(crate) fn may_rewind_amid(&mut self) {
        if self.plan.rewinds && self.strikes(0.002) {
            let ago = Duration::from_millis(self.rng.u64(..500));
            let to = self.server.revision_at(self.now.saturating_sub(ago));
            self.fault("backend restored amid writes", format_args!("{ago:?} old, revision {to}"));
            self.rewind(to);
        }
    }
}

/// Switches the whole fleet off for longer than any event lives and is retained.
pub(crate) async fn be_off_for_a_week(sim: &Sim) {
    let off_for = sim.with(|world| Duration::from_secs(world.rng.u64(6..10) * 86_400));
    sim.with(|world| {
        world.fault("fleet off for days", format_args!("{off_for:?}"));
        world.is_busy = false;
        for machine in 0..world.machines.len() {
            world.machines[machine].off_until = world.now + off_for;
            world.lose_power(machine);
        }
    });
    sim.sleep(off_for).await;
}

pub(crate) fn heal(sim: &Sim) {
    sim.with(|world| {
        world.note(format_args!("HEAL"));
        keep_one_of_each(world);
        world.faults_happen = false;
        world.is_busy = false;
        world.server.is_down = false;
        for machine in &mut world.machines {
            machine.is_cut_off = false;
            machine.is_full = false;
            machine.is_disabled = false;
            machine.off_until = Duration::ZERO;
        }
    });
}

impl World {
    /// Kills a `trigger fire` with some chance. It lives for milliseconds only, so faults at random moments would
    /// never hit one.
    pub(crate) fn may_kill_fire(&mut self, fire: ProcessId) {
        let chance = self.plan.crash * 4.0;
        if !self.strikes(chance) {
            return;
        }
        let most = if self.rng.bool() { 20_000 } else { 8_000_000 };
        let lives = Duration::from_micros(self.rng.u64(..most));
        self.after(lives, move |world| {
            if world.is_alive(fire) {
                world.fault("fire killed", format_args!("p{}", fire.0));
                world.end_process(fire);
            }
        });
    }

    /// Returns whether a process cannot be started, for lack of memory or process ids.
    pub(crate) fn may_fail_to_start(&mut self, what: &'static str) -> bool {
        let chance = self.plan.crash * 2.0;
        let fails = self.strikes(chance);
        if fails {
            self.fault(what, format_args!(""));
        }
        fails
    }
}
