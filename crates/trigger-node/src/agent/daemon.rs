//! The owner of the queue and of the runs. It receives inputs, passes them to the core and performs the core's effects
//! in order. It must not decide anything itself.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use trigger_core::dedup::HonouredEvent;
use trigger_core::delivery::Completion;
use trigger_core::event::Target;
use trigger_core::identity::{Certname, EventId, RunId};
use trigger_core::keyspace::Key;
use trigger_core::node::{Activity, HeldNode, Running};
use trigger_core::policy::Policy;
use trigger_core::queue::{Blockers, Effect, Input, PuppetBlocker, Queue, QueueSettings};
use trigger_core::run::record::{Cause, RunRecord};
use trigger_core::run::{CompletedRun, RunOutcome, RunResult};
use trigger_fleet::claim::ClaimState;
use trigger_fleet::deliveries::Arrival;
use trigger_fleet::delivery_watcher::Batch;

use super::audit;
use super::catalogs::CatalogChannels;
use super::completion_writer::{CompletionJob, CompletionJobs};
use super::connection::Connection;
use super::current_run::{Concluded, CurrentRun, EndedRun};
use super::daemon_log;
use super::error::AgentError;
use super::hold_keeper::HoldKeeper;
use super::known_ends::KnownEnds;
use super::rename::rename;
use super::unreadable::Unreadable;
use super::view;
use super::{AgentSettings, DisableCheck, Node, Question, Signal, Stopped};
use crate::host::Host;
use crate::queue_view::{HoldView, QueueView};
use crate::state::{DedupLog, OpenRun, Runs};

/// The daemon's ends of the channels to the other tasks.
pub(super) struct Channels<D> {
    pub(super) signals: mpsc::Receiver<Signal>,
    pub(super) policy: watch::Receiver<Policy>,
    pub(super) catalogs: CatalogChannels,
    pub(super) arrivals: mpsc::Receiver<Batch>,
    pub(super) claim: watch::Receiver<ClaimState>,
    pub(super) disabled: D,
    /// Whether the registration may claim the certname.
    pub(super) may_claim: watch::Sender<bool>,
    pub(super) link: watch::Receiver<Connection>,
    pub(super) questions: mpsc::Receiver<Question>,
    pub(super) completions: CompletionJobs,
    pub(super) activity: watch::Sender<Activity>,
}

pub(super) struct Daemon<H: Host, D> {
    node: Arc<Node<H>>,
    queue: Queue,
    runs: Runs<H>,
    dedup_log: DedupLog<H>,
    interruptions: HashMap<EventId, u32>,
    known_ends: KnownEnds,
    /// What has ended without a run, until the inputs that are there have been passed on.
    without_run: Vec<Completion>,
    unreadable: Unreadable,
    current: CurrentRun<H>,
    holds: HoldKeeper<H>,
    /// What Puppet said against a run at the latest check.
    puppet: Option<PuppetBlocker>,
    channels: Channels<D>,
}

impl<H: Host, D: DisableCheck> Daemon<H, D> {
    pub(super) fn new(
        node: Arc<Node<H>>,
        runs: Runs<H>,
        dedup_log: DedupLog<H>,
        ended: Vec<HonouredEvent>,
        channels: Channels<D>,
    ) -> Result<Self, AgentError> {
        let queue_node = QueueSettings {
            certname: node.settings.certname.clone(),
            command: node.settings.command.kind(),
            runs_per_minute: node.settings.runs_per_minute,
            policy: node.settings.policy.clone(),
            settle: node.settings.settle,
        };
        let interruptions = runs.interruptions()?;
        let mut queue = Queue::new(queue_node, ended);
        queue.recall_starts(node.host.now(), runs.latest_starts()?);
        if let Some(result) = runs.latest_result()? {
            node.metrics.last_run_ended(&result);
        }
        Ok(Self {
            current: CurrentRun::new(Arc::clone(&node), runs.clone()),
            holds: HoldKeeper::new(Arc::clone(&node)),
            node,
            queue,
            runs,
            dedup_log,
            interruptions,
            known_ends: KnownEnds::default(),
            without_run: Vec::new(),
            unreadable: Unreadable::default(),
            puppet: None,
            channels,
        })
    }

