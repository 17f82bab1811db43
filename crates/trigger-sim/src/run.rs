//! The supervisor and the Puppet process it owns, in the order of the `trigger` crate's `supervisor.rs`.

use std::time::Duration;

use futures_util::future::{Either, select};
use trigger_core::event::DEFAULT_LIFETIME;
use trigger_core::identity::RunId;
use trigger_core::run::record::RunRecord;
use trigger_core::run::{RunOutcome, RunResult};
use trigger_core::wire::Stored;

use crate::firing::{self, Wanted};
use crate::process::Proc;
use crate::runs;
use crate::world::Kind;

/// Puppet's own `runtimeout` is no shorter than what its supervisor enforces.
const LATER: Duration = Duration::from_secs(1);

/// How Puppet ended, for its supervisor.
type Completion = std::sync::Arc<std::sync::Mutex<Option<RunOutcome>>>;

/// Starts the supervisor of a run whose record is written and locked by `agent`; the lock goes over to it.
pub(crate) fn start_supervisor(agent: &Proc, run: RunId) {
    let own = Proc::start(&agent.sim, agent.machine, Kind::Supervisor(run));
    agent.with(|world| {
        world.lock(agent.machine, &runs::record(run), own.id);
        world.unlock(agent.machine, &runs::record(run), agent.id);
    });
    agent.sim.spawn(own.id, supervise(own.clone(), run));
}

async fn supervise(own: Proc, run: RunId) {
    own.step("supervisor: started").await;
    let text = own.disk(|disk| disk.read(&runs::record(run)).unwrap_or_default().to_owned());
    let Ok(record) = RunRecord::from_wire(&text) else {
        own.with(|world| world.violate("records are whole", format!("run {run} starts with '{text}'")));
        return;
    };
    let outcome = watch(&own, &record).await;
    own.step("supervisor: run ended").await;
    let result = RunResult {
        outcome,
        reason: None,
        reported_noop: false,
        started_at: record.started_at,
        finished_at: own.wall(),
    };
    own.disk(|disk| disk.write(&runs::result(run), result.to_wire()));
    own.step("supervisor: result written").await;
    own.with(|world| {
        world.machines[own.machine].disk.sync(&runs::result(run));
        world.check.result_synced(run);
    });
    own.step("supervisor: result synced").await;
    own.with(|world| world.end_process(own.id));
}

/// Starts Puppet and waits for its end, or ends it.
async fn watch(own: &Proc, record: &RunRecord) -> RunOutcome {
    let run = record.run_id;
    let puppet = Proc::start(&own.sim, own.machine, Kind::Puppet(run));
    own.with(|world| {
        world.lock(own.machine, &runs::output(run), own.id);
        world.lock(own.machine, &runs::output(run), puppet.id);
        world.check_run_started(own.machine, record);
    });
    let completion = Completion::default();
    own.sim.spawn(puppet.id, run_puppet(puppet.clone(), record.clone(), completion.clone()));
    // Puppet's own `runtimeout`: a run whose supervisor was killed does not go on for ever either.
    let puppet_id = puppet.id;
    own.with(|world| world.after(record.timeout + LATER, move |world| world.end_process(puppet_id)));
    let told = || *completion.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match select(own.sim.exited(puppet.id), own.sim.sleep(record.timeout)).await {
        // Killed: no report, and no exit code.
        Either::Left(_) => told().unwrap_or(RunOutcome::Interrupted),
        Either::Right(_) => {
            own.with(|world| {
                world.count("run timed out");
                world.check_run_ended(own.machine, run, RunOutcome::TimedOut);
                world.end_process(puppet.id);
            });
            RunOutcome::TimedOut
        }
    }
}

/// A Puppet run: takes its time, and fires what the manifests say.
async fn run_puppet(own: Proc, record: RunRecord, completion: Completion) {
    let (mut rest, outcome, rules) = own.with(|world| {
        let most = world.plan.run_at_most;
        let took = if world.faults_happen && world.rng.u8(..64) == 0 {
            most * 20
        } else {
            most.mul_f64(world.rng.f64())
        };
        let outcome = match world.rng.u8(..32) {
            0 => RunOutcome::Failed,
            1 | 2 if world.faults_happen => RunOutcome::NotRun,
            3 if world.faults_happen => RunOutcome::Unknown,
            4..12 => RunOutcome::Unchanged,
            _ => RunOutcome::Changed,
        };
        let chatter = world.plan.chatter;
        let happened = !matches!(outcome, RunOutcome::NotRun) && !record.options.noop;
        let mut rules = world.machines[own.machine].manifest.clone();
        rules.retain(|_| happened && world.rng.f64() < chatter);
        (took, outcome, rules)
    });
    for rule in rules {
        let part = rest.mul_f64(own.jitter());
        rest -= part;
        own.sim.sleep(part).await;
        let fire = Proc::start(&own.sim, own.machine, Kind::Fire);
        let wanted = Wanted {
            trigger: rule.trigger,
            hosts: rule.hosts.into_iter().collect(),
            groups: rule.groups.into_iter().collect(),
            options: rule.options,
            ttl: rule.ttl,
            loops: rule.loops,
            expires_in: DEFAULT_LIFETIME,
            run: Some(record.run_id),
        };
        own.with(|world| world.count("fire inside a run"));
        own.sim.spawn(fire.id, firing::fire(fire.clone(), wanted));
        own.sim.exited(fire.id).await;
    }
    own.sim.sleep(rest.max(Duration::from_millis(1))).await;
    own.step("puppet: about to end").await;
    own.with(|world| {
        if let Ok(mut place) = completion.lock() {
            *place = Some(outcome);
        }
        world.check_run_ended(own.machine, record.run_id, outcome);
        world.end_process(own.id);
    });
}
