//! The run as a process of this machine: Puppet or another run command.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use trigger_core::duration;
use trigger_core::run::RunOutcome;
use trigger_core::run::command::{CommandKind, RunCommand, WORKING_DIRECTORY, lock_timeout};
use trigger_core::run::explanation::{LockHolder, Traces};
use trigger_core::run::record::RunRecord;
use trigger_core::run::verdict::{self, Exit, Verdict};
use trigger_core::wire::{Stored, WireError};

use super::stop_request::StopRequest;
use super::supervise::{RunProcess, supervise};
use super::time_limit::TimeLimit;
use super::{artifacts, asking, turn};
use crate::os::Os;
use crate::output_limit::{self, bound_output};
use crate::process_tree;
use crate::puppet_locks::disabled;
use crate::puppet_settings::{self, PuppetSettings};
use crate::start_error;
use crate::state::{FileError, RunPaths};

/// How often the output's size is checked.
const OUTPUT_CHECK: Duration = Duration::from_millis(200);
/// How long after the end of a run a signal to this process counts as one to the run.
const STOP_PATIENCE: Duration = Duration::from_millis(100);
/// Environment variables of the agent's own service, which would mislead Puppet or the programs it starts. OpenVox 8,
/// for example, takes its `rundir` from `RUNTIME_DIRECTORY`. With `POSIXLY_CORRECT`, Puppet would take the options that
/// follow the operator's manifest for more manifests.
const OURS_ALONE: [&str; 19] = [
    "CACHE_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
    "CREDENTIALS_DIRECTORY",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LOGS_DIRECTORY",
    "MAINPID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "NOTIFY_SOCKET",
    "POSIXLY_CORRECT",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// A supervisor could not supervise its run.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// The supervisor cannot leave the agent's session.
    #[error("cannot start a session of its own: {0}")]
    Session(#[source] io::Error),
    /// Standard input is not the run's record.
    #[error("cannot read the run's record from standard input: {0}")]
    Record(#[source] io::Error),
    /// The record was written by another version, or is damaged.
    #[error(transparent)]
    Unreadable(WireError),
    /// The system refuses what the supervisor needs.
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
    /// The run's result cannot be written.
    #[error(transparent)]
    Result(#[from] FileError),
}

/// Runs the process of a record to its end; the whole of `trigger supervise`. Calls `start_log` once the process has
/// been started, because nothing that the run does not need may delay its start.
///
/// # Errors
/// [`SupervisorError`]; the run then has no result and counts as interrupted.
pub fn run(record_path: &Path, start_log: fn()) -> Result<(), SupervisorError> {
    // A session of its own protects the run from signals to the agent's terminal or process group.
    rustix::process::setsid().map_err(|error| SupervisorError::Session(error.into()))?;
    let record = read_record().map_err(SupervisorError::Record)?;
    let record = RunRecord::from_wire(&record).map_err(SupervisorError::Unreadable)?;
    let os = Os::start();
    let paths = RunPaths::beside(os, record_path);
    let state_dir = record_path.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(SupervisorError::Runtime)?;
    let mut process = PuppetProcess::of(&record, &paths, state_dir, start_log);
    let result = runtime.block_on(supervise(&os, &record, &paths, &mut process));
    runtime.block_on(guard_output(&paths));
    Ok(result?)
}

/// Bounds the output for as long as a process that the run left behind writes to it, such as a daemon. The record is
/// released before, because the run has ended.
async fn guard_output(paths: &RunPaths) {
    let Some(output) = output_limit::written_by_others(&paths.output()) else { return };
    let released = File::open("/dev/null").and_then(|null| Ok(rustix::stdio::dup2_stdin(&null)?));
    match (released, signal(SignalKind::terminate())) {
        (Ok(()), Ok(mut stop)) => {
            tracing::info!("a process that the run left behind writes to its output, which is kept bounded");
            tokio::select! {
                () = output_limit::guard(&output) => {}
                _ = stop.recv() => {}
            }
        }
        (released, stop) => {
            let error = released.err().or_else(|| stop.err()).map(|error| error.to_string());
            tracing::warn!(error, "cannot bound what others write to the run's output");
        }
    }
}

/// Reads the run's record, which is standard input.
fn read_record() -> io::Result<String> {
    let mut file = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    file.seek(SeekFrom::Start(0))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

struct PuppetProcess<'a> {
    record: &'a RunRecord,
    command: Option<RunCommand>,
    paths: &'a RunPaths,
    state_dir: &'a Path,
    puppet: Option<PuppetSettings>,
    start_log: fn(),
    started: Option<(Child, TimeLimit)>,
}

impl<'a> PuppetProcess<'a> {
    fn of(record: &'a RunRecord, paths: &'a RunPaths, state_dir: &'a Path, start_log: fn()) -> Self {
        let command = RunCommand::from_words(record.command.clone());
        let puppet = match &command {
            Some(command) if command.kind() != CommandKind::Other => {
                puppet_settings::cached(command, state_dir)
            }
            _ => None,
        };
        Self { record, command, paths, state_dir, puppet, start_log, started: None }
    }
}

impl RunProcess for PuppetProcess<'_> {
    async fn wait_for_turn(&mut self) -> Option<Verdict> {
        let command = self.command.as_ref().filter(|command| command.kind() != CommandKind::Other)?;
        if self.puppet.is_none() {
            // The agent starts no run before Puppet has answered, so it could not store the answer.
            match asking::settings(self.record, command, self.state_dir, lock_timeout(self.record.timeout))
                .await
            {
                Ok(settings) => self.puppet = Some(settings),
                Err(verdict) => return Some(verdict),
            }
        }
        match &self.puppet {
            Some(puppet) if command.kind() == CommandKind::PuppetApply => {
                wait_for_turn(self.record, self.paths, puppet).await
            }
            _ => None,
        }
    }

    fn start(&mut self) -> Result<Option<String>, Verdict> {
        let Some(command) = &self.command else {
            return Err(Verdict::new(RunOutcome::NotRun, "the run command is empty"));
        };
        let logdest = self.puppet.as_ref().and_then(|puppet| puppet.logdest.as_deref());
        let limits = self.puppet.as_ref().map(|puppet| puppet.limits.clone()).unwrap_or_default();
        let keeping_triggers = command.with_private_tag(&self.record.options, &limits);
        let started = start(self.record, &keeping_triggers, self.paths, logdest);
        (self.start_log)();
        let child = started.map_err(|error| {
            let directory = Path::new(WORKING_DIRECTORY);
            let environment = &self.record.environment;
            let reason = start_error::describe(command.executable(), &error, directory, environment);
            Verdict::new(RunOutcome::NotRun, reason)
        })?;
        let note = child.id().and_then(process_tree::note_of);
        let limit = TimeLimit::new(self.record.timeout, command, child.id(), self.puppet.as_ref());
        self.started = Some((child, limit));
        Ok(note)
    }

    async fn wait(&mut self) -> Verdict {
        let (Some(command), Some((child, limit))) = (&self.command, &mut self.started) else {
            return Verdict::new(RunOutcome::NotRun, "it was not started");
        };
        let mut stop = match StopRequest::listen() {
            Ok(stop) => stop,
            // Without a verdict on its end the run must not go on.
            Err(error) => {
                process_tree::end(child).await;
                return lost(&error);
            }
        };
        let ended = watch(child, limit, &self.paths.output(), &mut stop).await;
        let lock = limit.lock_holder();
        let verdict = match ended {
            Ended::ByItself { status, was_stopped } => {
                self.verdict_on(command, status, was_stopped, lock.as_ref(), &mut stop).await
            }
            Ended::TimedOut => {
                let limit = duration::format(self.record.timeout);
                Verdict::new(RunOutcome::TimedOut, format!("ended after {limit}, the run timeout"))
            }
            Ended::Stopped => Verdict::stopped(),
            Ended::Lost(error) => lost(&error),
        };
        artifacts::leave_report(self.record, command, self.paths, self.state_dir, &mut stop).await;
        verdict
    }
}

impl PuppetProcess<'_> {
    async fn verdict_on(
        &self,
        command: &RunCommand,
        status: ExitStatus,
        was_stopped: bool,
        lock: Option<&LockHolder>,
        stop: &mut StopRequest,
    ) -> Verdict {
        let report = artifacts::report(self.record, command, self.paths, self.state_dir, stop).await;
        // A report that was not looked for to the end may be that of a good run: such a run is repeated.
        let was_stopped = was_stopped || (report.is_err() && stop.was_made());
        let output = artifacts::output(self.paths);
        let traces = Traces {
            output: &output,
            errors: report.as_ref().ok().and_then(|report| report.errors.as_ref()),
            certname: self.record.certname.as_str(),
            lock,
            was_stopped,
            wrapper: status.code().and_then(|code| command.wrapper_exit(code)),
            run: Some(self.record.run_id),
        };
        let summary = report.as_ref().map(|report| &report.summary).map_err(String::as_str);
        let limits = self.puppet.as_ref().map(|puppet| puppet.limits.clone()).unwrap_or_default();
        verdict::judge(command.kind(), exit(status), summary, &traces)
            .of_a_limited_run(command.limits(&self.record.options, &limits))
    }
}

/// Waits until a `puppet apply` may start. Returns a verdict if it cannot, because a run of `puppet agent` does not end
/// or an operator has disabled Puppet meanwhile. The time of this wait does not count towards the run's time limit.
async fn wait_for_turn(record: &RunRecord, paths: &RunPaths, puppet: &PuppetSettings) -> Option<Verdict> {
    let not_run = |reason: String| Some(Verdict::new(RunOutcome::NotRun, reason));
    let opened = open_output(paths).and_then(|file| Ok((file, signal(SignalKind::terminate())?)));
    let (mut output, mut stop) = match opened {
        Ok(opened) => opened,
        Err(error) => return not_run(format!("cannot wait for the run of puppet agent: {error}")),
    };
    let patience = lock_timeout(record.timeout);
    let waited = tokio::select! {
        waited = turn::wait(&puppet.run_lock, patience, &mut output) => waited,
        _ = stop.recv() => return Some(Verdict::stopped()),
    };
    match waited {
        Ok(()) => disabled(&puppet.disabled_lock).and_then(|blocker| not_run(blocker.reason().to_owned())),
        Err(other) => not_run(format!("{other}; that was still so after {}", duration::format(patience))),
    }
}

fn open_output(paths: &RunPaths) -> std::io::Result<File> {
    let (path, mut options) = (paths.output(), File::options());
    options.create(true).append(true);
    match (trigger_files::open(&mut options, &path), path.parent()) {
        // Something else has removed the directory since the record was written there.
        (Err(error), Some(directory)) if error.kind() == io::ErrorKind::NotFound => {
            trigger_files::create_dir(directory)?;
            trigger_files::open(&mut options, &path)
        }
        (opened, _) => opened,
    }
}

fn start(
    record: &RunRecord,
    command: &RunCommand,
    paths: &RunPaths,
    logdest: Option<&str>,
) -> std::io::Result<Child> {
    let output = open_output(paths)?;
    // Every process that inherits the file shares this lock. If this supervisor is killed, the lock shows the agent how
    // long the run goes on.
    output.lock()?;
    let report = paths.report();
    let report = report.to_string_lossy();
    let argv = command.argv(record.run_id, &record.options, record.timeout, &report, logdest);
    let mut process = Command::new(&argv[0]);
    process.args(&argv[1..]).current_dir(WORKING_DIRECTORY).envs(&record.environment);
    for name in OURS_ALONE {
        process.env_remove(name);
    }
    // A file and not a pipe, because `puppet apply` stops half-way when the reader of its output goes away.
    process.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0).spawn()
}

