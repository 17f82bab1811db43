//! The people and fate: who fires what, and what goes wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use trigger_core::event::{DEFAULT_LIFETIME, RunOptions};
use trigger_core::identity::{Certname, GroupName};
use trigger_core::lineage::{DEFAULT_TTL, Loops};

use crate::agent;
use crate::disk::Disk;
use crate::executor::{ProcessId, Sim};
use crate::firing::{self, Wanted};
use crate::manifest::{self, certname, name};
use crate::process::Own;
use crate::world::{Kind, Machine, World};

/// How long after the last fault everything must have come to rest.
const REST_WITHIN: Duration = Duration::from_secs(4 * 60 * 60);
/// So long goes on what had a week in its midst: until the sweepers have been around.
const SWEPT_WITHIN: Duration = Duration::from_secs(3 * 60 * 60);

/// Sets the fleet up, lets it work and suffer, heals it, and waits until all has ended.
pub(crate) async fn direct(sim: Sim) {
    let nodes = sim.with(|world| world.plan.nodes);
    for node in 0..nodes {
        sim.with(|world| {
            let machine = draw_machine(world, node);
            world.machines.push(machine);
        });
    }
    let own = Own::start(&sim, 0, Kind::Director);
    sim.with(|world| world.director = Some(own.id));
    for machine in 0..nodes {
        sim.spawn(own.id, take_care(sim.clone(), machine));
    }
    sim.spawn(own.id, work(sim.clone()));
    sim.spawn(own.id, suffer(sim.clone()));
    let busy_for = sim.with(|world| world.plan.busy_for);
    if sim.with(|world| world.plan.long_off) {
        sim.sleep(busy_for / 2).await;
        be_off_for_a_week(&sim).await;
        sim.sleep(busy_for / 2).await;
    } else {
        sim.sleep(busy_for).await;
    }
    heal(&sim);
    let healed = sim.now();
    let is_long = sim.with(|world| world.plan.long_off);
    let rest = if is_long { SWEPT_WITHIN } else { Duration::from_secs(180) };
    loop {
        sim.sleep(Duration::from_secs(60)).await;
        let open = sim.with(|world| world.open_deliveries());
        if open.is_empty() && sim.now() - healed > rest {
            break;
        }
        if sim.now() - healed > REST_WITHIN {
            let detail = format!("{} deliveries, such as {}", open.len(), open[0]);
            return sim.with(|world| world.violate("every delivery ends", detail));
        }
    }
    sim.with(|world| {
        world.check_fires_kept();
        world.is_finished = true;
    });
}

fn draw_machine(world: &mut World, node: usize) -> Machine {
    let nodes = world.plan.nodes;
    let rng = &mut world.rng;
    let groups: Vec<GroupName> = if rng.u8(..3) > 0 { vec![name("all")] } else { Vec::new() };
    Machine {
        certname: certname(node),
        groups,
        disk: Disk::default(),
        identity: u32::try_from(node).unwrap_or_default(),
        boot: 0,
        is_on: true,
        is_gone: false,
        off_until: Duration::ZERO,
        is_cut_off: false,
        clock_ahead: rng.i64(-120_000..120_000),
        is_disabled: false,
        honours_noop: rng.u8(..4) > 0,
        manifest: manifest::draw(rng, nodes),
        socket: None,
        locks: Default::default(),
    }
}

/// The service manager of one machine: an agent that ended is started again; a machine that is off boots.
async fn take_care(sim: Sim, machine: usize) {
    loop {
        let (is_gone, is_on, off_until) = sim.with(|world| {
            let machine = &world.machines[machine];
            (machine.is_gone, machine.is_on, machine.off_until)
        });
        if is_gone {
            return;
        }
        if !is_on {
            let wait = sim.with(|world| Duration::from_millis(world.rng.u64(1_000..120_000)));
            sim.sleep(wait.max(off_until.saturating_sub(sim.now()))).await;
            sim.with(|world| {
                let machine = &mut world.machines[machine];
                machine.is_on = !machine.is_gone;
                machine.boot += 1;
                world.count("machine booted");
            });
            continue;
        }
        let wait = sim.with(|world| Duration::from_millis(world.rng.u64(50..10_000)));
        sim.sleep(wait).await;
        if sim.with(|world| world.machines[machine].is_on && !world.machines[machine].is_gone) {
            let agent = agent::start(&sim, machine);
            sim.exited(agent).await;
        }
    }
}

