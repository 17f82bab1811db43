//! Ends a run early, with every process that still descends from it.
//!
//! Puppet gives each `exec` a session of its own, which a signal to the run's process group does not reach. These
//! processes are found in the process table as descendants of the run's leader. A daemon is not among them, because it
//! has detached from its parents: a service that a run has just started must survive the run's timeout.
//!
//! Processes are held by process descriptors. Where the system has none (an old kernel, or a sandbox that forbids
//! `pidfd_open`), they are known by their number and their start time, which are compared before every signal. A process
//! that ends, and whose number is given to another one, between that comparison and the signal could then be mistaken
//! for it; never so the run's first process, which is reaped last.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open, pidfd_send_signal,
};
use tokio::process::Child;

use crate::process_table::{self, ProcStat, kin_of, process_table};

/// The time between TERM and KILL.
const GRACE: Duration = Duration::from_secs(10);
/// How often it is checked whether all processes have ended.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How often the process table is scanned at most before KILL. Each scan finds fewer new processes, unless they fork
/// faster than they can be stopped.
const LOOKS: usize = 16;
/// How many parents are followed. The table changes meanwhile, so that a pid may come back as its own ancestor.
const MAX_DEPTH: usize = 64;

/// Sends TERM, then KILL. The run's leader is reaped last, so that the system cannot reuse its pid before.
pub(crate) async fn end(child: &mut Child) {
    if let Some(process) = child.id() {
        match Leader::of(process) {
            Some(leader) => end_all_of(leader, GRACE).await,
            None => end_group_of(process, child).await,
        }
    }
    let _ = child.wait().await;
}

/// Ends the process group of a run where the process table cannot be read. The run's first process is the group's, and
/// as it is not reaped yet, its number is no other's.
async fn end_group_of(process: u32, child: &mut Child) {
    let Some(group) = i32::try_from(process).ok().and_then(Pid::from_raw) else { return };
    tracing::error!(
        process,
        "/proc does not show this process: ending the run's process group only, without its sessions"
    );
    let _ = kill_process_group(group, Signal::TERM);
    let _ = tokio::time::timeout(GRACE, child.wait()).await;
    let _ = kill_process_group(group, Signal::KILL);
}

/// The same for a run whose supervisor is dead. Its leader is the process that the supervisor noted; a supervisor
/// that was killed between the start and the note leaves none, and the leader is the oldest process that writes to
/// the run's output. A daemon that the run started may write to it too, but is younger.
pub(crate) async fn end_orphan(noted: Option<&str>, output: &Path) {
    let noted = noted.filter(|_| process_table::is_own());
    let leader = match noted.and_then(Leader::from_note) {
        Some(noted) => noted.is_there().then_some(noted),
        None => oldest_writer(output),
    };
    match leader {
        Some(leader) => {
            tracing::warn!(process = leader.process, "a run without a supervisor takes too long: ending it");
            end_all_of(leader, GRACE).await;
        }
        // Its first process has ended. A daemon that it left behind may go on.
        None if noted.and_then(Leader::from_note).is_some() => {}
        None => {
            tracing::error!(
                output = %output.display(),
                "a run without a supervisor takes too long, and its first process cannot be found: end it by hand"
            );
        }
    }
}

/// Returns a supervisor's note of its run's first process, for [`end_orphan`].
pub(crate) fn note_of(process: u32) -> Option<String> {
    Leader::of(process).map(|leader| format!("{} {}\n", leader.process, leader.started))
}

/// Whether a process is the run's first process or descends from it, as Puppet does behind `timeout` or `sudo`.
pub(crate) fn descends_from(process: u32, run: u32) -> bool {
    let parent = |process: &u32| {
        let parent = kin_of(i32::try_from(*process).ok()?)?.parent;
        u32::try_from(parent).ok().filter(|parent| *parent != 0)
    };
    std::iter::successors(Some(process), parent).take(MAX_DEPTH).any(|ancestor| ancestor == run)
}