enum Ended {
    ByItself { status: ExitStatus, was_stopped: bool },
    TimedOut,
    Stopped,
    Lost(std::io::Error),
}

fn lost(error: &io::Error) -> Verdict {
    Verdict::new(RunOutcome::Unknown, format!("cannot wait for the run: {error}"))
}

async fn watch(child: &mut Child, limit: &mut TimeLimit, output: &Path, stop: &mut StopRequest) -> Ended {
    let mut checks = tokio::time::interval(OUTPUT_CHECK);
    let ended = loop {
        tokio::select! {
            status = child.wait() => {
                bound_output(output);
                return match status {
                    Ok(status) => Ended::ByItself { status, was_stopped: was_stopped(status, stop).await },
                    Err(error) => Ended::Lost(error),
                };
            }
            () = limit.is_over() => break Ended::TimedOut,
            () = stop.made() => break Ended::Stopped,
            _ = checks.tick() => bound_output(output),
        }
    };
    process_tree::end(child).await;
    bound_output(output);
    ended
}

/// Whether this process was asked to stop when the run ended with the exit code 1. A service manager or a shutdown
/// signals both at the same time, and `puppet apply` exits with 1 at a signal.
async fn was_stopped(status: ExitStatus, stop: &mut StopRequest) -> bool {
    status.code() == Some(1) && tokio::time::timeout(STOP_PATIENCE, stop.made()).await.is_ok()
}

fn exit(status: ExitStatus) -> Exit {
    match status.code() {
        Some(code) => Exit::Code(code),
        None => Exit::Signal(status.signal().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests;
