//! The run as a process of this machine: Puppet or another run command.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use trigger_core::duration;
use trigger_core::run::RunOutcome;
use trigger_core::run::command::{CommandKind, RunCommand, WORKING_DIRECTORY, lock_timeout};
use trigger_core::run::record::RunRecord;
use trigger_core::run::verdict::{self, Exit, Verdict};
use trigger_core::wire::{Stored, WireError};

use super::supervise::{RunProcess, supervise};
use super::time_limit::TimeLimit;
use super::{artifacts, turn};
use crate::os::Os;
use crate::process_tree;
use crate::puppet_locks::disabled_reason;
use crate::puppet_settings::{self, PuppetPaths};
use crate::start_error;
use crate::state::{FileError, RunPaths};

/// How often the output's size is checked; it is cut when it exceeds [`MAX_OUTPUT_BYTES`].
const OUTPUT_CHECK: Duration = Duration::from_millis(200);
/// Bytes of output before the oldest are dropped.
const MAX_OUTPUT_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of output that stay when the oldest are dropped.
const OUTPUT_KEEP: u64 = 1024 * 1024;
/// Environment variables of the agent's own service, which would mislead Puppet or the programs it starts. OpenVox 8,
/// for example, takes its `rundir` from `RUNTIME_DIRECTORY`.
const OURS_ALONE: [&str; 18] = [
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
    Ok(runtime.block_on(supervise(&os, &record, &paths, &mut process))?)
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
    puppet: Option<PuppetPaths>,
    start_log: fn(),
    started: Option<(Child, TimeLimit)>,
}

impl<'a> PuppetProcess<'a> {
    fn of(record: &'a RunRecord, paths: &'a RunPaths, state_dir: &'a Path, start_log: fn()) -> Self {
        let command = RunCommand::from_words(record.command.clone());
        let puppet = match &command {
            Some(command) if command.kind() != CommandKind::Other => {
                puppet_settings::cached_paths(command, state_dir)
            }
            _ => None,
        };
        Self { record, command, paths, state_dir, puppet, start_log, started: None }
    }
}

impl RunProcess for PuppetProcess<'_> {
    async fn wait_for_turn(&mut self) -> Option<Verdict> {
        match (&self.command, &self.puppet) {
            (Some(command), Some(puppet)) if command.kind() == CommandKind::PuppetApply => {
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
        let started = start(self.record, command, self.paths, logdest);
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
        match watch(child, limit, &self.paths.output()).await {
            Ended::ByItself(status) => {
                let report = artifacts::report(self.record, command, self.paths, self.state_dir).await;
                let output = artifacts::output(self.paths);
                verdict::judge(command.kind(), exit(status), report.as_ref().map_err(String::as_str), &output)
            }
            Ended::TimedOut => {
                let limit = duration::format(self.record.timeout);
                Verdict::new(RunOutcome::TimedOut, format!("ended after {limit}, the run timeout"))
            }
            Ended::Stopped => stopped(),
            Ended::Lost(error) => {
                Verdict::new(RunOutcome::Unknown, format!("cannot wait for the run: {error}"))
            }
        }
    }
}

fn stopped() -> Verdict {
    Verdict::new(RunOutcome::Interrupted, "its supervisor was asked to stop")
}

/// Waits until a `puppet apply` may start. Returns a verdict if it cannot, because a run of `puppet agent` does not end
/// or an operator has disabled Puppet meanwhile. The time of this wait does not count towards the run's time limit.
async fn wait_for_turn(record: &RunRecord, paths: &RunPaths, puppet: &PuppetPaths) -> Option<Verdict> {
    let not_run = |reason: String| Some(Verdict::new(RunOutcome::NotRun, reason));
    let opened = open_output(paths).and_then(|file| Ok((file, signal(SignalKind::terminate())?)));
    let (mut output, mut stop) = match opened {
        Ok(opened) => opened,
        Err(error) => return not_run(format!("cannot wait for the run of puppet agent: {error}")),
    };
    let patience = lock_timeout(record.timeout);
    let waited = tokio::select! {
        waited = turn::wait(&puppet.run_lock, patience, &mut output) => waited,
        _ = stop.recv() => return Some(stopped()),
    };
    match waited {
        Ok(()) => disabled_reason(&puppet.disabled_lock).and_then(not_run),
        Err(other) => {
            let waited = duration::format(patience);
            not_run(format!("a run of puppet agent (process {other}) was still in progress after {waited}"))
        }
    }
}

fn open_output(paths: &RunPaths) -> std::io::Result<File> {
    File::options().create(true).append(true).mode(0o600).open(paths.output())
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
    ByItself(ExitStatus),
    TimedOut,
    Stopped,
    Lost(std::io::Error),
}

async fn watch(child: &mut Child, limit: &mut TimeLimit, output: &Path) -> Ended {
    let Ok(mut stop) = signal(SignalKind::terminate()) else {
        return Ended::Lost(std::io::Error::other("cannot listen for signals"));
    };
    let mut checks = tokio::time::interval(OUTPUT_CHECK);
    let ended = loop {
        tokio::select! {
            status = child.wait() => {
                return match status {
                    Ok(status) => { bound_output(output); Ended::ByItself(status) }
                    Err(error) => Ended::Lost(error),
                };
            }
            () = limit.is_over() => break Ended::TimedOut,
            _ = stop.recv() => break Ended::Stopped,
            _ = checks.tick() => bound_output(output),
        }
    };
    process_tree::end(child).await;
    bound_output(output);
    ended
}

fn exit(status: ExitStatus) -> Exit {
    match status.code() {
        Some(code) => Exit::Code(code),
        None => Exit::Signal(status.signal().unwrap_or_default()),
    }
}

/// Keeps the newest output when there is too much of it. The run appends meanwhile: output that it writes between the
/// reading and the truncation here is lost too, which the note in the file says.
fn bound_output(path: &Path) {
    if let Err(error) = try_bound_output(path) {
        tracing::warn!(path = %path.display(), %error, "cannot bound the run's output");
    }
}

fn try_bound_output(path: &Path) -> std::io::Result<()> {
    let length = fs::metadata(path)?.len();
    if length <= MAX_OUTPUT_BYTES {
        return Ok(());
    }
    let mut file = File::options().read(true).append(true).open(path)?;
    file.seek(SeekFrom::Start(length - OUTPUT_KEEP))?;
    let mut tail = Vec::new();
    (&mut file).take(OUTPUT_KEEP).read_to_end(&mut tail)?;
    file.set_len(0)?;
    let note = format!(
        "[about {} bytes of output were dropped here: only the newest are kept]\n",
        length - OUTPUT_KEEP
    );
    file.write_all(note.as_bytes())?;
    file.write_all(&tail)
}
