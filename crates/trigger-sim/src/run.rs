//! The shipped supervisor as a process, with the Puppet process that it owns, which is simulated.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::{Either, select};
use trigger_core::event::DEFAULT_LIFETIME;
use trigger_core::run::RunOutcome;
use trigger_core::run::command::{CommandKind, RunCommand};
use trigger_core::run::record::RunRecord;
use trigger_core::run::verdict::Verdict;
use trigger_core::wire::Stored;
use trigger_node::host::{Host, HostFile, Open};
use trigger_node::state::RunPaths;
use trigger_node::supervisor::{self, RunProcess};

use crate::file::SimFile;
use crate::firing;
use crate::process::Proc;
use crate::wanted::Wanted;
use crate::world::Kind;

/// Puppet's own `runtimeout` is no shorter than what its supervisor enforces.
const LATER: Duration = Duration::from_secs(1);

/// How Puppet ended, as its supervisor learns it.
type Completion = Arc<Mutex<Option<RunOutcome>>>;

/// Starts the supervisor of a run whose record is written and locked by `agent`, and hands the lock over to it.
pub(crate) fn start_supervisor(agent: &Proc, record: &Path, lock: SimFile) -> std::io::Result<()> {
    agent.step_now("starts a supervisor")?;
    let path = record.to_str().unwrap_or_default();
    let text = agent.sim.with(|world| world.disk(agent.machine).text(path).unwrap_or_default().to_owned());
    let Ok(written) = RunRecord::from_wire(&text) else {
        agent.act(|world| world.violate("records are whole", format!("a run starts with '{text}'")));
        return Ok(());
    };
    agent.sim.with(|world| world.check_run_begun(agent.machine, agent.id, &written));
    if agent.sim.with(|world| world.may_fail_to_start("supervisor not started")) {
        return Err(std::io::ErrorKind::OutOfMemory.into());
    }
    let own = Proc::start(&agent.sim, agent.machine, Kind::Supervisor(written.run_id));
    lock.hand_over(&own);
    let paths = RunPaths::beside(own.clone(), record);
    agent.sim.spawn(own.id, supervise(own.clone(), written, paths));
    Ok(())
}

async fn supervise(own: Proc, record: RunRecord, paths: RunPaths<Proc>) {
    own.step("supervisor: started").await;
    let mut puppet = Puppet { own: own.clone(), record: &record, output: paths.output(), running: None };
    let is_stored = supervisor::supervise(&own, &record, &paths, &mut puppet).await.is_ok();
    own.act(|world| {
        if is_stored {
            world.check.result_synced(record.run_id);
        }
    });
    own.step("supervisor: result synced").await;
    own.exit();
}

/// Puppet as its supervisor sees it.
struct Puppet<'a> {
    own: Proc,
    record: &'a RunRecord,
    output: std::path::PathBuf,
    running: Option<(Proc, Completion)>,
}

impl RunProcess for Puppet<'_> {
    async fn wait_for_turn(&mut self) -> Option<Verdict> {
        None
    }

    fn start(&mut self) -> Result<Option<String>, Verdict> {
        let not_run = |error: std::io::Error| Verdict::new(RunOutcome::NotRun, error.to_string());
        let (own, run) = (&self.own, self.record.run_id);
        let output = own.open(&self.output, Open::Append).map_err(not_run)?;
        output.lock().map_err(not_run)?;
        own.step_now("starts Puppet").map_err(not_run)?;
        if own.sim.with(|world| world.may_fail_to_start("Puppet not started")) {
            return Err(Verdict::new(RunOutcome::NotRun, "cannot start Puppet"));
        }
        let puppet = Proc::start(&own.sim, own.machine, Kind::Puppet(run));
        output.hand_over(&puppet);
        own.sim.with(|world| world.check_run_started(own.machine, self.record));
        let completion = Completion::default();
        own.sim.spawn(puppet.id, run_puppet(puppet.clone(), self.record.clone(), completion.clone()));
        // Puppet's own `runtimeout` ends a run even if its supervisor was killed. A run of another command goes on
        // unless the agent ends it.
        let command = RunCommand::from_words(self.record.command.clone());
        if command.is_some_and(|command| command.kind() != CommandKind::Other) {
            let (id, timeout) = (puppet.id, self.record.timeout + LATER);
            own.sim.with(|world| world.after(timeout, move |world| world.end_process(id)));
        }
        let note = format!("{} 1\n", puppet.id.0);
        self.running = Some((puppet, completion));
        Ok(Some(note))
    }

    async fn wait(&mut self) -> Verdict {
        let Some((puppet, completion)) = &self.running else {
            return Verdict::new(RunOutcome::NotRun, "it was not started");
        };
        let own = &self.own;
        let ended = select(own.sim.exited(puppet.id), own.sim.sleep(self.record.timeout)).await;
        if let Either::Left(_) = ended {
            // A killed Puppet process leaves no report and no exit code.
            let reported = *completion.lock().unwrap_or_else(PoisonError::into_inner);
            return Verdict::new(reported.unwrap_or(RunOutcome::Interrupted), "as it says");
        }
        own.sim.with(|world| {
            world.count("run timed out");
            world.check_run_ended(own.machine, self.record.run_id, RunOutcome::TimedOut);
            world.end_process(puppet.id);
        });
        Verdict::new(RunOutcome::TimedOut, "it took too long")
    }
}

/// Runs Puppet: it takes its time and fires what the manifests declare.
async fn run_puppet(own: Proc, record: RunRecord, completion: Completion) {
    let (mut rest, outcome, rules) = own.sim.with(|world| {
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
        own.sim.with(|world| world.count("fire inside a run"));
        own.sim.spawn(fire.id, firing::fire(fire.clone(), wanted));
        own.sim.exited(fire.id).await;
    }
    own.sim.sleep(rest.max(Duration::from_millis(1))).await;
    own.step("puppet: about to end").await;
    own.sim.with(|world| {
        if let Ok(mut place) = completion.lock() {
            *place = Some(outcome);
        }
        world.check_run_ended(own.machine, record.run_id, outcome);
        world.end_process(own.id);
    });
}
