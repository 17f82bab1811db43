//! The owner of the queue and of the runs. It receives inputs, passes them to the core and performs the core's effects
//! in order. It must not decide anything itself.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use trigger_core::dedup::HonouredEvent;
use trigger_core::delivery::{Completion, DeliveryOutcome};
use trigger_core::event::RunOptions;
use trigger_core::identity::{Certname, EventId, RunId};
use trigger_core::node::{Activity, Running};
use trigger_core::policy::Policy;
use trigger_core::queue::{Blockers, Effect, Input, PuppetBlocker, Queue, QueueSettings};
use trigger_core::run::command::lock_timeout;
use trigger_core::run::record::{Cause, RunRecord};
use trigger_core::run::{CompletedRun, RunOutcome, RunResult};
use trigger_core::time::Timestamp;
use trigger_fleet::claim::ClaimState;
use trigger_fleet::deliveries::Arrival;
use trigger_fleet::delivery_watcher::Batch;

use super::audit;
use super::completion_writer::CompletionJob;
use super::connection::Connection;
use super::error::AgentError;
use super::known_ends::KnownEnds;
use super::rename::rename;
use super::suppressed;
use super::view;
use super::{AgentSettings, DisableCheck, Node, Question, Signal, Stopped};
use crate::host::Host;
use crate::queue_view::QueueView;
use crate::state::{DedupLog, FileError, NewRun, OpenRun, PreallocatedRecord, Runs};

/// The daemon's ends of the channels to the other tasks.
pub(super) struct Channels<D> {
    pub(super) signals: mpsc::Receiver<Signal>,
    pub(super) policy: watch::Receiver<Policy>,
    pub(super) arrivals: mpsc::Receiver<Batch>,
    pub(super) claim: watch::Receiver<ClaimState>,
    pub(super) disabled: D,
    /// Whether the registration may claim the certname.
    pub(super) may_claim: watch::Sender<bool>,
    pub(super) link: watch::Receiver<Connection>,
    pub(super) questions: mpsc::Receiver<Question>,
    pub(super) completions: mpsc::UnboundedSender<CompletionJob>,
    pub(super) activity: watch::Sender<Activity>,
}

/// A run in progress, started or adopted by this agent. It ends when its record is no longer locked.
struct ActiveRun {
    run_id: RunId,
    noop: bool,
    ended: Pin<Box<dyn Future<Output = Result<Option<RunResult>, FileError>> + Send>>,
    started_at: Timestamp,
}

pub(super) struct Daemon<H: Host, D> {
    node: Arc<Node<H>>,
    queue: Queue,
    runs: Runs<H>,
    dedup_log: DedupLog<H>,
    interruptions: HashMap<EventId, u32>,
    known_ends: KnownEnds,
    unreadable: BTreeMap<String, String>,
    active: Option<ActiveRun>,
    /// What Puppet said against a run at the latest check.
    puppet: Option<PuppetBlocker>,
    /// The next run's record, so that the run's start need not wait until a new file is durable.
    blank: Option<PreallocatedRecord<H>>,
    channels: Channels<D>,
}

