//! Why an event exists, and whether it may: the loop guard (C7).

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::event::Event;
use crate::identity::{Certname, EventId, TriggerName};

/// Chains one event carries at the most: one of each list of hops first, since the members of a group are judged by
/// the hops alone, then the shortest, since they permit the most.
pub const MAX_CHAINS: usize = 8;
/// Hops a chain may have when the resource does not say.
pub const DEFAULT_TTL: u32 = 5;
/// The most hops a resource may ask for: a longer chain is a loop by any other name.
pub const MAX_TTL: u32 = 64;
/// How often one trigger may fire on one node for the same root event.
pub const MAX_FIRES_PER_ROOT: u32 = 3;

/// What becomes of an event whose trigger already made its target run in the same chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Loops {
    /// It is suppressed.
    #[default]
    Avoid,
    /// It is delivered: only the length of the chain and the budget of its root end the loop.
    Allow,
}

/// What a resource asks of the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Whether a trigger may make the same target run again in one chain.
    pub loops: Loops,
    /// Hops a chain may have.
    pub ttl: u32,
}

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
    #[error("loop guard: the chain has {hops} hop{} and this trigger's ttl is {ttl} ({chain})", if *.hops == 1 { "" } else { "s" })]
    TooManyHops { hops: usize, ttl: u32, chain: String },
    #[error("loop guard: '{trigger}' fired {fires} times on this node for the same root event {root}")]
    TooManyFires { trigger: TriggerName, fires: u32, root: EventId },
}

/// The rule by which a target is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// A trigger makes a target run once in a chain.
    Pair,
    /// A chain has at most as many hops as the resource's ttl.
    Hops,
    /// A trigger fires at most three times on a node for one root.
    Fires,
}

impl Rule {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Pair, Self::Hops, Self::Fires];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pair => "pair",
            Self::Hops => "hops",
            Self::Fires => "fires",
        }
    }
}

impl Suppression {
    /// The rule behind it.
    pub fn rule(&self) -> Rule {
        match self {
            Self::AlreadyInChain { .. } => Rule::Pair,
            Self::TooManyHops { .. } => Rule::Hops,
            Self::TooManyFires { .. } => Rule::Fires,
        }
    }
}

fn describe(chain: &Chain) -> String {
    let hops: Vec<String> =
        chain.hops.iter().map(|hop| format!("'{}' → {}", hop.trigger, hop.certname)).collect();
    hops.join(", ")
}

/// The chains that an event fired inside a run of `node` continues: of each cause the chains that permitted it
/// here, with the step that brought it here.
///
/// An event carries the chains that permitted any of its targets. One that has the cause's trigger and `node`
/// already permitted another target, not this one, unless loops are allowed.
pub fn chains_through<'a>(node: &Certname, causes: impl IntoIterator<Item = &'a Event>) -> Vec<Chain> {
    let mut chains: Vec<Chain> = causes
        .into_iter()
        .flat_map(|event| {
            let here = Hop { trigger: event.trigger.clone(), certname: node.clone() };
            let permitted =
                move |chain: &&Chain, here| event.loops == Loops::Allow || !chain.hops.contains(here);
            let through = event.lineage.chains.iter().filter(|chain| permitted(chain, &here));
            let through = through.map(|chain| Chain {
                root: chain.root,
                hops: chain.hops.iter().chain([&here]).cloned().collect(),
            });
            through.collect::<Vec<_>>()
        })
        .collect();
    chains.sort_by(shortest_first);
    chains.dedup();
    chains
}

/// The order of chains everywhere; those with the same hops stand side by side.
fn shortest_first(a: &Chain, b: &Chain) -> Ordering {
    a.hops.len().cmp(&b.hops.len()).then_with(|| a.hops.cmp(&b.hops)).then_with(|| a.root.cmp(&b.root))
}

fn has_same_hops(a: &Chain, b: &Chain) -> bool {
    a.hops == b.hops
}

/// The first [`MAX_CHAINS`] of chains in their order: one of each list of hops, then what else there is room for.
fn with_distinct_hops_first<'a>(chains: impl IntoIterator<Item = &'a Chain>) -> Vec<&'a Chain> {
    let (mut chosen, mut others): (Vec<&Chain>, Vec<&Chain>) = (Vec::new(), Vec::new());
    for chain in chains {
        if chosen.last().is_none_or(|latest| !has_same_hops(latest, chain)) {
            chosen.push(chain);
        } else if others.len() < MAX_CHAINS {
            others.push(chain);
        }
        // A run may have thousands of causes, and fire at thousands of targets.
        if chosen.len() == MAX_CHAINS {
            break;
        }
    }
    chosen.extend(others.into_iter().take(MAX_CHAINS - chosen.len()));
    chosen
}

