//! The loop guard (C7): whether an event may reach a target, and which chains it carries on.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::count::count;
use crate::event::{Event, Target};
use crate::identity::{Certname, EventId, TriggerName};
use crate::lineage::{Chain, Hop, Lineage, Loops, MAX_CHAINS};
use crate::publication::Publication;

/// How many hops a chain may have unless the resource sets a `ttl`.
pub const DEFAULT_TTL: u32 = 5;
/// The highest `ttl` of a resource. A longer chain can only be a loop.
pub const MAX_TTL: u32 = 64;
/// How often one trigger may fire on one node for the same root event.
pub const MAX_FIRES_PER_ROOT: u32 = 3;

/// The parameters of a `trigger` resource by which the loop guard decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuardSettings {
    /// Whether a trigger may make the same target run again in one chain.
    pub loops: Loops,
    /// How many hops a chain may have.
    pub ttl: u32,
}

/// Why the loop guard suppresses an event at a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant is its message")]
pub enum Suppression {
    #[error("loop: '{trigger}' already made {certname} run in this chain ({chain})")]
    AlreadyInChain { trigger: TriggerName, certname: Certname, chain: String },
    #[error("loop guard: the chain has {} and this trigger's ttl is {ttl} ({chain})", count(*hops, "hop"))]
    TooManyHops { hops: usize, ttl: u32, chain: String },
    #[error("loop guard: '{trigger}' fired {fires} times on this node for the same root event {root}")]
    TooManyFires { trigger: TriggerName, fires: u32, root: EventId },
}

/// The rule by which the loop guard suppresses an event at a target.
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
    /// All rules.
    pub const ALL: [Self; 3] = [Self::Pair, Self::Hops, Self::Fires];

    /// The name in metrics.
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

