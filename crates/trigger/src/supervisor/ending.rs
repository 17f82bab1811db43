//! Ends a run before its time, with all that it started and has not let go of.
//!
//! Puppet gives each `exec` a session of its own, which no signal to the run's process group reaches: those
//! are found as children of its children. A daemon is not among them, for it has let go of its parents: that
//! a run takes too long is no reason to stop the service it has just started.

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, pidfd_send_signal, waitid,
};
use tokio::process::Child;

/// Between TERM and KILL.
const GRACE: Duration = Duration::from_secs(10);
/// How often it is looked whether all have ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A process of the run.
struct Member {
    /// Held by a descriptor, so that it cannot become another under its number.
    held: OwnedFd,
    /// Whether a signal to the run's process group reaches it.
    is_in_group: bool,
}

/// TERM, then KILL. The run's leader is not reaped before the last signal, so that its group's number cannot
/// have become another's.
pub(super) async fn end(child: &mut Child) {
    let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(leader) = leader {
        let mut members = members_of(leader);
        signal_all(leader, &members, Signal::TERM);
        if tokio::time::timeout(GRACE, all_have_ended(leader, &members)).await.is_err() {
            tracing::warn!("the run did not end on TERM within {GRACE:?}");
        }
        // It may have started more meanwhile.
        members.extend(members_of(leader));
        signal_all(leader, &members, Signal::KILL);
    }
    let _ = child.wait().await;
}

/// One signal to each: at a second TERM Puppet would leave without removing its lock.
fn signal_all(leader: Pid, members: &[Member], signal: Signal) {
    // The group first: Puppet must not take the end of an `exec` for its result and go on.
    let _ = kill_process_group(leader, signal);
    for member in members.iter().filter(|member| !member.is_in_group) {
        let _ = pidfd_send_signal(&member.held, signal);
    }
}

async fn all_have_ended(leader: Pid, members: &[Member]) {
    while !has_exited(leader) || members.iter().any(is_alive) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Looks without reaping.
fn has_exited(leader: Pid) -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::Pid(leader), look), Ok(None))
}

/// A process descriptor can be read from when its process has ended, reaped or not.
fn is_alive(member: &Member) -> bool {
    let mut watched = [PollFd::new(&member.held, PollFlags::IN)];
    poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(0)
}

/// The process and all below it.
fn members_of(leader: Pid) -> Vec<Member> {
    let family = family();
    let leader = leader.as_raw_nonzero().get();
    let mut found = vec![leader];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(family.iter().filter(|(_, kin)| kin.parent == parent).map(|(process, _)| *process));
        next += 1;
    }
    let hold = |process: i32| {
        let held = pidfd_open(Pid::from_raw(process)?, PidfdFlags::empty()).ok()?;
        // Still the one that was found, now that it is held?
        let kin = kin_of(process).filter(|kin| family.get(&process) == Some(kin))?;
        Some(Member { held, is_in_group: kin.group == leader })
    };
    found.into_iter().filter_map(hold).collect()
}

#[derive(PartialEq, Eq)]
struct Kin {
    parent: i32,
    group: i32,
}

/// Every process on this machine.
fn family() -> HashMap<i32, Kin> {
    let processes = fs::read_dir("/proc").into_iter().flatten();
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    ids.filter_map(|process| Some((process, kin_of(process)?))).collect()
}

fn kin_of(process: i32) -> Option<Kin> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The program's name, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(1).map(str::parse);
    Some(Kin { parent: fields.next()?.ok()?, group: fields.next()?.ok()? })
}
