//! The owner of the queue and of the runs, as in the `trigger` crate's `agent/daemon.rs`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use trigger_core::dedup::HonouredEvent;
use trigger_core::delivery::Completion;
use trigger_core::event::RunOptions;
use trigger_core::identity::{EventId, RunId};
use trigger_core::node::{Activity, Running};
use trigger_core::queue::{Blockers, Effect, Input, Queue, QueueSettings};
use trigger_core::rate_limiter::RunsPerMinute;
use trigger_core::run::record::{Cause, RunRecord};
use trigger_core::run::{CompletedRun, RunOutcome, RunResult};
use trigger_core::time::Timestamp;
use trigger_core::wire::Stored;
use trigger_fleet::claim::ClaimState;
use trigger_fleet::deliveries::Arrival;
use trigger_fleet::delivery_watcher::Batch;

use super::Node;
use super::completion_writer::CompletionJob;
use crate::runs;
use crate::{run, world::World};

const RUN_TIMEOUT: Duration = Duration::from_secs(600);
const ORPHAN_POLL: Duration = Duration::from_millis(200);
const ENDED: &str = "ended";

pub(super) struct Channels {
    pub(super) arrivals: mpsc::Receiver<Batch>,
    pub(super) claim: watch::Receiver<ClaimState>,
    pub(super) stop: mpsc::UnboundedReceiver<()>,
    pub(super) completions: mpsc::UnboundedSender<CompletionJob>,
    pub(super) activity: watch::Sender<Activity>,
}

struct ActiveRun {
    run_id: RunId,
    noop: bool,
    started_at: Timestamp,
}

struct Daemon {
    node: Arc<Node>,
    queue: Queue,
    interruptions: HashMap<EventId, u32>,
    active: Option<ActiveRun>,
    blank: Option<RunId>,
    channels: Channels,
}

/// Why the daemon ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Stopped,
    /// Another has taken its claim: it starts anew.
    ClaimLost,
}

pub(super) async fn run(node: Arc<Node>, channels: Channels) -> Ended {
    let ended = open_ended_log(&node);
    let (certname, machine) = (node.certname.clone(), node.own.machine);
    let honours_noop = node.own.with(|world| world.machines[machine].honours_noop);
    let interruptions = node.own.disk(|disk| runs::interruptions(disk));
    let runs_per_minute = RunsPerMinute::default();
    let mut queue = Queue::new(QueueSettings { certname, honours_noop, runs_per_minute }, ended);
    queue.recall_starts(node.own.now(), node.own.disk(|disk| runs::latest_starts(disk)));
    let mut daemon = Daemon { queue, node, interruptions, active: None, blank: None, channels };
    daemon.recover().await;
    daemon.input(Input::Recovered).await;
    daemon.prepare_record().await;
    daemon.serve().await
}

/// Reads which events ended here, and mends a last line that a crash cut short.
fn open_ended_log(node: &Node) -> Vec<(EventId, Timestamp)> {
    let now = node.own.wall();
    node.own.disk(|disk| {
        let text = disk.read(ENDED).unwrap_or_default().to_owned();
        let ended: Vec<HonouredEvent> = text
            .lines()
            .filter_map(HonouredEvent::from_line)
            .filter(|ended| !ended.is_outlived(now))
            .collect();
        if !text.is_empty() && !text.ends_with('\n') {
            let lines: String = ended.iter().map(|ended| ended.to_line() + "\n").collect();
            disk.write_synced(ENDED, lines);
        }
        ended.into_iter().map(|ended| (ended.event, ended.ended_at)).collect()
    })
}

impl Daemon {
    async fn serve(&mut self) -> Ended {
        let sim = self.node.own.sim.clone();
        let mut loss = std::pin::pin!(lost(self.channels.claim.clone()));
        loop {
            let wake = self.queue.next_wake().map(|at| at.saturating_sub(self.node.own.now().elapsed));
            let active = self.active.as_ref().map(|active| active.run_id);
            tokio::select! {
                biased;
                Some(batch) = self.channels.arrivals.recv() => self.arrived(batch.arrivals).await,
                Some(()) = self.channels.stop.recv() => return Ended::Stopped,
                () = &mut loss => return Ended::ClaimLost,
                Ok(()) = self.channels.claim.changed() => self.input(Input::Tick).await,
                result = wait_for_end(Arc::clone(&self.node), active), if active.is_some() => self.run_ended(result).await,
                () = sim.sleep(wake.unwrap_or_default()), if wake.is_some() => self.input(Input::Tick).await,
            }
        }
    }