/// Suppresses the targets of an event that the loop guard does not permit, sets the event's lineage, and returns the
/// suppressed targets. `chains` lead to the run inside which the event is fired; `fires` returns how often the trigger
/// has fired on this node for a root event before.
pub fn suppress(
    publication: &mut Publication,
    ttl: u32,
    chains: Vec<Chain>,
    fires: impl Fn(EventId) -> u32,
) -> Vec<(Target, Suppression)> {
    let event = &mut publication.event;
    let settings = GuardSettings { loops: event.loops, ttl };
    let mut suppressed = Vec::new();
    let mut permitted: BTreeSet<Vec<Chain>> = BTreeSet::new();
    for host in &event.targets.hosts {
        match permitted_chains(&event.trigger, Some(host), &chains, settings, &fires) {
            Ok(chains) => drop(permitted.insert(chains)),
            Err(suppression) => {
                publication.suppressed.insert(host.clone(), suppression.to_string());
                suppressed.push((Target::Node(host.clone()), suppression));
            }
        }
    }
    if !event.targets.groups.is_empty() {
        match permitted_chains(&event.trigger, None, &chains, settings, &fires) {
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

/// Whether the loop guard suppressed the event at every target.
pub fn is_suppressed(publication: &Publication) -> bool {
    let targets = &publication.event.targets;
    targets.groups.is_empty() && targets.hosts.len() == publication.suppressed.len()
}

/// The chains that an event fired inside a run of `node` continues: for each cause of the run, the chains that
/// permitted it at this node, each with the hop to this node.
///
/// An event carries the chains that permitted any of its targets. A chain that already has a hop of the cause's trigger
/// to `node` permitted another target, but not this one, unless loops are allowed.
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

/// The order in which chains are kept everywhere. Chains with the same hops are adjacent.
fn shortest_first(a: &Chain, b: &Chain) -> Ordering {
    a.hops.len().cmp(&b.hops.len()).then_with(|| a.hops.cmp(&b.hops)).then_with(|| a.root.cmp(&b.root))
}

fn has_same_hops(a: &Chain, b: &Chain) -> bool {
    a.hops == b.hops
}

/// The first [`MAX_CHAINS`] of some chains in their order: first one chain for each list of hops, then others.
fn with_distinct_hops_first<'a>(chains: impl IntoIterator<Item = &'a Chain>) -> Vec<&'a Chain> {
    let (mut chosen, mut others): (Vec<&Chain>, Vec<&Chain>) = (Vec::new(), Vec::new());
    for chain in chains {
        if chosen.last().is_none_or(|latest| !has_same_hops(latest, chain)) {
            chosen.push(chain);
        } else if others.len() < MAX_CHAINS {
            others.push(chain);
        }
        // Stops early: a run may have thousands of causes and fire at thousands of targets.
        if chosen.len() == MAX_CHAINS {
            break;
        }
    }
    chosen.extend(others.into_iter().take(MAX_CHAINS - chosen.len()));
    chosen
}

/// The chains that permit an event of `trigger` at one target. `chains` are in the order of [`chains_through`], and so
/// is the result; where there are more than [`MAX_CHAINS`], chains with different hops are preferred.
///
/// The members of a group are not known at the origin. For a group, `target` is absent, and each member checks the pair
/// of trigger and target itself with [`repeats_in_every_chain`].
///
/// `fires` returns how often the trigger has fired on this node for a root event before.
///
/// # Errors
///
/// If no chain permits the event: why the shortest one does not.
pub fn permitted_chains(
    trigger: &TriggerName,
    target: Option<&Certname>,
    chains: &[Chain],
    settings: GuardSettings,
    fires: impl Fn(EventId) -> u32,
) -> Result<Vec<Chain>, Suppression> {
    let mut first_suppression = None;
    let permitting = chains.iter().filter(|chain| {
        let suppression = suppression(trigger, target, chain, settings, fires(chain.root));
        let is_permitting = suppression.is_none();
        first_suppression = first_suppression.take().or(suppression);
        is_permitting
    });
    let permitting = with_distinct_hops_first(permitting);
    match (permitting.is_empty(), first_suppression) {
        (true, Some(suppression)) => Err(suppression),
        _ => Ok(in_order(permitting)),
    }
}

fn in_order(mut chains: Vec<&Chain>) -> Vec<Chain> {
    chains.sort_by(|a, b| shortest_first(a, b));
    chains.into_iter().cloned().collect()
}

/// Chooses the chains that an event carries, at most [`MAX_CHAINS`], from those that permit its targets. `permitting`
/// has the result of [`permitted_chains`] for each target.
///
/// At least one chain is carried for each target, since the target looks for loops itself. Chains with different hops
/// come next, since the members of the event's groups do so too, and then the shortest chains.
pub fn carried(permitting: &BTreeSet<Vec<Chain>>) -> Vec<Chain> {
    let mut all: Vec<&Chain> = permitting.iter().flatten().collect();
    all.sort_by(|a, b| shortest_first(a, b));
    all.dedup();
    let mut unserved: Vec<&Vec<Chain>> = permitting.iter().filter(|chains| !chains.is_empty()).collect();
    let mut chosen: Vec<&Chain> = Vec::new();
    while chosen.len() < MAX_CHAINS && !unserved.is_empty() {
        // `max_by_key` returns the last of equals, and the shortest chain is to be chosen.
        let serves = |chain: &Chain| unserved.iter().filter(|chains| chains.contains(chain)).count();
        let Some(best) = all.iter().rev().max_by_key(|chain| serves(chain)).copied() else { break };
        unserved.retain(|chains| !chains.contains(best));
        chosen.push(best);
    }
    for is_covered_by in [has_same_hops, Chain::eq] {
        for chain in &all {
            if chosen.len() < MAX_CHAINS && !chosen.iter().any(|other| is_covered_by(other, chain)) {
                chosen.push(chain);
            }
        }
    }
    in_order(chosen)
}

/// The reason to suppress an event at `node` if its trigger already made `node` run in each of its chains and the event
/// avoids loops. Members of a group check this when the event reaches them. Hops and fires are counted at the origin.
pub fn repeats_in_every_chain(
    trigger: &TriggerName,
    node: &Certname,
    lineage: &Lineage,
    loops: Loops,
) -> Option<Suppression> {
    let settings = GuardSettings { loops, ttl: u32::MAX };
    let mut suppressions =
        lineage.chains.iter().map(|chain| suppression(trigger, Some(node), chain, settings, 0));
    let first = suppressions.next()??;
    suppressions.all(|suppression| suppression.is_some()).then_some(first)
}

/// Why one chain does not permit an event at a target, if it does not.
fn suppression(
    trigger: &TriggerName,
    target: Option<&Certname>,
    chain: &Chain,
    GuardSettings { loops, ttl }: GuardSettings,
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