    /// Serves until a signal or the loss of the claim stops it. Calls `on_ready` once the runs of earlier agents are
    /// finished or adopted, and `check_configuration` before each reload.
    pub(super) async fn run<C: Future<Output = Result<(), E>>, E: fmt::Display>(
        mut self,
        check_configuration: impl Fn() -> C,
        on_ready: impl FnOnce(),
    ) -> Result<Stopped, AgentError> {
        let host = self.node.host.clone();
        let mut loss = std::pin::pin!(lost(self.channels.claim.clone()));
        let mut has_lost = false;

        let catalogs = self.channels.catalogs.catalogs.borrow_and_update().clone();
        self.input(Input::Catalogs(catalogs));
        self.recover().await?;
        self.input(Input::Recovered);
        self.current.prepare_record();
        let settings = &self.node.settings;
        tracing::info!(certname = %settings.certname, backend = %settings.backend, "the agent is ready");
        on_ready();
        loop {
            let wake = [self.queue.next_wake(), self.holds.ends()].into_iter().flatten().min();
            tokio::select! {
                // Rare inputs come before frequent ones, in the same order on any host.
                biased;
                Some(signal) = self.channels.signals.recv() => match signal {
                    Signal::Terminate => return Ok(self.stopped(Stopped::Terminated)),
                    Signal::Reload => match check_configuration().await {
                        Ok(()) if *self.channels.may_claim.borrow() => return Ok(self.stopped(Stopped::Reload)),
                        Ok(()) => return Ok(self.stopped(Stopped::Renamed)),
                        Err(error) => {
                            tracing::error!(%error, "the configuration is not reloaded");
                        }
                    },
                },
                // The other agent runs the waiting deliveries now. The restart drops them from the queue, and they are
                // read again if this agent is to run them.
                () = &mut loss, if !has_lost => match check_configuration().await {
                    Ok(()) => return Ok(self.stopped(Stopped::ClaimLost)),
                    Err(error) => {
                        tracing::error!(%error, "the agent does not restart");
                        has_lost = true;
                    }
                },
                Ok(()) = self.channels.policy.changed() => {
                    let policy = self.channels.policy.borrow_and_update().clone();
                    self.input(Input::PolicyChanged(policy));
                }
                Ok(()) = self.channels.catalogs.catalogs.changed() => {
                    let catalogs = self.channels.catalogs.catalogs.borrow_and_update().clone();
                    self.input(Input::Catalogs(catalogs));
                }
                Ok(()) = self.channels.claim.changed() => self.input(Input::Tick),
                () = self.channels.disabled.has_moved() => {
                    self.channels.may_claim.send_replace(self.channels.disabled.confirms_certname());
                    self.input(Input::Tick);
                }
                ended = self.current.end() => self.run_ended(ended),
                () = sleep_until(&host, wake) => self.input(Input::Tick),
                Some(question) = self.channels.questions.recv() => match question {
                    Question::Queue(answer) => {
                        // A blocker may have been removed since the last check.
                        self.input(Input::Tick);
                        drop(answer.send(self.view()));
                    }
                    Question::Rename(certname, answer) => {
                        let renamed = self.rename(&certname, &check_configuration).await;
                        let is_renamed = renamed.is_ok();
                        drop(answer.send(renamed));
                        if is_renamed {
                            self.channels.may_claim.send_replace(false);
                            return Ok(self.stopped(Stopped::Renamed));
                        }
                    }
                },
                Some(batch) = next_batch(&mut self.channels.arrivals, &self.channels.completions) => {
                    self.arrived(batch);
                }
            }
        }
    }

    /// Finishes the runs of earlier agents that have ended, and adopts the one that is alive.
    async fn recover(&mut self) -> Result<(), AgentError> {
        for OpenRun { record, is_alive } in self.runs.open_runs()? {
            if self.current.is_there() {
                // Two runs at once would be a defect elsewhere, which the queue must not see.
                let ended = self.current.end().await;
                self.finish_run(ended);
            }
            if is_alive {
                tracing::info!(run = %record.run_id, "adopted a run of an earlier agent");
            } else {
                tracing::info!(run = %record.run_id, "a run of an earlier agent has ended");
            }
            if is_alive {
                self.adopt(record);
            } else {
                let result = self.runs.paths(record.run_id).read_durable_result()?;
                self.take_up(record, result);
            }
        }
        Ok(())
    }

