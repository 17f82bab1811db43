//! Reads the process table of this machine from `/proc`.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::{Pid, getpid};

/// A process as the kernel describes it.
pub(crate) struct ProcStat {
    /// It is a zombie, or about to be gone.
    pub(crate) has_ended: bool,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    /// In kernel ticks since boot. Together with the pid it identifies the process uniquely.
    pub(crate) started: u64,
}

/// Reads the process table of this machine, by pid.
pub(crate) fn process_table() -> BTreeMap<i32, ProcStat> {
    let processes = fs::read_dir("/proc").into_iter().flatten();
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    ids.filter_map(|process| Some((process, kin_of(process)?))).collect()
}

/// Returns the description of a process, or `None` if there is no such process or it is not shown.
pub(crate) fn kin_of(process: i32) -> Option<ProcStat> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The program's name, in parentheses, may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Numbered as in proc_pid_stat(5); the two fields before `rest` are missing here.
    let field = |number: usize| fields.get(number - 3).copied();
    Some(ProcStat {
        has_ended: matches!(field(3)?, "Z" | "X" | "x"),
        parent: field(4)?.parse().ok()?,
        group: field(5)?.parse().ok()?,
        started: field(22)?.parse().ok()?,
    })
}

/// Whether this system shows its processes in `/proc`, without which a run's processes cannot be found.
pub(crate) fn is_readable() -> bool {
    kin_of(getpid().as_raw_nonzero().get()).is_some()
}

/// Whether the processes in `/proc` have the numbers that this process knows them by. In a namespace of processes that has
/// not mounted its own `/proc`, they are another namespace's.
pub(crate) fn is_own() -> bool {
    let own = getpid().as_raw_nonzero().to_string();
    fs::read_link("/proc/self").is_ok_and(|link| link.to_str() == Some(own.as_str()))
}

/// Returns the children of a process, as far as the process table shows them.
pub(crate) fn children_of(process: Pid) -> Vec<Pid> {
    let parent = process.as_raw_nonzero().get();
    let children = process_table().into_iter().filter(|(_, kin)| kin.parent == parent);
    children.filter_map(|(child, _)| Pid::from_raw(child)).collect()
}