/// The oldest process that has `file` open for writing, except this one.
fn oldest_writer(file: &Path) -> Option<Leader> {
    let file = fs::metadata(file).ok()?;
    let is_same = |other: &fs::Metadata| other.dev() == file.dev() && other.ino() == file.ino();
    let writes = |process: &Path, descriptor: &std::ffi::OsStr| {
        fs::metadata(process.join("fd").join(descriptor)).is_ok_and(|other| is_same(&other))
            && fs::read_to_string(process.join("fdinfo").join(descriptor))
                .is_ok_and(|text| is_writable(&text))
    };
    let leader = |process: fs::DirEntry| {
        let number =
            process.file_name().to_str()?.parse().ok().filter(|number| *number != std::process::id())?;
        let mut descriptors = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        let is_writer = descriptors.any(|descriptor| writes(&process.path(), &descriptor.file_name()));
        is_writer.then(|| Leader::of(number)).flatten()
    };
    fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(leader)
        .min_by_key(|leader| (leader.started, leader.process))
}

/// Whether the kernel's description of an open file has one of the access modes that permit writing.
fn is_writable(fdinfo: &str) -> bool {
    let flags = fdinfo.lines().find_map(|line| line.strip_prefix("flags:"));
    flags.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok()).is_some_and(|flags| flags & 0o3 != 0)
}

/// A run's first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Leader {
    process: i32,
    /// The start time in kernel ticks since boot. Together with the pid it identifies the process uniquely.
    started: u64,
}

impl Leader {
    fn of(process: u32) -> Option<Self> {
        let process = i32::try_from(process).ok().filter(|_| process_table::is_own())?;
        Some(Self { process, started: kin_of(process)?.started })
    }

    fn from_note(text: &str) -> Option<Self> {
        let (process, started) = text.trim().split_once(' ')?;
        Some(Self { process: process.parse().ok()?, started: started.parse().ok()? })
    }

    /// Returns whether the process is alive, or a zombie, so that its pid has not been reused.
    fn is_there(self) -> bool {
        kin_of(self.process).is_some_and(|kin| kin.started == self.started)
    }
}

async fn end_all_of(leader: Leader, grace: Duration) {
    let mut run = Members { leader, held: BTreeMap::new() };
    run.look();
    run.signal(Signal::TERM);
    if tokio::time::timeout(grace, run.have_ended()).await.is_err() {
        tracing::warn!(?grace, "the run did not end on TERM");
    }
    // The run may have started more processes meanwhile, for example an `exec` its next step. All are stopped before
    // the last scan, so that none can fork between that scan and KILL.
    run.look();
    for _ in 0..LOOKS {
        run.signal(Signal::STOP);
        if !run.look() {
            break;
        }
    }
    run.signal(Signal::KILL);
}

/// The processes of a run by pid.
struct Members {
    leader: Leader,
    held: BTreeMap<i32, Held>,
}

/// A process that a signal can reach without reaching another one that has been given the same pid.
enum Held {
    /// By a descriptor.
    Descriptor(OwnedFd),
    /// By its start time, where the system has no descriptors of processes.
    StartTime(u64),
}

impl Held {
    fn of(process: i32, found: &ProcStat) -> Option<Self> {
        let held = match pidfd_open(Pid::from_raw(process)?, PidfdFlags::empty()) {
            Ok(descriptor) => Self::Descriptor(descriptor),
            Err(Errno::SRCH) => return None,
            Err(error) => {
                tracing::debug!(process, %error, "no process descriptor: it is known by its start time");
                Self::StartTime(found.started)
            }
        };
        // The pid may have been reused between the scan and the opening of the descriptor.
        let is_the_same = kin_of(process).is_some_and(|kin| kin.started == found.started);
        (is_the_same && held.is_alive(process)).then_some(held)
    }

    /// Returns whether the process is alive: a process descriptor becomes readable when its process has ended.
    fn is_alive(&self, process: i32) -> bool {
        match self {
            Self::Descriptor(descriptor) => {
                let mut watched = [PollFd::new(descriptor, PollFlags::IN)];
                poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(0)
            }
            Self::StartTime(started) => {
                kin_of(process).is_some_and(|kin| kin.started == *started && !kin.has_ended)
            }
        }
    }

    fn signal(&self, process: i32, signal: Signal) {
        let Some(pid) = Pid::from_raw(process) else { return };
        let sent = match self {
            Self::Descriptor(descriptor) => pidfd_send_signal(descriptor, signal),
            Self::StartTime(_) => Err(Errno::NOSYS),
        };
        let sent = match sent {
            // A sandbox may permit to open a descriptor and not to use it.
            Err(Errno::NOSYS | Errno::PERM) if self.is_alive(process) => kill_process(pid, signal),
            Err(Errno::NOSYS | Errno::PERM) => Ok(()),
            other => other,
        };
        if let Err(error) = sent
            && error != Errno::SRCH
        {
            tracing::warn!(process, ?signal, %error, "cannot signal a process of the run");
        }
    }
}

