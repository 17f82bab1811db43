//! Processes that end with the bench, found only by their ids.

use std::fs::{read_dir, read_to_string};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::time::{ClockId, clock_gettime};

use crate::gate::gate;

/// A process in a group of its own, which is killed when this is dropped.
pub(crate) struct Background {
    child: Child,
}

impl Background {
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        Ok(Self { child: spawn(&mut command)? })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // The process is not reaped yet, so the group's id is still its own.
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// Starts a process in a group of its own, unless the bench is being ended.
pub(crate) fn spawn(command: &mut Command) -> Result<Child> {
    let _gate = gate();
    let child = command.stdin(Stdio::null()).process_group(0).spawn();
    child.with_context(|| format!("cannot start {}", name(command)))
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// Fails unless the program is there, naming the Debian package that has it.
pub(crate) fn require(program: &str, package: &str) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .any(|file: PathBuf| file.is_file());
    if !found {
        bail!("'{program}' is missing: install the package {package}");
    }
    Ok(())
}

/// Runs a command to its end; fails unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<Output> {
    let output = output(command)?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&said).trim());
    }
    Ok(output)
}

/// Runs a command to its end, whether it succeeds or not.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    let child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    child.wait_with_output().with_context(|| format!("cannot read what {} says", name(command)))
}

/// Waits until `ready` returns true, polling every few milliseconds.
pub(crate) fn wait_for(what: &str, patience: Duration, ready: impl FnMut() -> bool) -> Result<()> {
    if !happens_within(patience, ready) {
        bail!("{what} did not happen within {} s", patience.as_secs());
    }
    Ok(())
}

/// Waits in the same way and returns whether `ready` returned true in time.
pub(crate) fn happens_within(patience: Duration, mut ready: impl FnMut() -> bool) -> bool {
    const POLL_INTERVAL: Duration = Duration::from_millis(5);
    let started = Instant::now();
    while !ready() {
        if started.elapsed() > patience {
            return false;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    true
}

/// Returns the time, in nanoseconds of the monotonic clock, which all processes share and which the stamps use.
pub(crate) fn now() -> u128 {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default().as_nanos()
}

/// Returns the processor time that a process has used, in user and kernel mode.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let fields = fields(pid)?;
    // These are the fields 14 and 15 of the whole line, in ticks.
    let ticks: u64 = fields.iter().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Returns how many files a process has open.
pub(crate) fn open_files(pid: u32) -> Result<usize> {
    let path = format!("/proc/{pid}/fd");
    Ok(read_dir(&path).with_context(|| format!("cannot read {path}"))?.count())
}

/// Returns the kernel's fields about a process from its state on: the name before that may hold blanks.
fn fields(pid: u32) -> Result<Vec<String>> {
    let path = format!("/proc/{pid}/stat");
    let text = read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let fields = text.rsplit_once(") ").map_or("", |(_, fields)| fields);
    Ok(fields.split(' ').map(str::to_owned).collect())
}

/// Returns the live processes that this one started or adopted.
pub(crate) fn living_children(pid: u32) -> Vec<u32> {
    let threads = read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| read_to_string(thread.path().join("children")).ok());
    let children: Vec<u32> = lists.flat_map(|list| numbers(&list)).collect();
    children.into_iter().filter(|pid| is_living(*pid)).collect()
}

fn numbers(list: &str) -> Vec<u32> {
    list.split_whitespace().filter_map(|number| number.parse().ok()).collect()
}

/// Returns whether a process is alive; one that has ended but was not reaped is not.
fn is_living(pid: u32) -> bool {
    fields(pid).is_ok_and(|fields| fields.first().is_some_and(|state| state != "Z"))
}
