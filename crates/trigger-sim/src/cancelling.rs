//! `trigger cancel` as a process: it reads an event and asks its targets to end it, through the shipped code. The origin
//! of an event may do that; another node that asks for it must end nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use trigger_core::identity::{Certname, EventId};
use trigger_core::keyspace::Keyspace;
use trigger_fleet::Fleet;
use trigger_fleet::cancelling::{Asked, Scope};
use trigger_node::host::Host;
use trigger_store::credentials::Credentials;

use crate::agent::codec;
use crate::executor::Sim;
use crate::manifest::name;
use crate::process::Proc;
use crate::server::BACKEND;
use crate::world::{Kind, World};

/// How many of the latest events an operator chooses from.
const LATEST: usize = 12;

/// Starts `trigger cancel` on a machine for one of the latest events, if there are any.
pub(crate) fn start(sim: &Sim) {
    let Some((machine, event, target)) = sim.with(draw) else { return };
    let own = Proc::start(sim, machine, Kind::Fire);
    sim.spawn(own.id, cancel(own.clone(), event, target));
}

fn draw(world: &mut World) -> Option<(usize, EventId, Option<Certname>)> {
    let latest: Vec<(EventId, usize)> =
        world.check.events.iter().rev().take(LATEST).map(|(id, fired)| (*id, fired.machine)).collect();
    let (event, origin) = *latest.get(world.rng.usize(..latest.len().max(1)))?;
    let is_origins = world.rng.u8(..4) > 0;
    let machine = if is_origins { origin } else { world.rng.usize(..world.machines.len()) };
    let hosts: Vec<Certname> = world.check.events[&event].event.targets.hosts.iter().cloned().collect();
    let target = if world.rng.bool() { None } else { hosts.first().cloned() };
    world.machines[machine].is_on.then_some((machine, event, target))
}

async fn cancel(own: Proc, event: EventId, target: Option<Certname>) {
    let by = own.sim.with(|world| world.machines[own.machine].certname.clone());
    let Ok(backend) = own.open_backend(&name(BACKEND), &Credentials::default()) else { return own.exit() };
    let Some(store) = backend.store() else { return own.exit() };
    let fleet = Fleet::new(Arc::clone(store), Keyspace::default()).acting_as(by.clone()).with_codec(codec());
    if let Ok(Some(status)) = fleet.event_status(event).await {
        own.act(|world| world.wants_cancelled(event, &by, target.clone()));
        own.note(format_args!("cancels {event}"));
        let ended = status.targets.iter().filter(|(_, target)| target.state.is_end());
        let ended: BTreeSet<Certname> = ended.map(|(certname, _)| certname.clone()).collect();
        let nodes: BTreeSet<Certname> = target.into_iter().collect();
        let scope = if nodes.is_empty() { Scope::AllBut(&ended) } else { Scope::Nodes(&nodes) };
        // Whether it was stored is seen by what comes of it.
        let _ = fleet.cancel(&status.event, scope, Asked { at: own.wall(), reason: None }).await;
    }
    own.exit();
}

impl World {
    /// Notes who wants an event to end, if it is the node that fired it.
    fn wants_cancelled(&mut self, event: EventId, by: &Certname, target: Option<Certname>) {
        let is_origin = self.check.events.get(&event).is_some_and(|fired| fired.event.origin == *by);
        self.count(if is_origin { "event cancelled" } else { "event cancelled by another node" });
        if is_origin {
            self.check.cancelled.entry(event).or_default().push((by.clone(), target));
        }
    }
}
