//! The whole simulated world: the time, the machines with their processes and disks, the backend, and the checker's
//! knowledge of the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use trigger_core::identity::{Certname, GroupName, RunId};
use trigger_core::keyspace::Keyspace;
use trigger_core::publication::Publication;
use trigger_core::time::Timestamp;
use trigger_fleet::claim::ClaimState;
use trigger_node::agent::{Signal, Stopped};
use trigger_node::fire_error::FireError;
use trigger_node::firing::FireReport;
use uuid::Uuid;

use crate::checker::Checker;
use crate::disk::{Disk, Inode};
use crate::file_lock::Lock;
use crate::mail::Mail;
use crate::manifest::Rule;
use crate::plan::Plan;
use crate::server::Server;
use crate::state_files::noted_fires;
use crate::tasks::{NewTask, ProcessId};
use crate::timers::Timers;
use crate::trace::Trace;

/// The true time at which the simulation begins.
pub(crate) const BEGIN: Timestamp = Timestamp::from_unix_ms(1_763_812_800_000);
/// The number of steps after which a seed counts as an endless loop.
const MAX_STEPS: u64 = 3_000_000;

/// The kind of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Agent,
    Supervisor(RunId),
    Puppet(RunId),
    Fire,
    /// The operators and the faults.
    Director,
}

pub(crate) struct Process {
    pub(crate) machine: usize,
    pub(crate) kind: Kind,
    waiting_for_exit: Vec<Waker>,
}

/// The channel by which other processes reach the agent.
pub(crate) struct Socket {
    pub(crate) agent: ProcessId,
    pub(crate) fires: mpsc::UnboundedSender<Ask>,
    pub(crate) signals: mpsc::Sender<Signal>,
    /// The state of the claim as the agent sees it.
    pub(crate) claim: watch::Receiver<ClaimState>,
}

/// An event to fire, with the channel for the answer.
pub(crate) struct Ask {
    pub(crate) publication: Publication,
    pub(crate) ignores_pause: bool,
    pub(crate) answer: oneshot::Sender<Result<FireReport, FireError>>,
}

/// A machine with its disk.
pub(crate) struct Machine {
    pub(crate) certname: Certname,
    pub(crate) groups: Vec<GroupName>,
    pub(crate) disk: Disk,
    /// The directory's own lock file on its disk, which a copy of the directory does not share.
    pub(crate) identity: u32,
    /// The kernel's boot id; no two are the same.
    pub(crate) boot: u32,
    pub(crate) is_on: bool,
    /// Whether the machine was thrown away: nothing that lay on it counts any more.
    pub(crate) is_gone: bool,
    pub(crate) off_until: Duration,
    pub(crate) is_cut_off: bool,
    /// The number of milliseconds by which the wall clock is ahead.
    pub(crate) clock_ahead: i64,
    /// Whether the wall clock was ever off by years.
    pub(crate) was_wild: bool,
    /// Whether Puppet's disabled lock is set.
    pub(crate) is_disabled: bool,
    pub(crate) runs_puppet: bool,
    pub(crate) manifest: Vec<Rule>,
    pub(crate) socket: Option<Socket>,
    /// The instance name of its latest agent.
    pub(crate) instance: String,
    /// The instance name that its next agent finds in its copied memory.
    pub(crate) remembered_instance: Option<String>,
    /// The reason why its agent is to be started again at once, if it is.
    pub(crate) restarts: Option<Stopped>,
    /// Whether the disk has no room.
    pub(crate) is_full: bool,
    pub(crate) locks: BTreeMap<Inode, Vec<Lock>>,
}

/// A violation of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The name of the rule.
    pub invariant: &'static str,
    /// The observation that contradicts it.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.detail)
    }
}

pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) steps: u64,
    pub(crate) rng: fastrand::Rng,
    pub(crate) plan: Plan,
    pub(crate) trace: Trace,
    pub(crate) timers: Timers<World>,
    pub(crate) spawned: Vec<NewTask>,
    pub(crate) newly_dead: BTreeSet<ProcessId>,
    pub(crate) processes: BTreeMap<ProcessId, Process>,
    next_process: u32,
    boots: u32,
    pub(crate) handles: u64,
    pub(crate) machines: Vec<Machine>,
    pub(crate) server: Server,
    pub(crate) mail: Mail,
    /// Whether the current write is a compare-and-swap whose condition held.
    pub(crate) swapping: bool,
    pub(crate) keyspace: Keyspace,
    pub(crate) check: Checker,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    pub(crate) violation: Option<Violation>,
    pub(crate) faults_happen: bool,
    /// Whether operators fire events.
    pub(crate) is_busy: bool,
    pub(crate) director: Option<ProcessId>,
    pub(crate) is_finished: bool,
}

impl World {
    pub(crate) fn new(seed: u64, keeps_trace: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let plan = Plan::draw(&mut rng);
        Self {
            now: Duration::ZERO,
            steps: 0,
            rng,
            plan,
            trace: Trace::new(keeps_trace),
            timers: Timers::default(),
            spawned: Vec::new(),
            newly_dead: BTreeSet::new(),
            processes: BTreeMap::new(),
            next_process: 0,
            boots: 0,
            handles: 0,
            machines: Vec::new(),
            server: Server::default(),
            mail: Mail::default(),
            swapping: false,
            director: None,
            is_busy: true,
            keyspace: Keyspace::default(),
            check: Checker::default(),
            counts: BTreeMap::new(),
            violation: None,
            faults_happen: true,
            is_finished: false,
        }
    }

