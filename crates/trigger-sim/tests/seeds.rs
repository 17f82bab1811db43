//! The simulation itself: it replays exactly. `check-faults` tests that it finds defects. Each defect that it found has
//! a test in the affected crate, since a changed simulation draws other faults from the same seed.

use trigger_sim::simulate;

/// Proves C14.
#[test]
fn a_seed_replays_exactly() {
    for seed in [0, 1, 2] {
        let (first, second) = (simulate(seed, false), simulate(seed, true));
        assert_eq!((first.hash, first.steps), (second.hash, second.steps), "seed {seed}");
        assert!(!second.trace.is_empty());
    }
    assert_ne!(simulate(0, false).hash, simulate(1, false).hash);
}
