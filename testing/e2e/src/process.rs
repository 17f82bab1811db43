//! Processes that a test starts, signals and ends.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::polling::eventually;

/// The number of log lines that an error message quotes.
const LINES_OF_A_COMPLAINT: usize = 12;

/// A process of the test, which is killed and reaped when it is dropped. Its output goes to a file.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command. `package` is the Debian package to name if its program is missing.
    pub fn start(command: &mut Command, log: &Path, package: &str) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("a log file");
        let output = file.try_clone().expect("a log file");
        let spawned = command.stdin(Stdio::null()).stdout(output).stderr(file).spawn();
        let child = spawned.unwrap_or_else(|error| panic!("{}", explain(command, package, &error)));
        Self { child, log: log.to_owned() }
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns its output so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Returns the last lines of its output, for an error message.
    pub fn latest_log(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES_OF_A_COMPLAINT)..].join("\n")
    }

    /// Returns its exit code once it has ended (a signal as its negative number); `None` while it is alive.
    pub fn exit(&mut self) -> Option<i32> {
        let status = self.child.try_wait().expect("the state of a child")?;
        Some(status.code().unwrap_or_else(|| -status.signal().unwrap_or_default()))
    }

    /// Waits until it ends by itself, and returns its exit code.
    pub fn wait(&mut self) -> i32 {
        let pid = self.pid();
        eventually(&format!("the end of process {pid}"), || self.exit().ok_or_else(|| "it lives".to_owned()))
    }

    /// Sends SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child to kill");
        self.child.wait().expect("a child to reap");
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGHUP, on which it reads its configuration again.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Makes it silent: its connections stay open, but it does not answer. Returns once it has stopped: until then
    /// one of its threads may still answer a client.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let pid = self.pid();
        eventually(&format!("process {pid} standing still"), || {
            if is_stopped(pid) || !is_alive(pid) { Ok(()) } else { Err("it goes on".to_owned()) }
        });
    }

    /// Lets it go on after [`Self::pause`].
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("a child to signal");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns whether a process is alive; a zombie is not.
pub fn is_alive(pid: u32) -> bool {
    !matches!(state_of(pid), None | Some('Z' | 'X'))
}

/// Returns whether a process has stopped after [`stop`].
pub fn is_stopped(pid: u32) -> bool {
    state_of(pid) == Some('T')
}

fn state_of(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next())
}

/// Sends SIGSTOP by process id: the process stops a moment later.
pub fn stop(pid: u32) {
    signal(pid, Signal::STOP);
}

/// Returns the process that started a process, or adopted it.
pub fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Sends SIGKILL by process id; a process that is already gone is no failure.
pub fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

/// Sends SIGTERM by process id; the process may handle it as it likes.
pub fn signal_to_end(pid: u32) {
    signal(pid, Signal::TERM);
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Sends SIGCONT by process id.
pub fn go_on(pid: u32) {
    signal(pid, Signal::CONT);
}

/// Ends every process that was started for `directory` and is still alive. Runs outlive their agents, so they are
/// found by the directory that their command line or their environment names. Returns their number.
pub fn end_all_of(directory: &Path) -> usize {
    let directory = directory.to_string_lossy();
    let mentions = |file: PathBuf| {
        fs::read(file).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(directory.as_ref()))
    };
    let processes = fs::read_dir("/proc").expect("/proc");
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let belongs = |pid: &u32| {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        *pid != std::process::id() && (mentions(proc.join("cmdline")) || mentions(proc.join("environ")))
    };
    ids.filter(belongs).map(kill).count()
}

/// Explains why a command did not start.
pub(crate) fn explain(command: &Command, package: &str, error: &std::io::Error) -> String {
    let program = command.get_program().to_string_lossy();
    if error.kind() == ErrorKind::NotFound {
        return format!("this test needs the program '{program}': apt-get install {package}");
    }
    format!("cannot start {program}: {error}")
}
