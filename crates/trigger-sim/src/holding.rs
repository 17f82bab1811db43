//! `trigger hold` and `trigger release` as processes, through the shipped code. A node may hold itself; an order of another
//! node must do nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use trigger_core::holds::Demand;
use trigger_core::identity::Certname;
use trigger_core::keyspace::Keyspace;
use trigger_fleet::Fleet;
use trigger_node::host::Host;
use trigger_store::credentials::Credentials;

use crate::agent::codec;
use crate::executor::Sim;
use crate::manifest::name;
use crate::process::Proc;
use crate::server::BACKEND;
use crate::world::{Kind, World};

/// Starts `trigger hold` or `trigger release` on a machine.
pub(crate) fn start(sim: &Sim) {
    let Some((machine, node, demand)) = sim.with(draw) else { return };
    let own = Proc::start(sim, machine, Kind::Fire);
    sim.spawn(own.id, order(own.clone(), node, demand));
}

fn draw(world: &mut World) -> Option<(usize, Certname, Demand)> {
    let machine = world.rng.usize(..world.machines.len());
    let is_own = world.rng.u8(..4) > 0;
    let node = if is_own { machine } else { world.rng.usize(..world.machines.len()) };
    let lasts = Duration::from_secs(world.rng.u64(10..1200));
    let demand = if world.rng.u8(..3) > 0 { Demand::hold(lasts, None) } else { Demand::Release };
    let node = world.machines[node].certname.clone();
    world.machines[machine].is_on.then_some((machine, node, demand))
}

async fn order(own: Proc, node: Certname, demand: Demand) {
    let by = own.sim.with(|world| world.machines[own.machine].certname.clone());
    let Ok(backend) = own.open_backend(&name(BACKEND), &Credentials::default()) else { return own.exit() };
    let Some(store) = backend.store() else { return own.exit() };
    let fleet = Fleet::new(Arc::clone(store), Keyspace::default()).acting_as(by.clone()).with_codec(codec());
    if let Ok(record) = fleet.node(&node).await {
        own.note(format_args!("orders {node}: {demand:?}"));
        own.act(|world| world.count(if by == node { "order to itself" } else { "order to another node" }));
        // Whether it was stored is seen by what comes of it.
        let _ = fleet.order_hold(&BTreeMap::from([(node, record)]), &demand, own.wall()).await;
    }
    own.exit();
}
