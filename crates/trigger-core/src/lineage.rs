//! Why an event exists, and whether it may: the loop guard (contract 7).

use crate::identity::{Certname, EventId, TriggerName};

/// Chains one event carries at the most; the shortest are kept, since they permit the most.
pub const MAX_CHAINS: usize = 8;
/// Hops a chain may have when the resource does not say.
pub const DEFAULT_TTL: u32 = 5;
/// The most hops a resource may ask for: a longer chain is a loop by any other name.
pub const MAX_TTL: u32 = 64;
/// How often one trigger may fire on one node for the same root event.
pub const MAX_FIRES_PER_ROOT: u32 = 3;

/// One step of a chain: `trigger` made `certname` run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hop {
    /// The trigger that fired.
    pub trigger: TriggerName,
    /// The node that ran because of it.
    pub certname: Certname,
}

/// The hops from a root event to the node that fires now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chain {
    /// The event at the start, fired outside any run of ours.
    pub root: EventId,
    /// Oldest first; empty for the root event itself.
    pub hops: Vec<Hop>,
}

/// All that led to an event: one chain for each cause that permitted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// At least one, at most [`MAX_CHAINS`], shortest first.
    pub chains: Vec<Chain>,
}

impl Lineage {
    /// The lineage of an event that no run of ours led to.
    pub fn root(id: EventId) -> Self {
        Self { chains: vec![Chain { root: id, hops: Vec::new() }] }
    }

    /// Whether nothing led to this event.
    pub fn is_root(&self) -> bool {
        self.chains.iter().all(|chain| chain.hops.is_empty())
    }

    /// Whether two events have the same past; two root events do, though each is its own root.
    pub fn is_same_past(&self, other: &Self) -> bool {
        (self.is_root() && other.is_root()) || self.chains == other.chains
    }
}

/// Why a target is left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its message")]
pub enum Suppression {
    #[error("loop: '{trigger}' already made {certname} run in this chain ({chain})")]
    AlreadyInChain { trigger: TriggerName, certname: Certname, chain: String },
    #[error("loop guard: the chain has {hops} hops and this trigger's ttl is {ttl} ({chain})")]
    TooManyHops { hops: usize, ttl: u32, chain: String },
    #[error("loop guard: '{trigger}' fired {fires} times on this node for the same root event {root}")]
    TooManyFires { trigger: TriggerName, fires: u32, root: EventId },
}

fn describe(chain: &Chain) -> String {
    let hops: Vec<String> =
        chain.hops.iter().map(|hop| format!("'{}' → {}", hop.trigger, hop.certname)).collect();
    hops.join(", ")
}

/// The chains that an event fired inside a run of `node` continues: each cause's chains, with the step
/// that brought it here.
pub fn chains_through<'a>(
    node: &Certname,
    causes: impl IntoIterator<Item = (&'a TriggerName, &'a Lineage)>,
) -> Vec<Chain> {
    let mut chains: Vec<Chain> = causes
        .into_iter()
        .flat_map(|(trigger, lineage)| {
            lineage.chains.iter().map(|chain| {
                let mut hops = chain.hops.clone();
                hops.push(Hop { trigger: trigger.clone(), certname: node.clone() });
                Chain { root: chain.root, hops }
            })
        })
        .collect();
    chains.sort_by(|a, b| a.hops.len().cmp(&b.hops.len()).then_with(|| a.cmp(b)));
    chains.dedup();
    chains
}

/// Judges one target of `trigger`: the chains that permit it, or the reason of the shortest that does not.
///
/// A group's members are not known here, so for a group `target` is absent and each member judges the pair
/// of trigger and target for itself with [`repeats_in_every_chain`].
///
/// `fires` tells how often this trigger has fired on this node for a root before.
pub fn judge(
    trigger: &TriggerName,
    target: Option<&Certname>,
    chains: &[Chain],
    ttl: u32,
    fires: impl Fn(EventId) -> u32,
) -> Result<Vec<Chain>, Suppression> {
    let mut first_refusal = None;
    let mut permitting = Vec::new();
    for chain in chains {
        match objection(trigger, target, chain, ttl, fires(chain.root)) {
            None => permitting.push(chain.clone()),
            Some(suppression) => first_refusal = first_refusal.or(Some(suppression)),
        }
    }
    match (permitting.is_empty(), first_refusal) {
        (true, Some(suppression)) => Err(suppression),
        _ => {
            permitting.truncate(MAX_CHAINS);
            Ok(permitting)
        }
    }
}

/// Whether `trigger` already made `node` run in each chain of an event: the target's own look at an event
/// that reached it through a group.
pub fn repeats_in_every_chain(
    trigger: &TriggerName,
    node: &Certname,
    lineage: &Lineage,
) -> Option<Suppression> {
    let mut objections =
        lineage.chains.iter().map(|chain| objection(trigger, Some(node), chain, u32::MAX, 0));
    let first = objections.next()??;
    objections.all(|objection| objection.is_some()).then_some(first)
}

