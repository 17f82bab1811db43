//! Decides whether the loop guard had a reason to suppress a target (C7), from the chains that led to the run that
//! fired.

use std::collections::BTreeSet;

use super::index::Index;
use crate::artifacts::Artifacts;
use crate::journal::{Answer, Chain, Fire};

/// The most hops that a chain may have; no fire of the trial asks for another ttl.
pub(super) const MAX_HOPS: usize = 5;
/// The number of times that one trigger may fire on one node for one root.
pub(super) const MAX_FIRES: usize = 3;
/// The number of chains that one event carries; the shortest ones are kept.
const MAX_CHAINS: usize = 8;

/// Returns whether each chain forbids this target.
pub(super) fn suppresses(artifacts: &Artifacts, index: &Index<'_>, fire: &Fire, certname: &str) -> bool {
    let chains = chains_through(index, fire);
    if chains.is_empty() {
        return false;
    }
    let repeats =
        |chain: &Chain| chain.hops.iter().any(|(trigger, node)| *trigger == fire.trigger && node == certname);
    let ends = |chain: &Chain| is_at_its_end(artifacts, index, fire, chain);
    if fire.hosts.iter().any(|host| host == certname) {
        return chains.iter().all(|chain| repeats(chain) || ends(chain));
    }
    // A group's member sees only the chains that the event carries.
    chains.iter().filter(|chain| !ends(chain)).take(MAX_CHAINS).all(repeats)
}

/// Returns whether each chain forbids every target of this fire, as for a group that was suppressed as a whole.
pub(super) fn suppresses_all(artifacts: &Artifacts, index: &Index<'_>, fire: &Fire) -> bool {
    let chains = chains_through(index, fire);
    !chains.is_empty() && chains.iter().all(|chain| is_at_its_end(artifacts, index, fire, chain))
}

fn is_at_its_end(artifacts: &Artifacts, index: &Index<'_>, fire: &Fire, chain: &Chain) -> bool {
    chain.hops.len() >= MAX_HOPS || fires_before(artifacts, index, fire, &chain.root) >= MAX_FIRES
}

/// Returns the chains that a fire inside a run continues, the shortest first: those of the run's causes that
/// permitted the run there, each with the hop to this node.
fn chains_through(index: &Index<'_>, fire: &Fire) -> Vec<Chain> {
    let Some(run) = fire.parent.as_deref().and_then(|run| index.runs.get(run)) else { return Vec::new() };
    let mut chains = Vec::new();
    for cause in &run.start.causes {
        let here = (cause.trigger.clone(), run.start.certname.clone());
        for chain in cause.chains.iter().filter(|chain| !chain.hops.contains(&here)) {
            let hops = chain.hops.iter().chain([&here]).cloned().collect();
            chains.push(Chain { root: chain.root.clone(), hops });
        }
    }
    chains.sort_by(|a, b| {
        a.hops.len().cmp(&b.hops.len()).then_with(|| (&a.root, &a.hops).cmp(&(&b.root, &b.hops)))
    });
    chains.dedup();
    chains
}

/// Returns how many earlier fires of this trigger may have been counted on its node for a root. It is not known which
/// chains permitted a fire, so each of its roots counts.
fn fires_before(artifacts: &Artifacts, index: &Index<'_>, fire: &Fire, root: &str) -> usize {
    let may_count = |other: &&Fire| {
        let was_suppressed = matches!(&other.answer, Answer::Success { state, .. } if state == "suppressed");
        !was_suppressed
            && *other != fire
            && other.trigger == fire.trigger
            && other.origin == fire.origin
            && other.before < fire.after
            && roots_of(index, other).contains(root)
    };
    artifacts.fires.iter().filter(may_count).count()
}

fn roots_of(index: &Index<'_>, fire: &Fire) -> BTreeSet<String> {
    chains_through(index, fire).into_iter().map(|chain| chain.root).collect()
}
