//! Keeps the machines and their agents running.

use std::time::Duration;

use trigger_node::agent::Stopped;

use crate::agent;
use crate::executor::Sim;

/// Runs the service manager of one machine: it starts an agent again that has ended, and boots a machine that is off.
pub(crate) async fn take_care(sim: Sim, machine: usize) {
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
                let boot = world.new_boot();
                let machine = &mut world.machines[machine];
                machine.is_on = !machine.is_gone;
                machine.boot = boot;
                world.count("machine booted");
            });
            continue;
        }
        // An agent that replaces itself by a new program is back at once, and knows the reason.
        let restarts = sim.with(|world| world.machines[machine].restarts.take());
        if restarts.is_none() {
            let wait = sim.with(|world| Duration::from_millis(world.rng.u64(50..10_000)));
            sim.sleep(wait).await;
        }
        if sim.with(|world| world.machines[machine].is_on && !world.machines[machine].is_gone) {
            let agent = agent::start(&sim, machine, restarts != Some(Stopped::ClaimLost));
            sim.exited(agent).await;
        }
    }
}