/// Judges one target of `trigger`: the chains that permit it, or the reason of the shortest that does not. `chains`
/// are in the order of [`chains_through`], and so are those returned: of more than [`MAX_CHAINS`] one with each list
/// of hops first.
///
/// A group's members are not known here, so for a group `target` is absent and each member judges the pair
/// of trigger and target for itself with [`repeats_in_every_chain`].
///
/// `fires` tells how often this trigger has fired on this node for a root before.
pub fn permitted_chains(
    trigger: &TriggerName,
    target: Option<&Certname>,
    chains: &[Chain],
    rules: Rules,
    fires: impl Fn(EventId) -> u32,
) -> Result<Vec<Chain>, Suppression> {
    let mut first_refusal = None;
    let permitting = chains.iter().filter(|chain| {
        let objection = objection(trigger, target, chain, rules, fires(chain.root));
        let is_permitting = objection.is_none();
        first_refusal = first_refusal.take().or(objection);
        is_permitting
    });
    let permitting = with_distinct_hops_first(permitting);
    match (permitting.is_empty(), first_refusal) {
        (true, Some(suppression)) => Err(suppression),
        _ => Ok(in_order(permitting)),
    }
}

fn in_order(mut chains: Vec<&Chain>) -> Vec<Chain> {
    chains.sort_by(|a, b| shortest_first(a, b));
    chains.into_iter().cloned().collect()
}

/// The chains that an event carries, of those that permit its targets (each target's, as [`permitted_chains`] returned
/// them): at least one for each target, since the target looks for loops itself, then those whose hops no other
/// has, since the members of its groups do so too, then the shortest; at most [`MAX_CHAINS`].
pub fn carried(permitting: &BTreeSet<Vec<Chain>>) -> Vec<Chain> {
    let mut all: Vec<&Chain> = permitting.iter().flatten().collect();
    all.sort_by(|a, b| shortest_first(a, b));
    all.dedup();
    let mut unserved: Vec<&Vec<Chain>> = permitting.iter().filter(|chains| !chains.is_empty()).collect();
    let mut chosen: Vec<&Chain> = Vec::new();
    while chosen.len() < MAX_CHAINS && !unserved.is_empty() {
        // The last of equals is what `max_by_key` takes; the shortest shall win.
        let serves = |chain: &Chain| unserved.iter().filter(|chains| chains.contains(chain)).count();
        let Some(best) = all.iter().rev().max_by_key(|chain| serves(chain)).copied() else { break };
        unserved.retain(|chains| !chains.contains(best));
        chosen.push(best);
    }
    for has_a_place in [has_same_hops, Chain::eq] {
        for chain in &all {
            if chosen.len() < MAX_CHAINS && !chosen.iter().any(|other| has_a_place(other, chain)) {
                chosen.push(chain);
            }
        }
    }
    in_order(chosen)
}

/// Whether `trigger` already made `node` run in each chain of an event that avoids loops: the target's own
/// look at an event that reached it through a group. Hops and fires are counted at the origin alone.
pub fn repeats_in_every_chain(
    trigger: &TriggerName,
    node: &Certname,
    lineage: &Lineage,
    loops: Loops,
) -> Option<Suppression> {
    let rules = Rules { loops, ttl: u32::MAX };
    let mut objections = lineage.chains.iter().map(|chain| objection(trigger, Some(node), chain, rules, 0));
    let first = objections.next()??;
    objections.all(|objection| objection.is_some()).then_some(first)
}