    fn adopt(&mut self, record: RunRecord) {
        let RunRecord { run_id, started_at, timeout, options, causes, .. } = record;
        let noop = options.noop;
        let events = causes.iter().map(|cause| cause.event.id).collect();
        self.input(Input::Adopted {
            running: Running { run_id, started_at, causes: events },
            options,
            causes,
        });
        self.current.follow(run_id, noop, started_at, timeout);
    }

    /// Finishes a run that ended while no agent was running.
    fn take_up(&mut self, record: RunRecord, result: Option<RunResult>) {
        let RunRecord { run_id, started_at, options, causes, .. } = record;
        let run = self.conclude(EndedRun { run_id, noop: options.noop, started_at, result });
        if run.result.outcome == RunOutcome::Interrupted {
            for cause in &causes {
                *self.interruptions.entry(cause.event.id).or_default() += 1;
            }
        }
        self.input(Input::CompletedWhileDown { run, causes });
    }

    fn arrived(&mut self, Batch { arrivals, is_all, is_of_all, more_follow }: Batch) {
        if is_all {
            let keys = arrivals.iter().filter_map(|arrival| match arrival {
                Arrival::Unreadable { key, .. } => Some(key.as_str()),
                _ => None,
            });
            self.unreadable.keep(&keys.collect::<HashSet<&str>>());
        }
        self.take_in(Input::ReadingStarted { is_whole: is_of_all });
        for arrival in arrivals {
            match arrival {
                Arrival::Pending(cause) => self.pending(cause),
                // This node remembers what it has refused itself. It does not remember a forgery.
                Arrival::WasRefused { event, genuine: Some(cause), .. } if !self.queue.is_known(event) => {
                    self.pending(cause);
                }
                Arrival::Cancelled { mut cause, cancellation } => {
                    self.delivered(&mut cause);
                    let judged = self.queue.judge_cancellation(&cause, &cancellation);
                    daemon_log::cancellation(cause.event.id, &cancellation, &judged);
                    audit::cancellation(cause.event.id, &cancellation, &judged);
                    self.take_in(Input::Cancelled { cause, cancellation });
                }
                Arrival::HasOutcome { event, target } | Arrival::WasRefused { event, target, .. } => {
                    // A queued delivery is deleted when it completes.
                    if !self.queue.is_queued(event) {
                        self.send(CompletionJob::DeleteDeliveries { event, addressed_as: [target].into() });
                    }
                }
                Arrival::Ordered(order) => {
                    let certname = self.node.settings.certname.clone();
                    self.unreadable.forget(|| self.node.fleet.keyspace().key(&Key::Hold { certname }));
                    self.holds.take(self.queue.policy(), &order);
                    // It counts for the deliveries that were read with it.
                    self.take_in(Input::Tick);
                }
                Arrival::TooNew(held) => {
                    tracing::warn!(event = %held.event, reason = held.reason, "delivery held");
                    self.take_in(Input::TooNew(held));
                }
                Arrival::Unverified(held) => {
                    if self.queue.unusable_reason(held.event) != Some(&held.reason) {
                        tracing::warn!(event = %held.event, reason = held.reason, "delivery held");
                    }
                    self.take_in(Input::Unverified(held));
                }
                Arrival::Refused { event, target, reason } => {
                    self.take_in(Input::Refused { event, target, reason });
                }
                Arrival::Unreadable { key, detail } => self.unreadable.note(key, detail),
            }
        }
        if !more_follow {
            self.take_in(Input::ReadingEnded { is_whole: is_all });
        }
        self.known_ends.forget_files();
        // Once for the batch, which may hold thousands.
        self.finish_without_run();
        self.tell_activity();
    }

    fn pending(&mut self, mut cause: Box<Cause>) {
        self.delivered(&mut cause);
        self.take_in(Input::Delivered(cause));
    }

    /// Completes a delivery that was read with what this node knows of its event, and notes how the policy judges it.
    fn delivered(&mut self, cause: &mut Cause) {
        // It could not be read before its event was there.
        for target in &cause.addressed_as {
            self.unreadable.forget(|| self.node.fleet.keyspace().key(&delivery(target, cause.event.id)));
        }
        cause.interruptions = self.interruptions.get(&cause.event.id).copied().unwrap_or_default();
        // A delivery is read again about every ten minutes.
        if !self.queue.is_known(cause.event.id) {
            audit::judged(cause, &self.queue.judge(cause));
        }
    }

