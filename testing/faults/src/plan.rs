//! The schedule of faults: drawn from a seed before anything starts, so that it can be read and repeated.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use trigger_e2e::BackendKind;

use crate::fault::{Away, Fault, Victims};
use crate::fleet::{DIRECT, NODES};
use crate::link::Mode;

/// The shortest budget that has room for a whole deck; with less, a trial would prove less than it claims.
pub(crate) const SHORTEST: Duration = Duration::from_secs(45);
/// The time before the first fault and after the last one, so that there is work that a fault can affect.
const LEAD: Duration = Duration::from_secs(2);
/// The greatest age of the backup from which a hub is restored.
const BACKUP_AGE: Duration = Duration::from_secs(3);
/// From this budget on, a fault may outlast the trust in a claim on a certname, which is two minutes.
const LONG: Duration = Duration::from_secs(5 * 60);

/// A fault with its time, counted from the first fire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planned {
    /// The time at which it begins.
    pub(crate) from: Duration,
    /// The time at which it ends. A fault that begins later lasts as long as planned.
    pub(crate) to: Duration,
    /// The fault itself.
    pub(crate) fault: Fault,
    /// Whether the trial proves too little without it: then it is retried until it happens.
    pub(crate) must: bool,
}

impl Planned {
    /// Returns its duration.
    pub(crate) fn lasting(&self) -> Duration {
        self.to - self.from
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:6.1} s to {:6.1} s  {}", self.from.as_secs_f64(), self.to.as_secs_f64(), self.fault)
    }
}

/// Faults that happen one after the other; several lanes run side by side.
pub(crate) type Lane = Vec<Planned>;

/// Returns the faults for `budget`: one lane for the backend, two for the nodes. Each lane begins with its part of a
/// deck that holds every kind of fault that applies to this backend.
pub(crate) fn plan(kind: BackendKind, seed: u64, budget: Duration) -> Vec<Lane> {
    let random = &mut fastrand::Rng::with_seed(seed);
    let (first, second) = first_node_decks(kind, random);
    let of_backend = first_backend_deck(kind, random);
    vec![
        lane(budget, random, of_backend, &|random| backend_deck(kind, random)),
        lane(budget, random, first, &|random| node_deck(kind, random, 0)),
        lane(budget, random, second, &|random| node_deck(kind, random, 1)),
    ]
}

/// Returns the kinds of faults without which a trial proves too little.
pub(crate) fn kinds_of(lanes: &[Lane]) -> BTreeSet<String> {
    let musts = lanes.iter().flatten().filter(|planned| planned.must);
    musts.map(|planned| planned.fault.kind()).collect()
}

/// Deals the first deck, close together, and then decks of all faults, one after the other, so that no fault is
/// skipped for long.
fn lane(
    budget: Duration,
    random: &mut fastrand::Rng,
    first: Vec<Fault>,
    deck: &dyn Fn(&mut fastrand::Rng) -> Vec<Fault>,
) -> Lane {
    let mut lane = Lane::new();
    let mut at = LEAD;
    let mut push = |fault: Fault, (pause, lasting): (u64, u64), must: bool| {
        let from = at + Duration::from_millis(pause);
        let lasting = Duration::from_millis(lasting);
        let to = from + if fault == Fault::Restore { lasting.min(BACKUP_AGE) } else { lasting };
        let fits = to + LEAD <= budget;
        if fits || must {
            lane.push(Planned { from, to, fault, must });
            at = to;
        }
        fits
    };
    for fault in first {
        push(fault, (random.u64(200..1_000), random.u64(500..2_500)), true);
    }
    loop {
        let mut faults = deck(random);
        random.shuffle(&mut faults);
        for fault in faults {
            if !push(fault, (random.u64(300..3_000), lasting(random, budget >= LONG)), false) {
                return lane;
            }
        }
    }
}

/// Draws a duration in milliseconds: mostly seconds, but one in ten is long enough for every timeout to expire.
fn lasting(random: &mut fastrand::Rng, is_long: bool) -> u64 {
    if is_long && random.u8(..40) == 0 {
        random.u64(125_000..150_000)
    } else if random.u8(..10) == 0 {
        random.u64(10_000..25_000)
    } else {
        random.u64(200..5_000)
    }
}

/// Returns one fault of each kind.
fn first_backend_deck(kind: BackendKind, random: &mut fastrand::Rng) -> Vec<Fault> {
    let mut deck = backend_deck(kind, random);
    deck.extend((kind.is_hub() && !deck.contains(&Fault::Restore)).then_some(Fault::Restore));
    let mut seen = BTreeSet::new();
    deck.retain(|fault| seen.insert(fault.kind()));
    random.shuffle(&mut deck);
    deck
}

fn backend_deck(kind: BackendKind, random: &mut fastrand::Rng) -> Vec<Fault> {
    use Fault::{KillBackend, OvertakeFrozen, OvertakePaused, PauseBackend, Restore, Spool};
    let away = if random.bool() { Away::Killed } else { Away::Paused };
    let spool = Spool(random.usize(..NODES), away);
    if kind.is_hub() {
        let (kill, pause) = (KillBackend(Victims::All), PauseBackend(Victims::All));
        let mut faults = vec![kill, pause, kill, pause, spool];
        // This one is rare, because the events that the hub loses by it cannot be checked.
        faults.extend((random.u8(..3) == 0).then_some(Restore));
        return faults;
    }
    vec![
        KillBackend(Victims::Leader),
        PauseBackend(Victims::Leader),
        KillBackend(Victims::Member(random.usize(..3))),
        PauseBackend(Victims::Member(random.usize(..3))),
        KillBackend(Victims::AllBut(random.usize(..3))),
        PauseBackend(Victims::AllBut(random.usize(..3))),
        KillBackend(Victims::All),
        PauseBackend(Victims::Leader),
        // It belongs to the backend's lane, since a backend that is away accepts no compaction.
        OvertakePaused(random.usize(..DIRECT.start)),
        OvertakeFrozen(random.usize(..DIRECT.start)),
        spool,
    ]
}