fn objection(
    trigger: &TriggerName,
    target: Option<&Certname>,
    chain: &Chain,
    ttl: u32,
    fires: u32,
) -> Option<Suppression> {
    if let Some(target) = target
        && chain.hops.iter().any(|hop| hop.trigger == *trigger && hop.certname == *target)
    {
        return Some(Suppression::AlreadyInChain {
            trigger: trigger.clone(),
            certname: target.clone(),
            chain: describe(chain),
        });
    }
    if chain.hops.len() >= ttl as usize {
        return Some(Suppression::TooManyHops { hops: chain.hops.len(), ttl, chain: describe(chain) });
    }
    if fires >= MAX_FIRES_PER_ROOT {
        return Some(Suppression::TooManyFires { trigger: trigger.clone(), fires, root: chain.root });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::samples::event_id;

    fn name(text: &str) -> TriggerName {
        text.parse().unwrap()
    }

    fn node(text: &str) -> Certname {
        text.parse().unwrap()
    }

    /// `"a>n1 b>n2"`: trigger a made n1 run, whose run fired b at n2.
    fn chain(text: &str) -> Chain {
        let hops = text
            .split_whitespace()
            .map(|hop| {
                let (trigger, certname) = hop.split_once('>').unwrap();
                Hop { trigger: name(trigger), certname: node(certname) }
            })
            .collect();
        Chain { root: event_id(1), hops }
    }

    fn check(trigger: &str, target: &str, chains: &[&str], expected: &str) {
        let chains: Vec<Chain> = chains.iter().map(|text| chain(text)).collect();
        let verdict = match judge(&name(trigger), Some(&node(target)), &chains, 3, |_| 0) {
            Ok(chains) => format!("fires with {}", chains.len()),
            Err(suppression) => suppression.to_string(),
        };
        assert_eq!(verdict, expected);
    }

    #[test]
    fn a_root_event_fires() {
        check("a", "n1", &[""], "fires with 1");
    }

    #[test]
    fn a_pair_fires_once_in_a_chain() {
        check("a", "n1", &["a>n1 b>n2"], "loop: 'a' already made n1 run in this chain ('a' → n1, 'b' → n2)");
        check("a", "n3", &["a>n1 b>n2"], "fires with 1");
        check("c", "n1", &["a>n1 b>n2"], "fires with 1");
    }

    #[test]
    fn a_chain_ends_after_ttl_hops() {
        check(
            "d",
            "n4",
            &["a>n1 b>n2 c>n3"],
            "loop guard: the chain has 3 hops and this trigger's ttl is 3 ('a' → n1, 'b' → n2, 'c' → n3)",
        );
    }

    #[test]
    fn one_permitting_cause_is_enough_and_only_permitting_chains_go_on() {
        check("a", "n1", &["a>n1", "b>n2", "c>n3"], "fires with 2");
    }

    #[test]
    fn the_fourth_fire_for_one_root_is_suppressed() {
        let fires = |times| judge(&name("a"), Some(&node("n1")), &[chain("b>n2")], 5, move |_| times).is_ok();
        assert!(fires(2));
        assert!(!fires(3));
    }

    #[test]
    fn at_most_eight_chains_go_on_shortest_first() {
        let causes: Vec<(TriggerName, Lineage)> = (0..12_u32)
            .map(|n| {
                let hops =
                    (0..n).map(|h| Hop { trigger: name(&format!("t{h}")), certname: node("x") }).collect();
                (
                    name(&format!("u{n}")),
                    Lineage { chains: vec![Chain { root: event_id(u128::from(n)), hops }] },
                )
            })
            .rev()
            .collect();
        let chains = chains_through(&node("here"), causes.iter().map(|(t, l)| (t, l)));
        let permitted = judge(&name("z"), Some(&node("n1")), &chains, 64, |_| 0).unwrap();
        let lengths: Vec<usize> = permitted.iter().map(|chain| chain.hops.len()).collect();
        assert_eq!(lengths, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(permitted.iter().all(|chain| chain.hops.last().unwrap().certname == node("here")));
    }

    #[test]
    fn a_member_of_a_group_judges_the_pair_for_itself() {
        let lineage = |chains: &[&str]| Lineage { chains: chains.iter().map(|text| chain(text)).collect() };
        assert!(repeats_in_every_chain(&name("a"), &node("n1"), &lineage(&["a>n1 b>n2"])).is_some());
        assert!(repeats_in_every_chain(&name("a"), &node("n1"), &lineage(&["a>n1", "b>n2"])).is_none());
        assert!(repeats_in_every_chain(&name("a"), &node("n1"), &lineage(&[""])).is_none());
    }
}