impl<H: Host, D: DisableCheck> Daemon<H, D> {
    pub(super) fn new(
        node: Arc<Node<H>>,
        runs: Runs<H>,
        dedup_log: DedupLog<H>,
        ended: BTreeMap<EventId, Timestamp>,
        channels: Channels<D>,
    ) -> Result<Self, AgentError> {
        let queue_node = QueueSettings {
            certname: node.settings.certname.clone(),
            honours_noop: node.settings.command.honours_noop(),
            runs_per_minute: node.settings.runs_per_minute,
            policy: node.settings.policy.clone(),
        };
        let interruptions = runs.interruptions()?;
        let mut queue = Queue::new(queue_node, ended);
        queue.recall_starts(node.host.now(), runs.latest_starts()?);
        if let Some(result) = runs.latest_result()? {
            node.metrics.last_run_ended(&result);
        }
        Ok(Self {
            node,
            queue,
            runs,
            dedup_log,
            interruptions,
            known_ends: KnownEnds::default(),
            unreadable: BTreeMap::new(),
            active: None,
            puppet: None,
            blank: None,
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

        self.recover().await?;
        self.input(Input::Recovered);
        self.prepare_record();
        let settings = &self.node.settings;
        tracing::info!(certname = %settings.certname, backend = %settings.backend, "the agent is ready");
        on_ready();
        loop {
            let wake = self.queue.next_wake();
            tokio::select! {
                // Rare inputs come before frequent ones, in the same order on any host.
                biased;
                Some(signal) = self.channels.signals.recv() => match signal {
                    Signal::Terminate => return Ok(Stopped::Terminated),
                    Signal::Reload => match check_configuration().await {
                        Ok(()) if *self.channels.may_claim.borrow() => return Ok(Stopped::Reload),
                        Ok(()) => return Ok(Stopped::Renamed),
                        Err(error) => {
                            tracing::error!(%error, "the configuration is not reloaded");
                        }
                    },
                },
                // The other agent runs the waiting deliveries now. The restart drops them from the queue, and they are
                // read again if this agent is to run them.
                () = &mut loss, if !has_lost => match check_configuration().await {
                    Ok(()) => return Ok(Stopped::ClaimLost),
                    Err(error) => {
                        tracing::error!(%error, "the agent does not restart");
                        has_lost = true;
                    }
                },
                Ok(()) = self.channels.policy.changed() => {
                    let policy = self.channels.policy.borrow_and_update().clone();
                    self.input(Input::PolicyChanged(policy));
                }
                Ok(()) = self.channels.claim.changed() => self.input(Input::Tick),
                () = self.channels.disabled.has_moved() => {
                    self.channels.may_claim.send_replace(self.channels.disabled.confirms_certname());
                    self.input(Input::Tick);
                }
                ended = wait_for_end(&mut self.active) => self.run_ended(ended),
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
                            return Ok(Stopped::Renamed);
                        }
                    }
                },
                Some(batch) = self.channels.arrivals.recv() => self.arrived(batch),
            }
        }
    }

    /// Finishes the runs of earlier agents that have ended, and adopts the one that is alive.
    async fn recover(&mut self) -> Result<(), AgentError> {
        for OpenRun { record, is_alive } in self.runs.open_runs()? {
            if let Some(active) = self.active.take() {
                // Two runs at once would be a defect elsewhere, which the queue must not see.
                let result = active.ended.await.ok().flatten();
                self.finish_run(active.run_id, active.noop, active.started_at, result);
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
        self.follow(run_id, noop, started_at, timeout);
    }

    /// Finishes a run that ended while no agent was running.
    fn take_up(&mut self, record: RunRecord, result: Option<RunResult>) {
        let RunRecord { run_id, started_at, options, causes, .. } = record;
        let run = self.over(run_id, options.noop, started_at, result);
        if run.result.outcome == RunOutcome::Interrupted {
            for cause in &causes {
                *self.interruptions.entry(cause.event.id).or_default() += 1;
            }
        }
        self.input(Input::CompletedWhileDown { run, causes });
    }

    fn arrived(&mut self, Batch { arrivals, is_all, is_of_all, more_follow }: Batch) {
        if is_all {
            let is_there = |known: &str| {
                arrivals.iter().any(|a| matches!(a, Arrival::Unreadable { key, .. } if key == known))
            };
            self.unreadable.retain(|key, _| is_there(key));
        }
        self.take_in(Input::ReadingStarted { is_whole: is_of_all });
        for arrival in arrivals {
            match arrival {
                Arrival::Pending(mut cause) => {
                    // It could not be read before its event was there.
                    let event = cause.event.id.to_string();
                    self.unreadable.retain(|key, _| !key.ends_with(&event));
                    cause.interruptions =
                        self.interruptions.get(&cause.event.id).copied().unwrap_or_default();
                    // A delivery is read again about every ten minutes.
                    if !self.queue.is_known(cause.event.id) {
                        audit::judged(&cause, &self.queue.judge(&cause));
                    }
                    self.take_in(Input::Delivered(cause));
                }
                Arrival::HasOutcome { event, target } => {
                    // A queued delivery is deleted when it completes.
                    if !self.queue.is_queued(event) {
                        self.send(CompletionJob::DeleteDeliveries { event, addressed_as: [target].into() });
                    }
                }
                Arrival::TooNew(held) => {
                    tracing::warn!(event = %held.event, reason = held.reason, "delivery held");
                    self.take_in(Input::TooNew(held));
                }
                Arrival::Unverified(held) => {
                    let is_known = |(event, reason)| event == held.event && reason == held.reason;
                    if !self.queue.held().any(is_known) {
                        tracing::warn!(event = %held.event, reason = held.reason, "delivery held");
                    }
                    self.take_in(Input::Unverified(held));
                }
                Arrival::Refused { event, target, reason } => {
                    self.take_in(Input::Refused { event, target, reason });
                }
                Arrival::Unreadable { key, detail } => {
                    if self.unreadable.insert(key.clone(), detail.clone()).is_none() {
                        tracing::error!(
                            key,
                            error = detail,
                            "cannot read a delivery; it stays in the backend"
                        );
                    }
                }
            }
        }
        if !more_follow {
            self.take_in(Input::ReadingEnded);
        }
        self.known_ends.forget_files();
        // Published once for the batch, which may hold thousands.
        self.tell_activity();
    }

    /// The state of each blocker; whether Puppet is disabled is looked up afresh when a run is `about_to_start`.
    fn blockers(&mut self, about_to_start: bool) -> Blockers {
        let elapsed = self.node.host.now().elapsed;
        let puppet = self.channels.disabled.reason(about_to_start);
        log_puppet(self.puppet.as_ref(), puppet.as_ref());
        self.puppet.clone_from(&puppet);
        Blockers { claim: self.channels.claim.borrow_and_update().blocker(elapsed), puppet }
    }

    /// Passes an input to the core, performs the effects, and publishes the node's activity.
    fn input(&mut self, input: Input) {
        self.take_in(input);
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
        let activity = self.queue.activity();
        self.log_delay(&activity);
        self.log_block(&activity);
        self.node.metrics.queue(&self.queue);
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
            Effect::StartRun { options, causes } => Some(self.start_run(options, causes)),
            Effect::Finish { run, completions } => {
                // The dedup log is written before the outcome is stored, so that no event of this run can run
                // again. A delivery that ended without a run is not logged here: after a crash it is judged again,
                // whereas an event in the log would be deleted without an outcome.
                let honoured: Vec<HonouredEvent> =
                    completions.iter().filter_map(|ended| self.queue.honoured(ended.event)).collect();
                if run.is_some()
                    && let Err(error) = self.dedup_log.append(&honoured, self.node.host.wall())
                {
                    // The outcomes in the backend still keep these events from running again.
                    tracing::error!(%error, "cannot note the completed events");
                }
                self.known_ends.ended(run, &completions);
                for completion in &completions {
                    self.node.metrics.ended(&completion.outcome);
                    log_completion(completion);
                    audit::ended(completion);
                }
                self.send(CompletionJob::Finish { run, completions });
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

    fn send(&self, job: CompletionJob) {
        if self.channels.completions.send(job).is_err() {
            tracing::error!(
                "the completion writer has ended; the next start of the agent writes its completions"
            );
        }
    }

    /// Starts a run. If it cannot be started, its outcome is [`RunOutcome::NotRun`].
    fn start_run(&mut self, options: RunOptions, causes: Vec<Cause>) -> Input {
        let settings = &self.node.settings;
        let blank = self.blank.take();
        let run_id = blank.as_ref().map_or_else(|| self.new_run_id(), |blank| blank.run);
        let _span = tracing::info_span!("run", run = %run_id).entered();
        let started_at = self.node.host.wall();
        let running =
            Running { run_id, started_at, causes: causes.iter().map(|cause| cause.event.id).collect() };
        let noop = options.noop;
        let mut environment = settings.run_environment.clone();
        environment.insert("TRIGGER_RUN_ID".to_owned(), run_id.to_string());
        let record = RunRecord {
            run_id,
            certname: settings.certname.clone(),
            command: settings.command_words.clone(),
            options,
            timeout: settings.run_timeout,
            started_at,
            causes,
            environment,
        };
        let started = self.runs.create(&record, blank).map_err(|error| error.to_string());
        let started = started.and_then(|run| self.start_supervisor(run));
        match started {
            Ok(()) => {
                tracing::info!(events = running.causes.len(), "run started");
                audit::started(run_id, &record.options, &record.causes);
                self.follow(run_id, noop, started_at, record.timeout);
                Input::Started(running)
            }
            Err(reason) => {
                tracing::error!(reason, "cannot start a run");
                let result = RunResult {
                    outcome: RunOutcome::NotRun,
                    reason: Some(reason),
                    reported_noop: false,
                    drift: Default::default(),
                    started_at,
                    finished_at: self.node.host.wall(),
                };
                self.node.metrics.run_ended(&result);
                // Without a result, the next agent would treat this run as interrupted.
                self.write_result(run_id, &result);
                Input::RunEnded {
                    run: CompletedRun::new(run_id, noop, result),
                    jitter: self.node.host.jitter(),
                }
            }
        }
    }

    /// Waits for a run's end by the locks on its files. `timeout` is the run's own: an adopted run may have been
    /// started with another configuration.
    fn follow(&mut self, run_id: RunId, noop: bool, started_at: Timestamp, timeout: Duration) {
        let paths = self.runs.paths(run_id);
        let patience = timeout + lock_timeout(timeout);
        let ended = Box::pin(paths.wait_for_end(patience));
        self.active = Some(ActiveRun { run_id, noop, ended, started_at });
    }

    fn run_ended(&mut self, ended: Result<Option<RunResult>, FileError>) {
        let Some(active) = self.active.take() else { return };
        let result = ended.unwrap_or_else(|error| {
            tracing::error!(run = %active.run_id, %error, "the run has ended, but its result cannot be read");
            None
        });
        // Its supervisor may have asked Puppet again.
        self.channels.disabled.take_over_cache();
        self.finish_run(active.run_id, active.noop, active.started_at, result);
        self.prepare_record();
    }

    /// Preallocates the next run's record between two runs, when a few milliseconds delay nothing.
    fn prepare_record(&mut self) {
        if self.blank.is_none() {
            match self.runs.prepare(self.new_run_id()) {
                Ok(blank) => self.blank = Some(blank),
                Err(error) => tracing::debug!(%error, "cannot preallocate the next run's record"),
            }
        }
    }

    fn finish_run(&mut self, run_id: RunId, noop: bool, started_at: Timestamp, result: Option<RunResult>) {
        let run = self.over(run_id, noop, started_at, result);
        self.input(Input::RunEnded { run, jitter: self.node.host.jitter() });
    }

    /// Logs and counts a run that has ended. A run without a result was interrupted, because its supervisor died or
    /// never started.
    fn over(
        &mut self,
        run_id: RunId,
        noop: bool,
        started_at: Timestamp,
        result: Option<RunResult>,
    ) -> CompletedRun {
        let _span = tracing::info_span!("run", run = %run_id).entered();
        let result = result.unwrap_or_else(|| {
            let result = RunResult {
                outcome: RunOutcome::Interrupted,
                reason: Some(
                    "it left no result: its supervisor was killed, its disk was full, or this node went down"
                        .to_owned(),
                ),
                reported_noop: false,
                drift: Default::default(),
                started_at,
                finished_at: self.node.host.wall(),
            };
            self.write_result(run_id, &result);
            result
        });
        self.node.metrics.run_ended(&result);
        suppressed::log_and_count(run_id, &self.runs, &self.node.metrics);
        tracing::info!(outcome = %result.outcome, reason = result.reason, "run ended");
        CompletedRun::new(run_id, noop, result)
    }

    fn write_result(&mut self, run_id: RunId, result: &RunResult) {
        if let Err(error) = self.runs.paths(run_id).write_result(result) {
            tracing::error!(%error, "cannot write the run's result");
            self.known_ends.result_is_unwritten(run_id);
        }
    }

    /// Starts a supervisor and hands the locked record to it.
    fn start_supervisor(&self, run: NewRun<H>) -> Result<(), String> {
        let started = self.node.host.start_supervisor(&run.paths.record(), run.lock);
        started.map_err(|error| format!("cannot start the run's supervisor: {error}"))
    }

    fn new_run_id(&self) -> RunId {
        RunId::from_uuid(self.node.host.new_ordered_uuid())
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
        let disconnected = match &*self.channels.link.borrow() {
            Connection::Up => None,
            Connection::NotTried => {
                let may_claim = *self.channels.may_claim.borrow();
                Some(not_tried(&self.channels.claim.borrow(), may_claim, self.puppet.as_ref()))
            }
            Connection::Down(reason) => Some(reason.clone()),
        };
        view::of(&self.node.settings, &self.queue, disconnected, &self.unreadable)
    }
}

/// Logs once when a blocker begins that says nothing about deliveries: there may be none here, because an agent that may
/// not claim its certname reads none. Not to know is usual for a second after a start; a Puppet that fails is logged
/// where it is asked.
fn log_puppet(before: Option<&PuppetBlocker>, now: Option<&PuppetBlocker>) {
    match (before, now) {
        (_, Some(PuppetBlocker::OtherCertname(reason))) if before != now => {
            tracing::warn!(reason, "no run starts");
        }
        (
            Some(PuppetBlocker::Unknown(_) | PuppetBlocker::Broken(_)),
            Some(PuppetBlocker::Unknown(_) | PuppetBlocker::Broken(_)),
        ) => {}
        (_, Some(PuppetBlocker::Unknown(reason) | PuppetBlocker::Broken(reason))) => {
            tracing::info!(reason, "no run starts yet");
        }
        _ => {}
    }
}

/// Why deliveries are not read yet. An agent that may not claim its certname has not asked the backend, or asks it no
/// more.
fn not_tried(claim: &ClaimState, may_claim: bool, puppet: Option<&PuppetBlocker>) -> String {
    match claim {
        ClaimState::Unregistered { .. } | ClaimState::Contended(_) if !may_claim => match puppet {
            Some(
                PuppetBlocker::OtherCertname(reason)
                | PuppetBlocker::Unknown(reason)
                | PuppetBlocker::Broken(reason),
            ) => reason.clone(),
            Some(PuppetBlocker::Disabled(_)) | None => {
                "deliveries are read once Puppet has confirmed the certname of this node".to_owned()
            }
        },
        ClaimState::Unregistered { trouble: Some(trouble) } => trouble.clone(),
        ClaimState::Unregistered { trouble: None } => "the backend has not answered yet".to_owned(),
        ClaimState::Held { .. } => "deliveries are not read yet".to_owned(),
        ClaimState::Contended(_) | ClaimState::Stale { .. } => {
            "deliveries are read once this agent holds its claim".to_owned()
        }
    }
}

/// Logs the end of a delivery, as a warning if an operator may have to act.
fn log_completion(Completion { event, outcome, .. }: &Completion) {
    let state = outcome.state();
    match outcome {
        DeliveryOutcome::Done(run) => {
            tracing::info!(%event, %state, run = %run.run_id, outcome = %run.result.outcome, "delivery completed");
        }
        DeliveryOutcome::Failed(run) => {
            tracing::warn!(%event, %state, run = %run.run_id, outcome = %run.result.outcome, "delivery completed");
        }
        DeliveryOutcome::Superseded(by) => tracing::info!(%event, %state, %by, "delivery completed"),
        DeliveryOutcome::Expired(reason) => {
            tracing::warn!(%event, %state, reason, "delivery completed");
        }
        DeliveryOutcome::Refused(reason) | DeliveryOutcome::Suppressed(reason) => {
            tracing::warn!(%event, %state, reason, "delivery completed");
        }
    }
}

async fn wait_for_end(active: &mut Option<ActiveRun>) -> Result<Option<RunResult>, FileError> {
    match active {
        Some(active) => (&mut active.ended).await,
        None => std::future::pending().await,
    }
}

/// Returns once this agent has held the claim and another agent has taken it.
async fn lost(mut claim: watch::Receiver<ClaimState>) {
    let held = claim.wait_for(|standing| matches!(standing, ClaimState::Held { .. })).await.is_ok();
    if !held || claim.wait_for(|standing| matches!(standing, ClaimState::Contended(_))).await.is_err() {
        std::future::pending::<()>().await;
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
