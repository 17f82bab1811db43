//! The schedule of faults: drawn from a seed before anything starts, so that it can be read and repeated.

use std::fmt;
use std::time::Duration;

use trigger_e2e::BackendKind;

use crate::fleet::NODES;
use crate::link::Mode;

/// Before the first fault, and after the last: the fleet shall have something to lose.
const LEAD: Duration = Duration::from_secs(2);
/// How old the backup is at the most that a hub is restored from.
const BACKUP_AGE: Duration = Duration::from_secs(3);
/// From this budget on a fault may outlast the trust in a claim on a certname, which is two minutes.
const LONG: Duration = Duration::from_secs(5 * 60);

/// A fault and when it happens, counted from the first fire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planned {
    /// From when.
    pub(crate) from: Duration,
    /// Until when it lasts.
    pub(crate) to: Duration,
    /// What happens.
    pub(crate) fault: Fault,
}

/// What happens, until it is healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `kill -9` of backend processes, which start again on their data.
    KillBackend(Victims),
    /// SIGSTOP, later SIGCONT.
    PauseBackend(Victims),
    /// The hub is killed and comes back with what a backup of a moment before holds.
    Restore,
    /// The node's wires to the backend, all of them.
    Cut(usize, Mode),
    /// The node's wire to one member, later healed.
    CutMember(usize, usize, Mode),
    /// `kill -9` of the agent, which is started again.
    KillAgent(usize),
    /// The agent is told to stop and another one is started.
    RestartAgent(usize),
    /// SIGSTOP, later SIGCONT.
    PauseAgent(usize),
    /// The agent is paused while etcd forgets its history.
    CompactUnderPaused(usize),
    /// The agent's wires are silent while etcd forgets its history.
    CompactUnderSilent(usize),
    /// `kill -9` of the supervisor of the run in progress.
    KillSupervisor(usize),
    /// `kill -9` of the run in progress.
    KillRun(usize),
    /// `kill -9` of all that runs on the node; its agent is started again.
    Crash(usize),
}

/// Which of the backend's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victims {
    /// The only one there is, or all of them: the backend is away.
    All,
    /// Whoever leads then.
    Leader,
    /// A certain member.
    Member(usize),
    /// All but this member: those left have no quorum.
    AllBut(usize),
}

impl Fault {
    /// The name for the figures.
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
            Self::Restore => "restore of the hub from a backup".to_owned(),
            Self::Cut(_, mode) => format!("{} wires of a node", adjective(*mode)),
            Self::CutMember(_, _, mode) => format!("{} wire to one member", adjective(*mode)),
            Self::KillAgent(_) => "kill -9 of an agent".to_owned(),
            Self::RestartAgent(_) => "restart of an agent".to_owned(),
            Self::PauseAgent(_) => "pause of an agent".to_owned(),
            Self::CompactUnderPaused(_) => "compaction under a paused agent".to_owned(),
            Self::CompactUnderSilent(_) => "compaction under a silent wire".to_owned(),
            Self::KillSupervisor(_) => "kill -9 of a supervisor".to_owned(),
            Self::KillRun(_) => "kill -9 of a run".to_owned(),
            Self::Crash(_) => "crash of a node".to_owned(),
        }
    }

    /// The node it happens to; none where it is the backend.
    pub(crate) fn node(&self) -> Option<usize> {
        match self {
            Self::KillBackend(_) | Self::PauseBackend(_) | Self::Restore => None,
            Self::Cut(node, _)
            | Self::CutMember(node, ..)
            | Self::KillAgent(node)
            | Self::RestartAgent(node)
            | Self::PauseAgent(node)
            | Self::CompactUnderPaused(node)
            | Self::CompactUnderSilent(node)
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

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.from.as_secs_f64(), self.to.as_secs_f64());
        let place = match (self.fault, self.fault.node()) {
            (Fault::KillBackend(Victims::Member(m) | Victims::AllBut(m)), _)
            | (Fault::PauseBackend(Victims::Member(m) | Victims::AllBut(m)), _) => format!(" (m{})", m + 1),
            (_, Some(node)) => format!(" ({})", crate::fleet::certname(node)),
            _ => String::new(),
        };
        write!(f, "{from:6.1} s to {to:6.1} s  {}{place}", self.fault.kind())
    }
}

/// Faults that happen one after the other; several lanes run side by side.
pub(crate) type Lane = Vec<Planned>;

/// All that will happen within `budget`: one lane for the backend, two for the nodes.
pub(crate) fn plan(kind: BackendKind, seed: u64, budget: Duration) -> Vec<Lane> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut lane = |deck: &dyn Fn(&mut fastrand::Rng) -> Vec<Fault>| lane(budget, &mut random, deck);
    vec![
        lane(&|random| backend_faults(kind, random)),
        lane(&|random| node_faults(kind, random, 0)),
        lane(&|random| node_faults(kind, random, 1)),
    ]
}

/// Deals decks of all faults, shuffled, one deck after the other: none is left out for long.
fn lane(
    budget: Duration,
    random: &mut fastrand::Rng,
    deck: &dyn Fn(&mut fastrand::Rng) -> Vec<Fault>,
) -> Lane {
    let mut lane = Lane::new();
    let mut at = LEAD;
    loop {
        let mut faults = deck(random);
        random.shuffle(&mut faults);
        for fault in faults {
            let from = at + Duration::from_millis(random.u64(300..3_000));
            let lasting = lasting(random, budget >= LONG);
            let to = from + if fault == Fault::Restore { lasting.min(BACKUP_AGE) } else { lasting };
            if to + LEAD > budget {
                return lane;
            }
            lane.push(Planned { from, to, fault });
            at = to;
        }
    }
}