impl Members {
    /// Rescans the process table for descendants of the leader and of every live member, because orphans are
    /// re-parented. Returns whether any new process was found.
    fn look(&mut self) -> bool {
        self.held.retain(|process, held| held.is_alive(*process));
        let table = process_table();
        let mut found: Vec<i32> = self.held.keys().copied().collect();
        let leader = self.leader;
        if table.get(&leader.process).is_some_and(|kin| kin.started == leader.started) {
            let in_group = table.iter().filter(|(_, kin)| kin.group == leader.process);
            found.extend(in_group.map(|(process, _)| *process).chain([leader.process]));
        }
        let mut next = 0;
        while let Some(parent) = found.get(next).copied() {
            found.extend(table.iter().filter(|(_, kin)| kin.parent == parent).map(|(process, _)| *process));
            next += 1;
        }
        let known = self.held.len();
        for process in found {
            if !self.held.contains_key(&process)
                && let Some(held) = table.get(&process).and_then(|kin| Held::of(process, kin))
            {
                self.held.insert(process, held);
            }
        }
        self.held.len() > known
    }

    /// Sends one signal to each process. A second TERM would make Puppet exit without removing its lock.
    fn signal(&self, signal: Signal) {
        // The leader gets it first: Puppet must not take the end of an `exec` for its result and continue.
        let leader = self.held.get_key_value(&self.leader.process);
        let others = self.held.iter().filter(|(process, _)| **process != self.leader.process);
        for (process, held) in leader.into_iter().chain(others) {
            held.signal(*process, signal);
        }
    }