/// Deals one fault of each kind to the nodes' two lanes.
fn first_node_decks(kind: BackendKind, random: &mut fastrand::Rng) -> (Vec<Fault>, Vec<Fault>) {
    let sides = [one_of_each(kind, random, 0), one_of_each(kind, random, 1)];
    let mut order: Vec<usize> = (0..sides[0].len()).collect();
    random.shuffle(&mut order);
    let (first, second) = order.split_at(order.len() / 2);
    (first.iter().map(|at| sides[0][*at]).collect(), second.iter().map(|at| sides[1][*at]).collect())
}

/// Returns the faults of the nodes, each as often as it should happen.
fn node_deck(kind: BackendKind, random: &mut fastrand::Rng, side: usize) -> Vec<Fault> {
    let mut faults = one_of_each(kind, random, side);
    faults.push(Fault::KillAgent(2 * random.usize(..NODES / 2) + side));
    faults
}

/// Returns one fault of each kind for one lane. Nodes alternate between the two lanes, so that an agent is not paused
/// while it is dead and a link is not healed that is to be cut. Runs belong to both lanes.
fn one_of_each(kind: BackendKind, random: &mut fastrand::Rng, side: usize) -> Vec<Fault> {
    let mut node = || 2 * random.usize(..NODES / 2) + side;
    let mut faults = vec![
        Fault::KillSupervisor(node()),
        Fault::KillRun(node()),
        Fault::KillAgent(node()),
        Fault::RestartAgent(node()),
        Fault::PauseAgent(node()),
        Fault::Crash(node()),
    ];
    // Nodes without links of their own have none to cut.
    let mut wired = || 2 * random.usize(..DIRECT.start / 2) + side;
    faults.extend([Mode::Broken, Mode::Silent, Mode::Frozen].map(|mode| Fault::Cut(wired(), mode)));
    if !kind.is_hub() {
        for mode in [Mode::Silent, Mode::Broken] {
            let node = 2 * random.usize(..DIRECT.start / 2) + side;
            faults.push(Fault::CutMember(node, random.usize(..3), mode));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const KINDS: [BackendKind; 2] = [BackendKind::Hub, BackendKind::Etcd];

    fn first_decks_end(kind: BackendKind, seed: u64) -> Duration {
        let lanes = plan(kind, seed, SHORTEST);
        lanes.iter().flatten().filter(|planned| planned.must).map(|planned| planned.to).max().unwrap()
    }

    #[test]
    fn the_same_seed_plans_the_same() {
        for kind in KINDS {
            assert_eq!(plan(kind, 7, MINUTE), plan(kind, 7, MINUTE));
            assert_ne!(plan(kind, 7, MINUTE), plan(kind, 8, MINUTE));
        }
    }

    #[test]
    fn every_seed_holds_every_kind_of_fault() {
        for (kind, seed) in KINDS.into_iter().flat_map(|kind| (0..100).map(move |seed| (kind, seed))) {
            let expected = if kind == BackendKind::Hub { 13 } else { 21 };
            for budget in [SHORTEST, MINUTE] {
                let lanes = plan(kind, seed, budget);
                assert_eq!(kinds_of(&lanes).len(), expected, "{kind:?} {seed}: {:?}", kinds_of(&lanes));
            }
            assert!(first_decks_end(kind, seed) + LEAD <= SHORTEST, "{kind:?} {seed}");
        }
    }

    #[test]
    fn the_faults_of_a_lane_follow_each_other_and_end_within_the_budget() {
        for lane in plan(BackendKind::Etcd, 3, MINUTE) {
            assert!(lane.len() > 6, "{lane:?}");
            assert!(lane.windows(2).all(|pair| pair[0].to <= pair[1].from), "{lane:?}");
            assert!(lane.iter().all(|planned| planned.from < planned.to && planned.to < MINUTE), "{lane:?}");
        }
    }

    #[test]
    fn a_node_is_one_lanes_alone_and_only_wires_that_are_there_are_cut() {
        let lanes = plan(BackendKind::Etcd, 5, 10 * MINUTE);
        for (side, lane) in lanes[1..].iter().enumerate() {
            let runs = |fault: &Fault| matches!(fault, Fault::KillRun(_) | Fault::KillSupervisor(_));
            let own: Vec<Fault> =
                lane.iter().map(|planned| planned.fault).filter(|fault| !runs(fault)).collect();
            assert!(own.len() > 20);
            assert!(own.iter().all(|fault| fault.node().unwrap() % 2 == side), "{side}: {own:?}");
            let wires = own.iter().filter(|fault| matches!(fault, Fault::Cut(..) | Fault::CutMember(..)));
            assert!(wires.into_iter().all(|fault| fault.node().unwrap() < DIRECT.start), "{own:?}");
        }
    }
}
