//! Injects one fault, waits, heals it, and reports what it really hit.

use std::fmt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::fault::{Away, Fault, Victims};
use crate::fleet::{NODES, certname};
use crate::link::Mode;
use crate::load;
use crate::overtaking::overtake;
use crate::processes::{self, Part};
use crate::testbed::Testbed;

/// The interval between two searches for a run to kill.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// The time that a cluster may take to elect a leader.
const LEADER_TIMEOUT: Duration = Duration::from_secs(15);

/// A fault that is about to be injected.
pub(crate) struct Injector<'a> {
    /// The testbed that it is injected into.
    pub(crate) testbed: &'a Testbed,
    /// Its number within its lane, for the names of files.
    pub(crate) number: usize,
    /// Its duration.
    pub(crate) lasting: Duration,
}

/// What the fault hit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Injected {
    /// The node; absent for the backend.
    pub(crate) node: Option<usize>,
    /// Further details for the report.
    said: String,
}

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.node.map(certname);
        let words: Vec<&str> = [node.as_deref(), Some(self.said.as_str())]
            .into_iter()
            .flatten()
            .filter(|w| !w.is_empty())
            .collect();
        if words.is_empty() { Ok(()) } else { write!(f, " ({})", words.join(", ")) }
    }
}

impl Injector<'_> {
    /// Injects the fault. Fails with the reason if there was nothing to inject it into.
    pub(crate) fn perform(&self, fault: Fault) -> Result<Injected, String> {
        let mut said = String::new();
        match fault {
            Fault::KillBackend(victims) => said = self.kill_backend(victims, || self.wait())?.0,
            Fault::PauseBackend(victims) => said = self.pause_backend(victims, || self.wait())?.0,
            Fault::Spool(node, away) => said = self.spool(node, away)?,
            Fault::Restore => said = self.restore()?,
            Fault::Cut(node, mode) => self.cut(node, None, mode),
            Fault::CutMember(node, member, mode) => self.cut(node, Some(member), mode),
            Fault::KillAgent(node) => {
                self.testbed.kill_agent(node);
                self.wait();
                self.testbed.launch_agent(node);
            }
            Fault::RestartAgent(node) => {
                self.testbed.restart_agent(node);
                self.wait();
            }
            Fault::PauseAgent(node) => {
                self.testbed.pause_agent(node)?;
                self.wait();
                self.testbed.agent_goes_on(node);
            }
            Fault::OvertakePaused(node) => self.overtake_paused(node)?,
            Fault::OvertakeFrozen(node) => self.overtake_frozen(node)?,
            Fault::KillSupervisor(node) => return self.kill_a_run(node, Part::Supervisor),
            Fault::KillRun(node) => return self.kill_a_run(node, Part::Run),
            Fault::Crash(node) => {
                self.testbed.kill_agent(node);
                kill_all_of(&self.testbed.directory_of(node));
                self.wait();
                self.testbed.launch_agent(node);
            }
        }
        Ok(Injected { node: fault.node(), said })
    }

    fn wait(&self) {
        sleep(self.lasting);
    }

    fn kill_backend<T>(
        &self,
        victims: Victims,
        meanwhile: impl FnOnce() -> T,
    ) -> Result<(String, T), String> {
        let members = self.members(victims)?;
        self.testbed.backend().kill(&members);
        let done = meanwhile();
        self.testbed.backend().restart(&members);
        Ok((self.testbed.backend().names(&members), done))
    }

    fn pause_backend<T>(
        &self,
        victims: Victims,
        meanwhile: impl FnOnce() -> T,
    ) -> Result<(String, T), String> {
        let members = self.members(victims)?;
        self.testbed.backend().pause(&members);
        let done = meanwhile();
        self.testbed.backend().go_on(&members);
        Ok((self.testbed.backend().names(&members), done))
    }

    /// Returns the members that the fault applies to now: the leader changes, and for a while there may be none.
    fn members(&self, victims: Victims) -> Result<Vec<usize>, String> {
        let began = Instant::now();
        loop {
            let members = self.testbed.backend().members(victims);
            match members {
                Some(members) => return Ok(members),
                None if began.elapsed() > LEADER_TIMEOUT => {
                    return Err("the cluster has no leader".to_owned());
                }
                None => sleep(POLL_INTERVAL),
            }
        }
    }

    /// Fires on one node while the backend is away, which it is until all fires are answered.
    fn spool(&self, node: usize, away: Away) -> Result<String, String> {
        let fires = || {
            let began = Instant::now();
            let count = load::fire_while_away(self.testbed, node);
            sleep(self.lasting.saturating_sub(began.elapsed()));
            count
        };
        let (_, count) = match away {
            Away::Killed => self.kill_backend(Victims::All, fires)?,
            Away::Paused => self.pause_backend(Victims::All, fires)?,
        };
        Ok(format!("{count} fires on {}, {}", certname(node), format!("{away:?}").to_lowercase()))
    }

    fn restore(&self) -> Result<String, String> {
        let backup = self.testbed.backend().back_up(self.number)?.ok_or("only the hub has backups")?;
        self.wait();
        let forgotten = self.testbed.backend().restore(&backup)?;
        let count = forgotten.len();
        self.testbed.note_forgotten(forgotten);
        Ok(format!("{count} keys forgotten"))
    }

    fn cut(&self, node: usize, member: Option<usize>, mode: Mode) {
        self.testbed.wire(node, member, mode);
        self.wait();
        self.testbed.wire(node, member, Mode::Open);
    }

    fn overtake_paused(&self, node: usize) -> Result<(), String> {
        self.members(Victims::Leader)?;
        let testbed = self.testbed;
        overtake(testbed, node, || testbed.pause_agent(node), || testbed.agent_goes_on(node))
    }

    fn overtake_frozen(&self, node: usize) -> Result<(), String> {
        self.members(Victims::Leader)?;
        let set = |mode| self.testbed.wire(node, None, mode);
        overtake(
            self.testbed,
            node,
            || {
                set(Mode::Frozen);
                Ok(())
            },
            || set(Mode::Open),
        )
    }

    /// Kills the next run that is found, on this node or on a later one.
    fn kill_a_run(&self, node: usize, part: Part) -> Result<Injected, String> {
        let began = Instant::now();
        while began.elapsed() < self.lasting {
            for node in (node..NODES).chain(0..node) {
                let home = self.testbed.directory_of(node);
                if let Some(found) = processes::of_live_run(&home, part)
                    && processes::hit(&home, &found)
                {
                    return Ok(Injected { node: Some(node), ..Injected::default() });
                }
            }
            sleep(POLL_INTERVAL);
        }
        Err("no run was in progress".to_owned())
    }
}

/// Kills every process of a node whose agent is already dead.
fn kill_all_of(home: &Path) {
    loop {
        let found = processes::all_of(home);
        if found.is_empty() {
            return;
        }
        for found in found {
            processes::hit(home, &found);
        }
        sleep(POLL_INTERVAL);
    }
}
