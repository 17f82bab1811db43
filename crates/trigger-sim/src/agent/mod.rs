//! The simulated agent: the same tasks as in the `trigger` crate's `agent/`, with the same order of effects,
//! over a simulated disk and clock.

mod completion_writer;
mod daemon;
mod delivery_watcher;
mod outbox_relay;
mod registration;
mod sweeper;

use std::sync::Arc;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use trigger_core::identity::{Certname, GroupName};
use trigger_fleet::Fleet;
use trigger_fleet::claim::ClaimState;
use trigger_fleet::delivery_watcher::Outlets;

use crate::executor::{ProcessId, Sim};
use crate::firing;
use crate::process::Proc;
use crate::runs;
use crate::world::{Kind, Socket};

/// What is shared by the agent's tasks.
pub(crate) struct Node {
    own: Proc,
    certname: Certname,
    groups: Vec<GroupName>,
    fleet: Fleet,
}

/// Starts an agent on a machine. Whoever starts it makes sure that none is there.
pub(crate) fn start(sim: &Sim, machine: usize) -> ProcessId {
    let own = Proc::start(sim, machine, Kind::Agent);
    let (certname, groups) = sim.with(|world| {
        let machine = &world.machines[machine];
        (machine.certname.clone(), machine.groups.clone())
    });
    let fleet = own.connect().acting_as(certname.clone());
    let node = Arc::new(Node { certname, groups, fleet, own: own.clone() });
    own.note(format_args!("agent starts"));

    let (arrivals_in, arrivals) = mpsc::channel(16);
    let (completions_in, completions) = mpsc::unbounded_channel();
    let (claim_in, claim) = watch::channel(ClaimState::Unregistered);
    let (own_record, seen) = watch::channel(Default::default());
    let (release_in, release) = oneshot::channel();
    let (stop_in, stop) = mpsc::unbounded_channel();
    let (activity_in, activity) = watch::channel(Default::default());
    let (link_in, link) = watch::channel(false);
    let (fires_in, mut fires) = mpsc::unbounded_channel();
    sim.with(|world| {
        world.machines[machine].socket = Some(Socket { agent: own.id, fires: fires_in, stop: stop_in })
    });

    let spooled = Arc::new(Notify::new());
    let serving = (own.clone(), Arc::clone(&spooled));
    sim.spawn(own.id, async move {
        let (own, spooled) = serving;
        while let Some((publication, answer)) = fires.recv().await {
            let (conversation, spooled) = (own.clone(), Arc::clone(&spooled));
            own.sim.spawn(own.id, async move {
                let fired = firing::publish_or_spool(&conversation, &publication).await;
                if fired == firing::Answer::Spooled {
                    spooled.notify_one();
                }
                conversation.step("socket: about to answer").await;
                let _ = answer.send(fired);
            });
        }
    });
    sim.spawn(own.id, outbox_relay::run(own.clone(), spooled, link));
    sim.spawn(own.id, completion_writer::run(Arc::clone(&node), completions));
    let registration = registration::Channels { activity, seen, release, standing: claim_in };
    sim.spawn(own.id, registration::run(Arc::clone(&node), registration));
    sim.spawn(own.id, sweeper::run(Arc::clone(&node)));
    let outlets = Outlets { arrivals: arrivals_in, own_record };
    sim.spawn(own.id, delivery_watcher::run(Arc::clone(&node), claim.clone(), link_in, outlets));
    let channels =
        daemon::Channels { arrivals, claim, stop, completions: completions_in, activity: activity_in };
    sim.spawn(own.id, async move {
        let own = node.own.clone();
        let has_stopped = daemon::run(node, channels).await == daemon::Ended::Stopped;
        // What is in progress, or was not told yet, is this directory's to end: until then nobody else may run.
        let is_idle = own.with(|world| {
            world.check_belief(own.id, own.machine, false);
            runs::open_runs(world, own.machine).is_empty()
        });
        let (released_in, released) = oneshot::channel();
        if has_stopped && is_idle && release_in.send(released_in).is_ok() {
            let _ = released.await;
        }
        own.with(|world| world.end_process(own.id));
    });
    own.id
}