    /// Takes up the runs of earlier agents: those that ended are finished, the one that lives is adopted.
    async fn recover(&mut self) {
        let machine = self.node.own.machine;
        for open in self.node.own.with(|world| runs::open_runs(world, machine)) {
            let record = open.record;
            if let Some(active) = self.active.take() {
                let result = wait_for_end(Arc::clone(&self.node), Some(active.run_id)).await;
                self.finish_run(active, result).await;
            }
            self.node.own.note(format_args!("adopts {} alive {}", record.run_id, open.is_alive));
            let count = |world: &mut World| {
                world.count(if open.is_alive { "run adopted" } else { "ended run taken up" })
            };
            self.node.own.with(count);
            let active =
                ActiveRun { run_id: record.run_id, noop: record.options.noop, started_at: record.started_at };
            if open.is_alive {
                let causes = record.causes.iter().map(|cause| cause.event.id).collect();
                let running = Running { run_id: record.run_id, started_at: record.started_at, causes };
                self.input(Input::Adopted { running, options: record.options, causes: record.causes }).await;
                self.active = Some(active);
            } else {
                let result = self.node.own.disk(|disk| runs::read_result(disk, active.run_id));
                self.take_up(active, record.causes, result).await;
            }
        }
    }

    /// Finishes a run that ended when no agent was there.
    async fn take_up(&mut self, active: ActiveRun, causes: Vec<Cause>, result: Option<RunResult>) {
        let run = self.over(active, result).await;
        if run.result.outcome == RunOutcome::Interrupted {
            for cause in &causes {
                *self.interruptions.entry(cause.event.id).or_default() += 1;
            }
        }
        self.input(Input::CompletedWhileDown { run, causes }).await;
    }

    async fn arrived(&mut self, arrivals: Vec<Arrival>) {
        for arrival in arrivals {
            match arrival {
                Arrival::Pending(mut cause) => {
                    cause.interruptions =
                        self.interruptions.get(&cause.event.id).copied().unwrap_or_default();
                    self.input(Input::Delivered(*cause)).await;
                }
                Arrival::HasOutcome { event, target } => {
                    if !self.queue.is_queued(event) {
                        self.send(CompletionJob::DeleteDeliveries { event, addressed_as: [target].into() });
                    }
                }
                Arrival::TooNew(held) => self.input(Input::TooNew(held)).await,
                Arrival::Unreadable { key, detail } => {
                    self.node.own.note(format_args!("cannot use {key}: {detail}"));
                    self.node.own.with(|world| world.count("delivery not readable yet"));
                }
            }
        }
    }

    fn blockers(&mut self) -> Blockers {
        let elapsed = self.node.own.now().elapsed;
        let claim = self.channels.claim.borrow_and_update().blocker(elapsed);
        let machine = self.node.own.machine;
        let is_disabled = self.node.own.with(|world| world.machines[machine].is_disabled);
        Blockers { claim, disabled: is_disabled.then(|| "Puppet is disabled on this node".to_owned()) }
    }

    /// Asks the core and does as it says.
    async fn input(&mut self, input: Input) {
        let mut inputs = vec![input, Input::Blockers(self.blockers())];
        while let Some(input) = inputs.pop() {
            for effect in self.queue.step(self.node.own.now(), input) {
                self.node.own.step("daemon: an effect").await;
                inputs.extend(self.perform(effect).await);
            }
        }
        let activity = self.queue.activity();
        self.channels.activity.send_if_modified(|known| {
            let changed = *known != activity;
            *known = activity;
            changed
        });
    }

