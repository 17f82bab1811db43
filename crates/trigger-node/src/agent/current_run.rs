//! The run of a node that is in progress: starts it with its record, follows it by its locks, and reads its result. It
//! knows nothing of the queue, and decides nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use trigger_core::event::RunOptions;
use trigger_core::identity::RunId;
use trigger_core::node::Running;
use trigger_core::run::command::lock_timeout;
use trigger_core::run::record::{Cause, RunRecord};
use trigger_core::run::{CompletedRun, RunOutcome, RunResult};
use trigger_core::time::Timestamp;

use super::Node;
use super::{audit, suppressed};
use crate::host::Host;
use crate::state::{FileError, NewRun, PreallocatedRecord, Runs};

/// A run in progress, started or adopted by this agent. It ends when its record is no longer locked.
struct ActiveRun {
    run_id: RunId,
    noop: bool,
    ended: Pin<Box<dyn Future<Output = Result<Option<RunResult>, FileError>> + Send>>,
    started_at: Timestamp,
}

/// A run that has ended, with the result that its supervisor left.
pub(super) struct EndedRun {
    pub(super) run_id: RunId,
    pub(super) noop: bool,
    pub(super) started_at: Timestamp,
    pub(super) result: Option<RunResult>,
}

/// A run with its result.
pub(super) struct Concluded {
    pub(super) run: CompletedRun,
    /// Whether the result is in a file, too.
    pub(super) is_written: bool,
}

/// The place of the one run of a node.
pub(super) struct CurrentRun<H: Host> {
    node: Arc<Node<H>>,
    runs: Runs<H>,
    active: Option<ActiveRun>,
    /// The next run's record, so that the run's start need not wait until a new file is durable.
    blank: Option<PreallocatedRecord<H>>,
}

impl<H: Host> CurrentRun<H> {
    /// No run is in progress yet.
    pub(super) fn new(node: Arc<Node<H>>, runs: Runs<H>) -> Self {
        Self { node, runs, active: None, blank: None }
    }

    /// Whether a run is in progress.
    pub(super) fn is_there(&self) -> bool {
        self.active.is_some()
    }

    /// Starts a run.
    ///
    /// # Errors
    /// The run with the outcome [`RunOutcome::NotRun`], if it cannot be started.
    pub(super) fn start(&mut self, options: RunOptions, causes: Vec<Cause>) -> Result<Running, Concluded> {
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
                Ok(running)
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
                let is_written = self.write_result(run_id, &result);
                Err(Concluded { run: CompletedRun::new(run_id, noop, result), is_written })
            }
        }
    }

    /// Waits for a run's end by the locks on its files. `timeout` is the run's own: an adopted run may have been
    /// started with another configuration.
    pub(super) fn follow(&mut self, run_id: RunId, noop: bool, started_at: Timestamp, timeout: Duration) {
        let paths = self.runs.paths(run_id);
        let patience = timeout + lock_timeout(timeout);
        let ended = Box::pin(paths.wait_for_end(patience));
        self.active = Some(ActiveRun { run_id, noop, ended, started_at });
    }

    /// Waits for the end of the run in progress, for ever where there is none. Nothing is lost if this is given up.
    pub(super) async fn end(&mut self) -> EndedRun {
        let Some(active) = &mut self.active else { return std::future::pending().await };
        let result = (&mut active.ended).await.unwrap_or_else(|error| {
            tracing::error!(run = %active.run_id, %error, "the run has ended, but its result cannot be read");
            None
        });
        let ended =
            EndedRun { run_id: active.run_id, noop: active.noop, started_at: active.started_at, result };
        self.active = None;
        ended
    }

    /// Preallocates the next run's record between two runs, when a few milliseconds delay nothing.
    pub(super) fn prepare_record(&mut self) {
        if self.blank.is_none() {
            match self.runs.prepare(self.new_run_id()) {
                Ok(blank) => self.blank = Some(blank),
                Err(error) => tracing::debug!(%error, "cannot preallocate the next run's record"),
            }
        }
    }

    /// Logs and counts a run that has ended. A run without a result was interrupted, because its supervisor died or
    /// never started.
    pub(super) fn conclude(&self, EndedRun { run_id, noop, started_at, result }: EndedRun) -> Concluded {
        let _span = tracing::info_span!("run", run = %run_id).entered();
        let mut is_written = true;
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
            is_written = self.write_result(run_id, &result);
            result
        });
        self.node.metrics.run_ended(&result);
        suppressed::log_and_count(run_id, &self.runs, &self.node.metrics);
        tracing::info!(outcome = %result.outcome, reason = result.reason, "run ended");
        Concluded { run: CompletedRun::new(run_id, noop, result), is_written }
    }

    /// Returns whether the result is in a file.
    fn write_result(&self, run_id: RunId, result: &RunResult) -> bool {
        let written = self.runs.paths(run_id).write_result(result);
        written.inspect_err(|error| tracing::error!(%error, "cannot write the run's result")).is_ok()
    }

    /// Starts a supervisor and hands the locked record to it.
    fn start_supervisor(&self, run: NewRun<H>) -> Result<(), String> {
        let started = self.node.host.start_supervisor(&run.paths.record(), run.lock);
        started.map_err(|error| format!("cannot start the run's supervisor: {error}"))
    }

    fn new_run_id(&self) -> RunId {
        RunId::from_uuid(self.node.host.new_ordered_uuid())
    }
}