/// What operators fire.
async fn work(sim: Sim) {
    loop {
        let wait = sim.with(|world| world.plan.fire_every.mul_f64(-(1.0 - world.rng.f64()).ln()));
        sim.sleep(wait).await;
        if !sim.with(|world| world.is_busy) {
            return;
        }
        let burst = sim.with(|world| if world.rng.u8(..40) == 0 { world.rng.usize(20..100) } else { 1 });
        let first = sim.with(draw_fire);
        for number in 0..burst {
            let (machine, wanted) = if number == 0 || sim.with(|world| world.rng.u8(..8) > 0) {
                first.clone()
            } else {
                sim.with(draw_fire)
            };
            if !sim.with(|world| world.machines[machine].is_on) {
                continue;
            }
            let fire = Own::start(&sim, machine, Kind::Fire);
            sim.spawn(fire.id, firing::fire(fire.clone(), wanted));
        }
    }
}

fn draw_fire(world: &mut World) -> (usize, Wanted) {
    let nodes = world.plan.nodes;
    let is_large = world.plan.large_events && world.rng.u8(..4) == 0;
    let rng = &mut world.rng;
    let machine = rng.usize(..nodes);
    let mut hosts: BTreeSet<Certname> = (0..rng.usize(1..=3)).map(|_| certname(rng.usize(..nodes))).collect();
    let groups: BTreeSet<GroupName> = if rng.u8(..4) == 0 { [name("all")].into() } else { BTreeSet::new() };
    if !groups.is_empty() && rng.bool() {
        hosts.clear();
    }
    if is_large {
        hosts.extend((0..rng.usize(100..300)).map(|number| name::<Certname>(&format!("x{number}"))));
    }
    let options = if rng.u8(..3) == 0 { manifest::options(rng) } else { RunOptions::default() };
    let expires_in = if rng.u8(..6) == 0 { Duration::from_secs(rng.u64(30..1200)) } else { DEFAULT_LIFETIME };
    let trigger = name(["deploy", "reload", "sync"][rng.usize(..3)]);
    (
        machine,
        Wanted {
            trigger,
            hosts,
            groups,
            options,
            ttl: DEFAULT_TTL,
            loops: Loops::Avoid,
            expires_in,
            run: None,
        },
    )
}

/// What goes wrong beside what goes wrong on its own.
async fn suffer(sim: Sim) {
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
        match world.rng.u8(..14) {
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
            7 => backend_down(world),
            8 if world.plan.rewinds => rewind(world),
            9 => {
                let wild = world.plan.wild_clocks && machine == 0;
                let ahead = if wild { 5 * 365 * 86_400_000 } else { world.rng.i64(-120_000..120_000) };
                let what = if wild { "clock years ahead" } else { "clock jumps" };
                world.fault(what, format_args!("m{machine} to {ahead} ms"));
                world.machines[machine].clock_ahead = ahead;
            }
            10 => {
                let is_disabled = !world.machines[machine].is_disabled;
                world.fault("Puppet disabled or enabled", format_args!("m{machine} {is_disabled}"));
                world.machines[machine].is_disabled = is_disabled;
            }
            11 => {
                if let Some(socket) = &world.machines[machine].socket {
                    let _ = socket.stop.send(());
                    world.fault("agent stopped", format_args!("m{machine}"));
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

/// A machine is copied, disk and name, and both are there. Whoever restores a backup elsewhere does this.
fn clone(sim: &Sim, world: &mut World, of: usize) {
    let number = world.machines.len();
    let original = &world.machines[of];
    let copy = Machine {
        certname: original.certname.clone(),
        groups: original.groups.clone(),
        disk: original.disk.copy(),
        // A copied folder has a number of its own, that of a copied machine has not.
        identity: if world.rng.bool() {
            original.identity
        } else {
            u32::try_from(number).unwrap_or_default()
        },
        boot: original.boot,
        is_on: true,
        is_gone: false,
        off_until: Duration::ZERO,
        is_cut_off: false,
        clock_ahead: original.clock_ahead,
        is_disabled: false,
        honours_noop: original.honours_noop,
        manifest: original.manifest.clone(),
        socket: None,
        locks: Default::default(),
    };
    world.fault("machine cloned", format_args!("m{of} as m{number}"));
    world.machines.push(copy);
    let director = world.director.unwrap_or(ProcessId(0));
    world.spawn(director, take_care(sim.clone(), number));
}

/// Of machines with one name all but one are thrown away: which, is chance.
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

/// Everything is off for longer than any event lives and is kept.
async fn be_off_for_a_week(sim: &Sim) {
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
    sim.with(|world| world.is_busy = true);
    sim.spawn(sim.with(|world| world.director).unwrap_or(ProcessId(0)), work(sim.clone()));
}

fn heal(sim: &Sim) {
    sim.with(|world| {
        world.note(format_args!("HEAL"));
        keep_one_of_each(world);
        world.faults_happen = false;
        world.is_busy = false;
        world.server.is_down = false;
        for machine in &mut world.machines {
            machine.is_cut_off = false;
            machine.is_disabled = false;
            machine.off_until = Duration::ZERO;
        }
    });
}
