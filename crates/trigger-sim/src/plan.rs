//! The parameters that a seed determines: the size of the fleet, the load, and the rate of faults.

use std::time::Duration;

/// The parameters of one seed, drawn once, before anything happens.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) busy_for: Duration,
    /// The average time between two actions of the operators.
    pub(crate) fire_every: Duration,
    /// The average time between two faults.
    pub(crate) fault_every: Duration,
    /// Chance that a process dies between two of its effects.
    pub(crate) crash: f64,
    /// Chance that a request meets a fault.
    pub(crate) bad_request: f64,
    /// Chance that a read is stale.
    pub(crate) stale_read: f64,
    /// Chance that an event of a watch meets a fault.
    pub(crate) bad_watch: f64,
    /// The longest time that Puppet runs.
    pub(crate) run_at_most: Duration,
    /// Whether state directories are copied.
    pub(crate) clones: bool,
    /// Whether an attacker writes to the backend.
    pub(crate) attacks: bool,
    /// Whether the backend is restored from backups.
    pub(crate) rewinds: bool,
    /// Whether the backend writes entries in the place of keys at once. If not, its clients take several steps.
    pub(crate) has_transactions: bool,
    /// Whether a clock may be years off, not only minutes.
    pub(crate) wild_clocks: bool,
    /// Whether the whole fleet is off for a week in the middle.
    pub(crate) long_off: bool,
    /// Whether an event may go to hundreds of nodes.
    pub(crate) large_events: bool,
    /// Chance that a trigger of the manifests fires when its node runs.
    pub(crate) chatter: f64,
}

impl Plan {
    pub(crate) fn draw(rng: &mut fastrand::Rng) -> Self {
        // One seed in eight has no faults at all, so that no fault can excuse a failure there.
        let harsh = if rng.u8(..8) == 0 { 0.0 } else { rng.f64() };
        let one_in = |rng: &mut fastrand::Rng, n: u8| rng.u8(..n) == 0;
        let mut up_to = |most: f64| most * harsh * rng.f64();
        let (crash, bad_request, stale_read, bad_watch) = (up_to(0.01), up_to(0.3), up_to(0.5), up_to(0.5));
        let calm = harsh == 0.0;
        // Wild clocks affect sweepers only after days.
        let wild_clocks = !calm && one_in(rng, 8);
        let long_off = !calm && one_in(rng, if wild_clocks { 2 } else { 12 });
        Self {
            nodes: rng.usize(2..=4),
            busy_for: Duration::from_secs(rng.u64(300..2400)),
            fire_every: Duration::from_millis(rng.u64(2_000..120_000)),
            fault_every: if calm {
                Duration::from_secs(1_000_000)
            } else {
                Duration::from_secs(rng.u64(10..300))
            },
            crash,
            bad_request,
            stale_read,
            bad_watch,
            run_at_most: Duration::from_secs(rng.choice([2, 20, 60, 240]).unwrap_or(20)),
            clones: !calm && one_in(rng, 3),
            attacks: !calm && one_in(rng, 3),
            rewinds: !calm && one_in(rng, 4),
            wild_clocks,
            long_off,
            large_events: one_in(rng, 6),
            chatter: rng.choice([0.0, 0.3, 0.6, 1.0]).unwrap_or(0.3),
            has_transactions: !one_in(rng, 4),
        }
    }
}
