//! The faults that a trial injects into its backend and nodes.

use std::fmt;

use crate::fleet::certname;
use crate::link::Mode;

/// A fault, which lasts until it is healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `kill -9` of backend processes, which start again on their data.
    KillBackend(Victims),
    /// SIGSTOP, later SIGCONT.
    PauseBackend(Victims),
    /// The whole backend is away while this node fires, so every event must be spooled.
    Spool(usize, Away),
    /// The hub is killed, and starts again with the data of a recent backup.
    Restore,
    /// All the node's links to the backend are cut.
    Cut(usize, Mode),
    /// The node's link to one member is cut, and healed later.
    CutMember(usize, usize, Mode),
    /// `kill -9` of the agent, which is then started again.
    KillAgent(usize),
    /// The agent is asked to stop, and another one is started.
    RestartAgent(usize),
    /// SIGSTOP, later SIGCONT.
    PauseAgent(usize),
    /// The agent is paused until etcd has compacted changes that its watch has not received.
    OvertakePaused(usize),
    /// The same, with the agent's links frozen instead of the agent paused.
    OvertakeFrozen(usize),
    /// `kill -9` of the supervisor of the run in progress.
    KillSupervisor(usize),
    /// `kill -9` of the run in progress.
    KillRun(usize),
    /// `kill -9` of every process of the node, whose agent is then started again.
    Crash(usize),
}

/// The backend's processes that a fault applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victims {
    /// The only one, or all of them: the backend is away.
    All,
    /// The current leader.
    Leader,
    /// The member with this number.
    Member(usize),
    /// All but this member: the rest has no quorum.
    AllBut(usize),
}

/// The way in which a backend is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Away {
    /// Its ports refuse connections.
    Killed,
    /// It does not answer.
    Paused,
}

impl Fault {
    /// Returns the name of the kind, for the figures.
    pub(crate) fn kind(&self) -> String {
        let victims = |victims: &Victims| match victims {
            Victims::All => "the whole backend",
            Victims::Leader => "the leader",
            Victims::Member(_) => "a member",
            Victims::AllBut(_) => "the majority",
        };
        match self {
            Self::KillBackend(v) => format!("kill -9 of {}", victims(v)),
            Self::PauseBackend(v) => format!("pause of {}", victims(v)),
            Self::Spool(..) => "outbox filled while the backend is away".to_owned(),
            Self::Restore => "restore of the hub from a backup".to_owned(),
            Self::Cut(_, mode) => format!("{} wires of a node", adjective(*mode)),
            Self::CutMember(_, _, mode) => format!("{} wire to one member", adjective(*mode)),
            Self::KillAgent(_) => "kill -9 of an agent".to_owned(),
            Self::RestartAgent(_) => "restart of an agent".to_owned(),
            Self::PauseAgent(_) => "pause of an agent".to_owned(),
            Self::OvertakePaused(_) => "compaction overtook a paused agent".to_owned(),
            Self::OvertakeFrozen(_) => "compaction overtook a frozen wire".to_owned(),
            Self::KillSupervisor(_) => "kill -9 of a supervisor".to_owned(),
            Self::KillRun(_) => "kill -9 of a run".to_owned(),
            Self::Crash(_) => "crash of a node".to_owned(),
        }
    }

    /// Returns the node that it applies to; `None` for the backend. The search for a run starts at this node.
    pub(crate) fn node(&self) -> Option<usize> {
        match self {
            Self::KillBackend(_) | Self::PauseBackend(_) | Self::Spool(..) | Self::Restore => None,
            Self::Cut(node, _)
            | Self::CutMember(node, ..)
            | Self::KillAgent(node)
            | Self::RestartAgent(node)
            | Self::PauseAgent(node)
            | Self::OvertakePaused(node)
            | Self::OvertakeFrozen(node)
            | Self::KillSupervisor(node)
            | Self::KillRun(node)
            | Self::Crash(node) => Some(*node),
        }
    }
}

fn adjective(mode: Mode) -> &'static str {
    match mode {
        Mode::Open => "open",
        Mode::Broken => "broken",
        Mode::Silent => "silent",
        Mode::Frozen => "frozen",
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match (self, self.node()) {
            (Self::KillBackend(Victims::Member(member)), _)
            | (Self::PauseBackend(Victims::Member(member)), _) => format!(" (m{})", member + 1),
            (Self::KillBackend(Victims::AllBut(spared)), _)
            | (Self::PauseBackend(Victims::AllBut(spared)), _) => format!(" (all but m{})", spared + 1),
            (Self::Spool(node, away), _) => {
                format!(" ({} fires, {})", certname(*node), format!("{away:?}").to_lowercase())
            }
            (Self::KillSupervisor(_) | Self::KillRun(_), Some(node)) => {
                format!(" ({} or the next that runs)", certname(node))
            }
            (_, Some(node)) => format!(" ({})", certname(node)),
            _ => String::new(),
        };
        write!(f, "{}{place}", self.kind())
    }
}