fn objection(
    trigger: &TriggerName,
    target: Option<&Certname>,
    chain: &Chain,
    Rules { loops, ttl }: Rules,
    fires: u32,
) -> Option<Suppression> {
    if loops == Loops::Avoid
        && let Some(target) = target
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
    use crate::event::samples::{event, event_id};

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

    fn avoid(ttl: u32) -> Rules {
        Rules { loops: Loops::Avoid, ttl }
    }

    fn allow(ttl: u32) -> Rules {
        Rules { loops: Loops::Allow, ttl }
    }

    fn check(trigger: &str, target: &str, chains: &[&str], expected: &str) {
        let chains: Vec<Chain> = chains.iter().map(|text| chain(text)).collect();
        let verdict = match permitted_chains(&name(trigger), Some(&node(target)), &chains, avoid(3), |_| 0) {
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
        let fires = |times| {
            permitted_chains(&name("a"), Some(&node("n1")), &[chain("b>n2")], avoid(5), move |_| times)
                .is_ok()
        };
        assert!(fires(2));
        assert!(!fires(3));
    }

    #[test]
    fn at_most_eight_chains_go_on_shortest_first() {
        let causes: Vec<Event> = (0..12_u32)
            .map(|n| {
                let hops =
                    (0..n).map(|h| Hop { trigger: name(&format!("t{h}")), certname: node("x") }).collect();
                let root = event_id(u128::from(n));
                Event {
                    lineage: Lineage { chains: vec![Chain { root, hops }] },
                    ..event(1, &format!("u{n}"))
                }
            })
            .rev()
            .collect();
        let chains = chains_through(&node("here"), &causes);
        let permitted = permitted_chains(&name("z"), Some(&node("n1")), &chains, avoid(64), |_| 0).unwrap();
        let lengths: Vec<usize> = permitted.iter().map(|chain| chain.hops.len()).collect();
        assert_eq!(lengths, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(permitted.iter().all(|chain| chain.hops.last().unwrap().certname == node("here")));
    }

    #[test]
    fn every_target_finds_a_chain_that_permits_it_among_those_that_go_on() {
        // Nine short chains pass through n1, which only a long one permits.
        let roots = (1..=9).map(|root| Chain { root: event_id(root), ..chain("a>n1") });
        let short: Vec<Chain> = roots.take(MAX_CHAINS).collect();
        let long = chain("b>n2 c>n3 d>n4");
        let carried = carried(&BTreeSet::from([short.clone(), vec![long.clone()]]));
        assert_eq!(carried.len(), MAX_CHAINS);
        assert_eq!(carried[..MAX_CHAINS - 1], short[..MAX_CHAINS - 1]);
        assert_eq!(carried[MAX_CHAINS - 1], long);
        assert!(super::carried(&BTreeSet::new()).is_empty());
    }

    /// Eight chains with the hops of `text`, from roots of their own.
    fn eight(text: &str) -> Vec<Chain> {
        (1..=8).map(|n| Chain { root: event_id(n), ..chain(text) }).collect()
    }

    #[test]
    fn chains_that_differ_in_their_root_alone_crowd_out_no_other() {
        let mut chains = eight("a>n1");
        chains.push(chain("b>n2 c>n3"));
        let judged = |target: Option<&str>| {
            permitted_chains(&name("a"), target.map(node).as_ref(), &chains, avoid(5), |_| 0).unwrap()
        };
        // A group: its member n1 is permitted by the longer chain only, and finds it.
        let permitted = judged(None);
        assert_eq!(permitted.len(), MAX_CHAINS);
        assert_eq!(permitted.last(), Some(&chain("b>n2 c>n3")));
        let carried = carried(&BTreeSet::from([permitted]));
        assert_eq!(carried.len(), MAX_CHAINS);
        let lineage = Lineage { chains: carried };
        assert_eq!(repeats_in_every_chain(&name("a"), &node("n1"), &lineage, Loops::Avoid), None);
        // A node that all of them permit gets one of each kind too, and one that only the others do those.
        assert_eq!(judged(Some("n9")).last(), Some(&chain("b>n2 c>n3")));
        assert_eq!(judged(Some("n1")), [chain("b>n2 c>n3")]);
    }

    #[test]
    fn what_room_is_left_goes_to_other_hops_before_other_roots() {
        let served = eight("a>n1");
        let others: Vec<Chain> = (1..=5).map(|n| chain(&format!("b>n2 c>m{n}"))).collect();
        let carried = carried(&BTreeSet::from([served.clone(), [&served[..3], &others].concat()]));
        assert_eq!(carried, [&served[..3], &others].concat());
    }

    #[test]
    fn a_root_whose_fires_are_used_up_takes_no_place_from_one_with_the_same_hops() {
        let chains = [chain("a>n1"), Chain { root: event_id(2), ..chain("a>n1") }];
        let fires = |root| if root == event_id(1) { MAX_FIRES_PER_ROOT } else { 0 };
        assert_eq!(permitted_chains(&name("b"), None, &chains, avoid(5), fires), Ok(vec![chains[1].clone()]));
    }

    #[test]
    fn a_chain_that_permitted_another_target_only_ends_here() {
        let through = |loops, chains: &[&str]| {
            let lineage = Lineage { chains: chains.iter().map(|text| chain(text)).collect() };
            chains_through(&node("n1"), [&Event { lineage, loops, ..event(1, "a") }])
        };
        let chains = ["b>n2", "a>n1 b>n2"];
        assert_eq!(through(Loops::Avoid, &chains), [chain("b>n2 a>n1")]);
        assert_eq!(through(Loops::Allow, &chains), [chain("b>n2 a>n1"), chain("a>n1 b>n2 a>n1")]);
    }

    #[test]
    fn a_member_of_a_group_judges_the_pair_for_itself() {
        let lineage = |chains: &[&str]| Lineage { chains: chains.iter().map(|text| chain(text)).collect() };
        let repeats = |chains: &[&str], loops| {
            repeats_in_every_chain(&name("a"), &node("n1"), &lineage(chains), loops).is_some()
        };
        assert!(repeats(&["a>n1 b>n2"], Loops::Avoid));
        assert!(!repeats(&["a>n1 b>n2"], Loops::Allow));
        assert!(!repeats(&["a>n1", "b>n2"], Loops::Avoid));
        assert!(!repeats(&[""], Loops::Avoid));
    }

    #[test]
    fn a_loop_that_is_allowed_ends_by_its_hops_or_by_its_fires() {
        let fires = |chains: &[&str], ttl, times| {
            let chains: Vec<Chain> = chains.iter().map(|text| chain(text)).collect();
            permitted_chains(&name("a"), Some(&node("n1")), &chains, allow(ttl), |_| times)
        };
        assert!(fires(&["a>n1 b>n2"], 3, 2).is_ok());
        assert!(matches!(fires(&["a>n1 b>n2"], 2, 2), Err(Suppression::TooManyHops { .. })));
        assert!(matches!(fires(&["a>n1 b>n2"], 3, 3), Err(Suppression::TooManyFires { .. })));
    }
}
