//! The operators: they set up and tear down machines, fire events, and decide when the simulation is over.

use std::collections::BTreeSet;
use std::time::Duration;

use trigger_core::event::{DEFAULT_LIFETIME, RunOptions};
use trigger_core::identity::{Certname, GroupName};
use trigger_core::lineage::Loops;
use trigger_core::loop_guard::DEFAULT_TTL;

use crate::cancelling;
use crate::disk::Disk;
use crate::executor::Sim;
use crate::faults;
use crate::firing;
use crate::holding;
use crate::manifest::{self, certname, name};
use crate::process::Proc;
use crate::service_manager::take_care;
use crate::wanted::Wanted;
use crate::world::{Kind, Machine, World};

/// The time after the last fault within which the fleet must come to rest.
const REST_TIMEOUT: Duration = Duration::from_secs(4 * 60 * 60);
/// The time for which a simulation with a week off in its middle goes on, so that the sweepers have had their turn.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(3 * 60 * 60);

/// Sets up the fleet, lets it work under faults, heals it, and waits until every delivery has ended.
pub(crate) async fn direct(sim: Sim) {
    let nodes = sim.with(|world| world.plan.nodes);
    for node in 0..nodes {
        sim.with(|world| {
            let machine = draw_machine(world, node);
            world.machines.push(machine);
        });
    }
    let own = Proc::start(&sim, 0, Kind::Director);
    sim.with(|world| world.director = Some(own.id));
    for machine in 0..nodes {
        sim.spawn(own.id, take_care(sim.clone(), machine));
    }
    sim.spawn(own.id, work(sim.clone()));
    sim.spawn(own.id, faults::inject(sim.clone()));
    let busy_for = sim.with(|world| world.plan.busy_for);
    if sim.with(|world| world.plan.long_off) {
        sim.sleep(busy_for / 2).await;
        faults::be_off_for_a_week(&sim).await;
        sim.with(|world| world.is_busy = true);
        sim.spawn(own.id, work(sim.clone()));
        sim.sleep(busy_for / 2).await;
    } else {
        sim.sleep(busy_for).await;
    }
    faults::heal(&sim);
    let healed = sim.now();
    let is_long = sim.with(|world| world.plan.long_off);
    let rest = if is_long { SWEEP_TIMEOUT } else { Duration::from_secs(180) };
    loop {
        sim.sleep(Duration::from_secs(60)).await;
        let (open, left) = sim.with(|world| (world.open_deliveries(), world.leftovers()));
        if open.is_empty() && left.is_empty() && sim.now() - healed > rest {
            break;
        }
        // Every delivery must have ended by then (C2).
        if sim.now() - healed > REST_TIMEOUT {
            return sim.with(|world| match (&open[..], &left[..]) {
                ([first, ..], _) => {
                    world.violate("every delivery ends", format!("{} do not, such as {first}", open.len()));
                }
                (_, [first, ..]) => {
                    world.violate("nothing is left behind", format!("{} are, such as {first}", left.len()));
                }
                _ => {}
            });
        }
    }
    sim.with(|world| {
        world.check_fires_kept();
        world.is_finished = true;
    });
}

pub(crate) fn draw_machine(world: &mut World, node: usize) -> Machine {
    let (nodes, boot) = (world.plan.nodes, world.new_boot());
    let rng = &mut world.rng;
    let groups: Vec<GroupName> = if rng.u8(..3) > 0 { vec![name("all")] } else { Vec::new() };
    Machine {
        certname: certname(node),
        groups,
        disk: Disk::default(),
        identity: u32::try_from(node).unwrap_or_default(),
        boot,
        is_on: true,
        is_gone: false,
        off_until: Duration::ZERO,
        is_cut_off: false,
        clock_ahead: rng.i64(-120_000..120_000),
        was_wild: false,
        is_disabled: false,
        runs_puppet: rng.u8(..4) > 0,
        manifest: manifest::draw(rng, nodes),
        socket: None,
        instance: String::new(),
        remembered_instance: None,
        restarts: None,
        is_full: false,
        locks: Default::default(),
    }
}

/// Fires events as operators do.
async fn work(sim: Sim) {
    loop {
        let wait = sim.with(|world| world.plan.fire_every.mul_f64(-(1.0 - world.rng.f64()).ln()));
        sim.sleep(wait).await;
        if !sim.with(|world| world.is_busy) {
            return;
        }
        if sim.with(|world| world.rng.u8(..6) == 0) {
            cancelling::start(&sim);
            continue;
        }
        if sim.with(|world| world.rng.u8(..12) == 0) {
            holding::start(&sim);
            continue;
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
            let fire = Proc::start(&sim, machine, Kind::Fire);
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
