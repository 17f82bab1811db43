//! Processes that a test starts, signals and ends.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::polling::eventually;

/// Lines of a log that a complaint quotes.
const LINES_OF_A_COMPLAINT: usize = 12;

/// A process of ours; killed and reaped when dropped. What it prints goes to a file.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command. `package` is the Debian package to name where its program is missing.
    pub fn start(command: &mut Command, log: &Path, package: &str) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("a log file");
        let output = file.try_clone().expect("a log file");
        let spawned = command.stdin(Stdio::null()).stdout(output).stderr(file).spawn();
        let child = spawned.unwrap_or_else(|error| panic!("{}", explain(command, package, &error)));
        Self { child, log: log.to_owned() }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last of what it printed, for a complaint.
    pub fn latest_log(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES_OF_A_COMPLAINT)..].join("\n")
    }

    /// Its exit code once it has ended (a signal as its negative number); nothing while it lives.
    pub fn exit(&mut self) -> Option<i32> {
        let status = self.child.try_wait().expect("the state of a child")?;
        Some(status.code().unwrap_or_else(|| -status.signal().unwrap_or_default()))
    }

    /// Waits for its end by itself; its exit code.
    pub fn wait(&mut self) -> i32 {
        let pid = self.pid();
        eventually(&format!("the end of process {pid}"), || self.exit().ok_or_else(|| "it lives".to_owned()))
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child to kill");
        self.child.wait().expect("a child to reap");
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Asks it to read its configuration again.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Makes it silent: its connections stay open, nothing answers. Returns once it stands still: until then a
    /// thread of it may still answer a client.
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

/// Whether a process lives; a zombie does not.
pub fn is_alive(pid: u32) -> bool {
    !matches!(state_of(pid), None | Some('Z' | 'X'))
}

/// Whether a process stands still after [`stop`].
pub fn is_stopped(pid: u32) -> bool {
    state_of(pid) == Some('T')
}

fn state_of(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next())
}

/// SIGSTOP by process id: the process stands still a moment later.
pub fn stop(pid: u32) {
    signal(pid, Signal::STOP);
}

/// The process that started it, or took it over.
pub fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// `kill -9` by process id; one that is gone already is no failure.
pub fn kill(pid: u32) {
    signal(pid, Signal::KILL);
}

/// The same with TERM, which a process may answer as it likes.
pub fn signal_to_end(pid: u32) {
    signal(pid, Signal::TERM);
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// SIGCONT by process id.
pub fn go_on(pid: u32) {
    signal(pid, Signal::CONT);
}

/// Ends what still lives of what was started for `directory`: runs outlive their agents, so they are found by
/// the directory that their command line or their environment names. Returns how many there were.
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

/// Why a command did not start.
pub(crate) fn explain(command: &Command, package: &str, error: &std::io::Error) -> String {
    let program = command.get_program().to_string_lossy();
    if error.kind() == ErrorKind::NotFound {
        return format!("this test needs the program '{program}': apt-get install {package}");
    }
    format!("cannot start {program}: {error}")
}