    async fn perform(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::StartRun { options, causes } => Some(self.start_run(options, causes).await),
            Effect::Finish { run, completions } => {
                let ended: Vec<EventId> = completions.iter().map(|completion| completion.event).collect();
                if run.is_some() && !ended.is_empty() {
                    self.remember(&ended).await;
                }
                self.send(CompletionJob::Finish { run, completions });
                None
            }
            Effect::DeleteDeliveries { event, addressed_as } => {
                let known = self.node.own.disk(|disk| runs::end_of(disk, event));
                self.send(match known {
                    Some(end) => CompletionJob::Finish {
                        run: None,
                        completions: vec![Completion { event, addressed_as, outcome: end }],
                    },
                    None => CompletionJob::DeleteDeliveries { event, addressed_as },
                });
                None
            }
        }
    }

    /// The covered ids, durably.
    async fn remember(&self, events: &[EventId]) {
        let now = self.node.own.wall();
        let lines =
            events.iter().map(|&event| HonouredEvent { event, ended_at: now }.to_line() + "\n").collect();
        self.node.own.disk(|disk| disk.append(ENDED, lines));
        self.node.own.step("ended log: appended").await;
        self.node.own.disk(|disk| disk.sync(ENDED));
        self.node.own.step("ended log: synced").await;
    }

    fn send(&self, job: CompletionJob) {
        let _ = self.channels.completions.send(job);
    }

    async fn start_run(&mut self, options: RunOptions, causes: Vec<Cause>) -> Input {
        let own = self.node.own.clone();
        let is_blank = self.blank.is_some();
        let run_id = self.blank.take().unwrap_or_else(|| new_run_id(&self.node));
        let started_at = own.wall();
        let running =
            Running { run_id, started_at, causes: causes.iter().map(|cause| cause.event.id).collect() };
        let active = ActiveRun { run_id, noop: options.noop, started_at };
        let record = RunRecord {
            run_id,
            certname: self.node.certname.clone(),
            command: vec!["puppet".to_owned(), "agent".to_owned()],
            options,
            timeout: RUN_TIMEOUT,
            started_at,
            causes,
            environment: Default::default(),
        };
        let path = runs::record(run_id);
        own.with(|world| world.check_recorded(own.machine, &record));
        if is_blank {
            own.disk(|disk| disk.overwrite(&path, record.to_wire()));
            own.step("record: written").await;
        } else {
            let temporary = format!("{path}.tmp");
            own.disk(|disk| disk.write_synced(&temporary, record.to_wire()));
            own.with(|world| world.lock(own.machine, &path, own.id));
            own.step("record: written beside").await;
            own.disk(|disk| disk.rename(&temporary, &path));
        }
        own.disk(|disk| disk.sync(&path));
        own.note(format_args!("run {run_id} covers {:?}", running.causes));
        own.step("record: synced").await;
        own.with(|world| world.check_run_begun(own.machine, own.id, &record));
        run::start_supervisor(&own, run_id);
        self.active = Some(active);
        Input::Started(running)
    }

    async fn run_ended(&mut self, result: Option<RunResult>) {
        let Some(active) = self.active.take() else { return };
        self.finish_run(active, result).await;
        self.prepare_record().await;
    }

    /// Blanks under the next run's name, durable and locked.
    async fn prepare_record(&mut self) {
        if self.blank.is_none() {
            let run = new_run_id(&self.node);
            let own = self.node.own.clone();
            own.with(|world| {
                world.lock(own.machine, &runs::record(run), own.id);
                world.machines[own.machine].disk.write_synced(&runs::record(run), "  ".to_owned());
            });
            own.step("blank: synced").await;
            self.blank = Some(run);
        }
    }

    async fn finish_run(&mut self, active: ActiveRun, result: Option<RunResult>) {
        let run = self.over(active, result).await;
        let jitter = self.node.own.jitter();
        self.input(Input::RunEnded { run, jitter }).await;
    }

    /// How a run ended. One without a result was interrupted.
    async fn over(&self, active: ActiveRun, result: Option<RunResult>) -> CompletedRun {
        let own = self.node.own.clone();
        let ActiveRun { run_id, noop, started_at } = active;
        let result = match result {
            Some(result) => {
                own.disk(|disk| disk.sync(&runs::result(run_id)));
                own.step("result: durable").await;
                result
            }
            None => {
                let reason = Some("it left no result".to_owned());
                let finished_at = own.wall();
                let outcome = RunOutcome::Interrupted;
                let result = RunResult { outcome, reason, reported_noop: false, started_at, finished_at };
                own.disk(|disk| disk.write_synced(&runs::result(run_id), result.to_wire()));
                own.with(|world| world.count("run interrupted"));
                own.step("interruption: written").await;
                result
            }
        };
        own.note(format_args!("run {run_id} ended {}", result.outcome));
        if result.outcome == RunOutcome::Interrupted {
            own.with(|world| world.check.interrupted(run_id, own.machine));
        }
        CompletedRun::new(run_id, noop, result)
    }
}

/// Returns once the claim was held and is another's now.
async fn lost(mut claim: watch::Receiver<ClaimState>) {
    let held = claim.wait_for(|standing| matches!(standing, ClaimState::Held { .. })).await.is_ok();
    if !held || claim.wait_for(|standing| matches!(standing, ClaimState::Contended(_))).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn new_run_id(node: &Node) -> RunId {
    node.own.with(|world| RunId::from_uuid(world.new_uuid(node.own.machine)))
}

/// Waits for a run's end by the locks on its files.
async fn wait_for_end(node: Arc<Node>, run: Option<RunId>) -> Option<RunResult> {
    let Some(run) = run else { return std::future::pending().await };
    let own = &node.own;
    let holders =
        |world: &World, path: &str| world.machines[own.machine].locks.get(path).cloned().unwrap_or_default();
    for holder in own.with(|world| holders(world, &runs::record(run))) {
        own.sim.exited(holder).await;
    }
    let result = own.disk(|disk| runs::read_result(disk, run));
    let since = own.sim.now();
    while result.is_none()
        && own.sim.now() - since < RUN_TIMEOUT
        && own.with(|world| world.is_locked(own.machine, &runs::output(run)))
    {
        own.sim.sleep(ORPHAN_POLL).await;
    }
    result
}
