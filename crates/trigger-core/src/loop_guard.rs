//! The loop guard (C7): whether an event may reach a target, and which chains it carries on.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::event::{Event, Target};
use crate::identity::{Certname, EventId, TriggerName};
use crate::lineage::{Chain, Hop, Lineage, Loops, MAX_CHAINS};
use crate::publication::Publication;

/// Hops a chain may have when the resource does not say.
pub const DEFAULT_TTL: u32 = 5;

/// The most hops a resource may ask for: a longer chain is a loop by any other name.
pub const MAX_TTL: u32 = 64;

/// How often one trigger may fire on one node for the same root event.
pub const MAX_FIRES_PER_ROOT: u32 = 3;

/// What a resource asks of the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Whether a trigger may make the same target run again in one chain.
    pub loops: Loops,
    /// Hops a chain may have.
    pub ttl: u32,
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

/// Leaves out what the loop guard suppresses, and says what and why. `chains` lead to the run that fires;
/// `fires` tells how often this trigger fired on this node for a root before.
pub fn suppress(
    publication: &mut Publication,
    ttl: u32,
    chains: Vec<Chain>,
    fires: impl Fn(EventId) -> u32,
) -> Vec<(Target, Suppression)> {
    let event = &mut publication.event;
    let rules = Rules { loops: event.loops, ttl };
    let mut suppressed = Vec::new();
    let mut permitted: BTreeSet<Vec<Chain>> = BTreeSet::new();
    for host in &event.targets.hosts {
        match permitted_chains(&event.trigger, Some(host), &chains, rules, &fires) {
            Ok(chains) => drop(permitted.insert(chains)),
            Err(suppression) => {
                publication.suppressed.insert(host.clone(), suppression.to_string());
                suppressed.push((Target::Node(host.clone()), suppression));
            }
        }
    }
    if !event.targets.groups.is_empty() {
        match permitted_chains(&event.trigger, None, &chains, rules, &fires) {
            Ok(chains) => drop(permitted.insert(chains)),
            Err(suppression) => {
                for group in std::mem::take(&mut event.targets.groups) {
                    publication.suppressed_groups.insert(group.clone(), suppression.to_string());
                    suppressed.push((Target::Group(group), suppression.clone()));
                }
            }
        }
    }
    if permitted.is_empty() {
        permitted.insert(chains);
    }
    event.lineage = Lineage { chains: carried(&permitted) };
    suppressed
}

/// Whether the loop guard left out every target.
pub fn is_suppressed(publication: &Publication) -> bool {
    let targets = &publication.event.targets;
    targets.groups.is_empty() && targets.hosts.len() == publication.suppressed.len()
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
mod tests;