    /// Notes what is left of a hold: the time until the next start counts by the wall clock alone.
    fn stopped(&self, stopped: Stopped) -> Stopped {
        self.holds.note_what_is_left();
        stopped
    }

    /// The state of each blocker; whether Puppet is disabled is looked up afresh when a run is `about_to_start`.
    fn blockers(&mut self, about_to_start: bool) -> Blockers {
        let elapsed = self.node.host.now().elapsed;
        let puppet = self.channels.disabled.reason(about_to_start);
        daemon_log::puppet(self.puppet.as_ref(), puppet.as_ref());
        self.puppet.clone_from(&puppet);
        let hold = self.holds.held().map(ToString::to_string);
        Blockers { claim: self.channels.claim.borrow_and_update().blocker(elapsed), puppet, hold }
    }

    /// Passes an input to the core, performs the effects, and publishes the node's activity.
    fn input(&mut self, input: Input) {
        self.take_in(input);
        self.finish_without_run();
        self.tell_activity();
    }

    /// Passes an input to the core and performs the effects.
    fn take_in(&mut self, input: Input) {
        let about_to_start = self.queue.may_start(self.node.host.now(), &input);
        // The blockers are taken first: the queue must not start a run that an operator has just forbidden.
        let mut inputs = vec![input, Input::Blockers(self.blockers(about_to_start))];
        while let Some(input) = inputs.pop() {
            for effect in self.queue.step(self.node.host.now(), input) {
                inputs.extend(self.perform(effect));
            }
        }
    }

    fn tell_activity(&mut self) {
        let activity = Activity { hold: self.holds.report(), ..self.queue.activity() };
        self.log_delay(&activity);
        self.log_block(&activity);
        self.node.metrics.queue(&self.queue);
        let awaited = self.queue.awaited_catalogs();
        self.channels.catalogs.awaited.send_if_modified(|known| {
            let changed = *known != awaited;
            *known = awaited;
            changed
        });
        self.channels.activity.send_if_modified(|known| {
            let changed = *known != activity;
            *known = activity;
            changed
        });
    }

    /// Logs once when the rate limiter begins to delay runs. `trigger status` and `trigger queue` show the delay while
    /// it lasts.
    fn log_delay(&self, activity: &Activity) {
        if let Some(delayed) = &activity.delayed
            && self.channels.activity.borrow().delayed.is_none()
        {
            self.node.metrics.delayed();
            tracing::warn!(events = delayed.causes.len(), reason = delayed.reason, "runs are delayed");
        }
    }

    /// Logs once when deliveries begin to wait for an operator, and once when they no longer do.
    fn log_block(&self, activity: &Activity) {
        let was_held = !self.channels.activity.borrow().held.is_empty();
        match (self.queue.held_reason(), was_held, activity.held.is_empty()) {
            (Some(reason), false, false) => tracing::warn!(reason, "deliveries are held"),
            (_, true, true) => tracing::info!("deliveries are no longer held"),
            _ => {}
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::StartRun { options, causes } => Some(match self.current.start(options, causes) {
                Ok(running) => Input::Started(running),
                Err(run) => Input::RunEnded { run: self.take_note(run), jitter: self.node.host.jitter() },
            }),
            Effect::Finish { run: None, completions } => {
                self.without_run.extend(completions);
                None
            }
            Effect::Finish { run, completions } => {
                self.finish(run, completions);
                None
            }
            Effect::DeleteDeliveries { event, addressed_as } => {
                // Where the runs cannot be read, it is not known whether an outcome has to be stored first. The delivery
                // stays, and is read again.
                match self.known_ends.of(event, &self.runs)? {
                    Some(end) => self.send(CompletionJob::Finish {
                        run: None,
                        completions: vec![Completion { event, addressed_as, outcome: end }],
                    }),
                    None => self.send(CompletionJob::DeleteDeliveries { event, addressed_as }),
                }
                None
            }
        }
    }