    pub(crate) fn is_over(&mut self) -> bool {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            self.violate("it comes to rest", format!("still busy after {MAX_STEPS} steps"));
        }
        self.is_finished || self.violation.is_some()
    }

    /// Writes a line of the trace.
    pub(crate) fn note(&mut self, what: fmt::Arguments<'_>) {
        self.trace.note(self.now, what);
    }

    /// Counts an event of this kind.
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Counts and traces a fault of this kind.
    pub(crate) fn fault(&mut self, what: &'static str, where_to: fmt::Arguments<'_>) {
        self.count(what);
        self.note(format_args!("FAULT {what}: {where_to}"));
    }

    /// Records a violation of a rule. Only the first one is kept.
    pub(crate) fn violate(&mut self, invariant: &'static str, detail: String) {
        self.note(format_args!("VIOLATED {invariant}: {detail}"));
        self.violation.get_or_insert(Violation { invariant, detail });
    }

    /// Draws whether something of this chance happens; never once faults are over.
    pub(crate) fn strikes(&mut self, chance: f64) -> bool {
        self.faults_happen && chance > 0.0 && self.rng.f64() < chance
    }

    /// Returns the true time.
    pub(crate) fn true_time(&self) -> Timestamp {
        BEGIN.plus(self.now)
    }

    /// Returns the time of a machine's wall clock.
    pub(crate) fn wall(&self, machine: usize) -> Timestamp {
        let truth = self.true_time().as_unix_ms();
        Timestamp::from_unix_ms(truth.saturating_add_signed(self.machines[machine].clock_ahead))
    }

    /// Makes a UUIDv7 by a machine's clock.
    pub(crate) fn new_uuid(&mut self, machine: usize) -> Uuid {
        let random = self.rng.u128(..).to_be_bytes();
        let mut bytes = [0; 10];
        bytes.copy_from_slice(&random[..10]);
        uuid::Builder::from_unix_timestamp_millis(self.wall(machine).as_unix_ms(), &bytes).into_uuid()
    }

    pub(crate) fn new_boot(&mut self) -> u32 {
        self.boots += 1;
        self.boots
    }

    pub(crate) fn disk(&mut self, machine: usize) -> &mut Disk {
        self.machines[machine].disk.at(self.now)
    }

    // --- processes

    pub(crate) fn start_process(&mut self, machine: usize, kind: Kind) -> ProcessId {
        self.next_process += 1;
        let id = ProcessId(self.next_process);
        self.processes.insert(id, Process { machine, kind, waiting_for_exit: Vec::new() });
        id
    }

    pub(crate) fn is_alive(&self, process: ProcessId) -> bool {
        self.processes.contains_key(&process)
    }

    pub(crate) fn poll_exit(&mut self, process: ProcessId, waker: &Waker) -> Poll<()> {
        match self.processes.get_mut(&process) {
            Some(process) => {
                process.waiting_for_exit.push(waker.clone());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }

    /// Removes a process that has ended or was killed.
    pub(crate) fn end_process(&mut self, id: ProcessId) {
        let Some(process) = self.processes.remove(&id) else { return };
        self.newly_dead.insert(id);
        let machine = &mut self.machines[process.machine];
        for locks in machine.locks.values_mut() {
            locks.retain(|lock| lock.holder != id);
        }
        machine.locks.retain(|_, locks| !locks.is_empty());
        if machine.socket.as_ref().is_some_and(|socket| socket.agent == id) {
            machine.socket = None;
        }
        self.server.client_gone(id);
        if let Kind::Puppet(run) = process.kind {
            self.check.puppet_gone(run);
        }
        for waker in process.waiting_for_exit {
            waker.wake();
        }
    }

    /// Returns the processes of a machine that are of a kind.
    pub(crate) fn processes_of(&self, machine: usize, is_wanted: impl Fn(Kind) -> bool) -> Vec<ProcessId> {
        let ours = self.processes.iter().filter(|(_, p)| p.machine == machine && is_wanted(p.kind));
        ours.map(|(id, _)| *id).collect()
    }

    /// Takes the power from one machine.
    pub(crate) fn lose_power(&mut self, machine: usize) {
        for process in self.processes_of(machine, |kind| kind != Kind::Director) {
            self.end_process(process);
        }
        let disk = self.machines[machine].disk.at(self.now);
        let noted = noted_fires(disk);
        let lost = disk.lose_power(&mut self.rng);
        let left = noted_fires(disk);
        self.check.forget_fires(machine, &noted, &left);
        // What is left of it is noted again at the next start.
        self.check.holds.remove(&machine);
        self.machines[machine].is_on = false;
        self.machines[machine].remembered_instance = None;
        if lost > 0 {
            self.count("unsynced writes lost");
        }
    }
}