    async fn have_ended(&self) {
        while self.held.iter().any(|(process, held)| held.is_alive(*process)) {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use tokio::process::Command;

    /// A shell in a group of its own, as runs are.
    fn shell(dir: &Path, script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(dir).process_group(0).kill_on_drop(true).spawn().unwrap()
    }

    /// Returns the process that has written its pid to a file.
    async fn process_in(file: &Path) -> i32 {
        for _ in 0..500 {
            if let Ok(text) = fs::read_to_string(file)
                && let Some(number) = text.strip_suffix('\n')
            {
                return number.parse().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no process wrote {}", file.display());
    }

    fn lives(process: i32) -> bool {
        kin_of(process).and_then(|kin| Held::of(process, &kin)).is_some()
    }

    async fn check_gone(process: i32) {
        for _ in 0..250 {
            if !lives(process) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("process {process} still lives");
    }

    #[tokio::test]
    async fn what_an_exec_starts_after_it_was_asked_to_end_ends_too() {
        const NEXT: &str = r#"sh -c "echo \$\$ >next; trap '' TERM; while :; do sleep 0.1; done""#;
        let dir = tempfile::tempdir().unwrap();
        // Puppet starts an `exec` in a session of its own. The leader ends at once and orphans it.
        let exec = format!(
            "echo \\$\\$ >exec; trap : TERM; sleep 1000; {}",
            NEXT.replace('\\', r"\\\").replace('"', r#"\""#)
        );
        let mut run = shell(dir.path(), &format!("setsid sh -c \"{exec}\" & wait"));
        let exec = process_in(&dir.path().join("exec")).await;
        let leader = Leader::of(run.id().unwrap()).unwrap();
        end_all_of(leader, Duration::from_millis(700)).await;
        assert!(!run.wait().await.unwrap().success());
        let next = process_in(&dir.path().join("next")).await;
        check_gone(exec).await;
        check_gone(next).await;
    }

    /// Forbids system calls to this thread and its children, as an old kernel or a sandbox does.
    fn forbid(calls: &[libc::c_long], error: Errno) {
        use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};
        let rules = calls.iter().map(|call| (*call, Vec::new())).collect();
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let refuse = SeccompAction::Errno(error.raw_os_error().unsigned_abs());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).unwrap();
        apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
    }

    /// A run that ignores TERM ends with its exec of another session, although these system calls fail.
    async fn check_ends_without(calls: &[libc::c_long], error: Errno) {
        forbid(calls, error);
        let dir = tempfile::tempdir().unwrap();
        let script = "trap '' TERM; setsid sh -c 'echo $$ >exec; sleep 1000; sleep 1000' & while :; do sleep 0.1; done";
        let mut run = shell(dir.path(), script);
        let exec = process_in(&dir.path().join("exec")).await;
        let leader = Leader::of(run.id().unwrap()).unwrap();
        end_all_of(leader, Duration::from_millis(300)).await;
        let status = tokio::time::timeout(Duration::from_secs(10), run.wait()).await;
        assert!(!status.expect("the run goes on").unwrap().success());
        check_gone(exec).await;
    }

    #[tokio::test]
    async fn a_run_ends_where_the_kernel_knows_no_process_descriptors() {
        check_ends_without(&[libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal], Errno::NOSYS).await;
    }

    #[tokio::test]
    async fn a_run_ends_where_a_sandbox_forbids_process_descriptors() {
        check_ends_without(&[libc::SYS_pidfd_open], Errno::PERM).await;
    }

    #[tokio::test]
    async fn a_run_ends_where_a_sandbox_forbids_signals_by_descriptor() {
        check_ends_without(&[libc::SYS_pidfd_send_signal], Errno::PERM).await;
    }

    #[tokio::test]
    async fn a_run_whose_processes_are_not_shown_ends_with_its_group() {
        let dir = tempfile::tempdir().unwrap();
        let mut run = shell(dir.path(), "sleep 1000 & echo $! >child; wait; wait");
        let child = process_in(&dir.path().join("child")).await;
        end_group_of(run.id().unwrap(), &mut run).await;
        assert!(!run.wait().await.unwrap().success());
        check_gone(child).await;
    }

    /// Proves C10.
    #[tokio::test]
    async fn a_run_without_a_supervisor_is_ended_as_far_as_it_is_the_one_that_was_noted() {
        let dir = tempfile::tempdir().unwrap();
        let run = shell(dir.path(), "echo $$ >run; setsid sh -c 'echo $$ >exec; sleep 1000' & wait");
        let (leader, exec) =
            (process_in(&dir.path().join("run")).await, process_in(&dir.path().join("exec")).await);
        let noted = note_of(run.id().unwrap()).unwrap();
        let (_, started) = noted.trim().split_once(' ').unwrap();
        let output = dir.path().join("output");
        for another in [format!("{leader} {}\n", started.parse::<u64>().unwrap() + 1), String::new()] {
            end_orphan(Some(&another), &output).await;
            assert!(lives(leader) && lives(exec), "{another:?} is another process");
        }
        end_orphan(Some(&noted), &output).await;
        check_gone(leader).await;
        check_gone(exec).await;
        drop(run);
    }

    /// Proves C5.
    #[tokio::test]
    async fn a_run_whose_supervisor_noted_no_process_is_ended_by_its_output_and_a_reader_of_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("output");
        let run =
            shell(dir.path(), "exec >>output; echo $$ >run; setsid sh -c 'echo $$ >exec; sleep 1000' & wait");
        let (leader, exec) =
            (process_in(&dir.path().join("run")).await, process_in(&dir.path().join("exec")).await);
        let mut reader = shell(dir.path(), "exec <output >/dev/null; echo $$ >reader; exec sleep 1000");
        let reads = process_in(&dir.path().join("reader")).await;
        end_orphan(Some(""), &output).await;
        check_gone(leader).await;
        check_gone(exec).await;
        end_orphan(None, &output).await;
        assert!(lives(reads), "it only reads");
        reader.kill().await.unwrap();
        drop(run);
    }

    #[test]
    fn a_note_or_a_description_of_a_file_that_is_damaged_names_nothing() {
        assert_eq!(Leader::from_note("12 34\n"), Some(Leader { process: 12, started: 34 }));
        for damaged in
            ["", "\n", "12", "12 ", "12  34", "12 34 56", "12 -34", "99999999999 1", "x y", "\0\0\0 \0"]
        {
            assert_eq!(Leader::from_note(damaged), None, "{damaged:?}");
        }
        for (fdinfo, expected) in [
            ("pos:\t0\nflags:\t0100001\nmnt_id:\t29\n", true),
            ("pos:\t0\nflags:\t02100002\n", true),
            ("pos:\t0\nflags:\t0100000\n", false),
            ("flags:\t", false),
            ("flags:\t0100009", false),
            ("flags:\t99999999999999999999", false),
            ("", false),
        ] {
            assert_eq!(is_writable(fdinfo), expected, "{fdinfo:?}");
        }
    }
}