    /// Ends deliveries. The dedup log is written before the outcome is stored, so that no event can run again.
    fn finish(&mut self, run: Option<RunId>, completions: Vec<Completion>) {
        let honoured: Vec<HonouredEvent> =
            completions.iter().filter_map(|ended| self.queue.honoured(ended.event)).collect();
        if let Err(error) = self.dedup_log.append(&honoured, self.node.host.wall()) {
            // The outcomes in the backend still keep these events from running again.
            tracing::error!(%error, "cannot note the completed events");
        }
        self.known_ends.ended(run, &completions);
        for completion in &completions {
            self.node.metrics.ended(&completion.outcome);
            daemon_log::completion(completion);
            audit::ended(completion);
        }
        self.send(CompletionJob::Finish { run, completions });
    }

    /// Ends the deliveries that need no run, with one sync of the dedup log for all of them.
    fn finish_without_run(&mut self) {
        if !self.without_run.is_empty() {
            let completions = std::mem::take(&mut self.without_run);
            self.finish(None, completions);
        }
    }

    fn send(&mut self, job: CompletionJob) {
        self.channels.completions.send(job);
    }

    fn run_ended(&mut self, ended: EndedRun) {
        // Its supervisor may have asked Puppet again.
        self.channels.disabled.take_over_cache();
        self.finish_run(ended);
        self.current.prepare_record();
    }

    fn finish_run(&mut self, ended: EndedRun) {
        let run = self.conclude(ended);
        self.input(Input::RunEnded { run, jitter: self.node.host.jitter() });
    }

    fn conclude(&mut self, ended: EndedRun) -> CompletedRun {
        let concluded = self.current.conclude(ended);
        self.take_note(concluded)
    }

    /// Notes a result that is in no file, and returns the run.
    fn take_note(&mut self, Concluded { run, is_written }: Concluded) -> CompletedRun {
        if !is_written {
            self.known_ends.result_is_unwritten(run.run_id);
        }
        run
    }

    /// Gives the state directory to another certname, if an agent can start for that one. The caller stops this agent
    /// then.
    async fn rename<C: Future<Output = Result<(), E>>, E: fmt::Display>(
        &mut self,
        certname: &Certname,
        check_configuration: &impl Fn() -> C,
    ) -> Result<(), String> {
        let AgentSettings { state, certname: owner, .. } = &self.node.settings;
        rename(state, &self.runs, certname)?;
        if let Err(error) = check_configuration().await {
            rename(state, &self.runs, owner)?;
            return Err(format!("the agent could not start again: {error}"));
        }
        tracing::info!(from = %owner, to = %certname, "the state directory has a new owner");
        Ok(())
    }

    fn view(&self) -> QueueView {
        let claim = self.channels.claim.borrow();
        let disconnected = match &*self.channels.link.borrow() {
            Connection::Up => None,
            Connection::NotTried => {
                let may_claim = *self.channels.may_claim.borrow();
                Some(view::not_tried(&claim, may_claim, self.puppet.as_ref()))
            }
            Connection::Down(reason) => Some(reason.clone()),
        };
        let held = self.holds.report().and_then(|report| report.held);
        let hold = held.map(|HeldNode { until, by, reason }| HoldView {
            until_unix_ms: until.as_unix_ms(),
            by: by.to_string(),
            reason,
        });
        view::of(&self.node.settings, &self.queue, disconnected, &claim, self.unreadable.keys(), hold)
    }
}

/// Returns once this agent has held the claim and another agent has taken it.
async fn lost(mut claim: watch::Receiver<ClaimState>) {
    let held = claim.wait_for(|standing| matches!(standing, ClaimState::Held { .. })).await.is_ok();
    if !held || claim.wait_for(|standing| matches!(standing, ClaimState::Contended(_))).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Returns the next deliveries, once the ends of those before them are written, but for some.
async fn next_batch(arrivals: &mut mpsc::Receiver<Batch>, completions: &CompletionJobs) -> Option<Batch> {
    completions.room().await;
    arrivals.recv().await
}

/// The key of a delivery.
fn delivery(target: &Target, event: EventId) -> Key {
    match target.clone() {
        Target::Node(certname) => Key::Delivery { certname, event },
        Target::Group(group) => Key::GroupDelivery { group, event },
    }
}

async fn sleep_until<H: Host>(host: &H, elapsed: Option<Duration>) {
    match elapsed {
        Some(elapsed) => host.sleep(elapsed.saturating_sub(host.elapsed())).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