/// Mostly seconds; one in ten long enough for every silence to be noticed.
fn lasting(random: &mut fastrand::Rng, is_long: bool) -> Duration {
    Duration::from_millis(if is_long && random.u8(..40) == 0 {
        random.u64(125_000..150_000)
    } else if random.u8(..10) == 0 {
        random.u64(10_000..25_000)
    } else {
        random.u64(200..5_000)
    })
}

fn backend_faults(kind: BackendKind, random: &mut fastrand::Rng) -> Vec<Fault> {
    use Fault::{KillBackend, PauseBackend, Restore};
    match kind {
        BackendKind::Hub => {
            let kill = KillBackend(Victims::All);
            let mut faults = vec![kill, PauseBackend(Victims::All), kill, PauseBackend(Victims::All)];
            // Not often: what the hub forgets by it cannot be asked for.
            faults.extend((random.u8(..3) == 0).then_some(Restore));
            faults
        }
        BackendKind::Etcd => vec![
            KillBackend(Victims::Leader),
            PauseBackend(Victims::Leader),
            KillBackend(Victims::Member(random.usize(..3))),
            PauseBackend(Victims::Member(random.usize(..3))),
            KillBackend(Victims::AllBut(random.usize(..3))),
            PauseBackend(Victims::AllBut(random.usize(..3))),
            KillBackend(Victims::All),
            PauseBackend(Victims::Leader),
        ],
    }
}

/// Every other node's agent belongs to one lane, those between to the other: an agent is not paused while it
/// is dead. Wires and runs belong to both.
fn node_faults(kind: BackendKind, random: &mut fastrand::Rng, side: usize) -> Vec<Fault> {
    let mut any = || random.usize(..NODES);
    let mut faults = vec![
        Fault::Cut(any(), Mode::Broken),
        Fault::Cut(any(), Mode::Silent),
        Fault::Cut(any(), Mode::Frozen),
        Fault::KillSupervisor(any()),
        Fault::KillRun(any()),
    ];
    let mut own = || 2 * random.usize(..NODES / 2) + side;
    faults.extend([
        Fault::KillAgent(own()),
        Fault::KillAgent(own()),
        Fault::RestartAgent(own()),
        Fault::PauseAgent(own()),
        Fault::Crash(own()),
    ]);
    if kind == BackendKind::Etcd {
        faults.push(Fault::CompactUnderPaused(own()));
        let modes = [Mode::Silent, Mode::Broken];
        faults.push(Fault::CompactUnderSilent(random.usize(..NODES)));
        let (node, mode) = (random.usize(..NODES), modes[random.usize(..modes.len())]);
        faults.push(Fault::CutMember(node, random.usize(..3), mode));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Duration = Duration::from_secs(75);

    fn kinds(seed: u64, kind: BackendKind) -> std::collections::BTreeSet<String> {
        plan(kind, seed, BUDGET).concat().iter().map(|planned| planned.fault.kind()).collect()
    }

    #[test]
    fn the_same_seed_plans_the_same() {
        for kind in [BackendKind::Hub, BackendKind::Etcd] {
            assert_eq!(plan(kind, 7, BUDGET), plan(kind, 7, BUDGET));
            assert_ne!(plan(kind, 7, BUDGET), plan(kind, 8, BUDGET));
        }
    }

    #[test]
    fn the_faults_of_a_lane_follow_each_other_and_end_within_the_budget() {
        for lane in plan(BackendKind::Etcd, 3, BUDGET) {
            assert!(lane.len() > 5, "{lane:?}");
            assert!(lane.windows(2).all(|pair| pair[0].to <= pair[1].from), "{lane:?}");
            assert!(lane.iter().all(|planned| planned.from < planned.to && planned.to < BUDGET), "{lane:?}");
        }
    }

    #[test]
    fn an_agent_is_one_lanes_alone() {
        let lanes = plan(BackendKind::Etcd, 5, 10 * BUDGET);
        let sides = lanes[1..].iter().map(|lane| {
            let wires_and_runs = |fault: &Fault| {
                matches!(
                    fault,
                    Fault::Cut(..)
                        | Fault::CutMember(..)
                        | Fault::CompactUnderSilent(_)
                        | Fault::KillRun(_)
                        | Fault::KillSupervisor(_)
                )
            };
            let agents = lane.iter().filter(|planned| !wires_and_runs(&planned.fault));
            agents.filter_map(|planned| Some(planned.fault.node()? % 2)).collect::<Vec<_>>()
        });
        for (side, found) in sides.enumerate() {
            assert!(found.len() > 20 && found.iter().all(|node| *node == side), "{side}: {found:?}");
        }
    }

    #[test]
    fn a_few_seeds_hold_every_fault() {
        let all = |kind| (0..8).flat_map(|seed| kinds(seed, kind)).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(all(BackendKind::Hub).len(), 12, "{:?}", all(BackendKind::Hub));
        assert_eq!(all(BackendKind::Etcd).len(), 20, "{:?}", all(BackendKind::Etcd));
    }
}
