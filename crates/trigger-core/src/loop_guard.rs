//! What the loop guard makes of an event that a run fires (C7): whom it leaves out, and which chains
//! the event goes on with.

use std::collections::BTreeSet;

use crate::history::Target;
use crate::identity::EventId;
use crate::lineage::{Chain, Lineage, Rules, Suppression, carried, permitted_chains};
use crate::wire::Publication;

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
