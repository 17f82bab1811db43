//! What a node's manifests do when it runs: they are random, but fixed for the whole of a seed, loops included.

use trigger_core::event::RunOptions;
use trigger_core::identity::{Certname, GroupName, TriggerName};
use trigger_core::lineage::Loops;

/// A `trigger` resource that something notifies.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) trigger: TriggerName,
    pub(crate) hosts: Vec<Certname>,
    pub(crate) groups: Vec<GroupName>,
    pub(crate) options: RunOptions,
    pub(crate) ttl: u32,
    pub(crate) loops: Loops,
}

#[expect(clippy::panic, reason = "the simulation's own names")]
pub(crate) fn name<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("'{text}' is a name"))
}

pub(crate) fn certname(node: usize) -> Certname {
    name(&format!("n{node}"))
}

/// Draws run options: sometimes tags, sometimes noop, sometimes an environment.
pub(crate) fn options(rng: &mut fastrand::Rng) -> RunOptions {
    let tags = match rng.u8(..6) {
        0 => vec![name("web")],
        1 => vec![name("db")],
        2 => vec![name("db"), name("web")],
        _ => Vec::new(),
    };
    let environment = (rng.u8(..8) == 0).then(|| name("test"));
    RunOptions { tags: tags.into_iter().collect(), noop: rng.u8(..8) == 0, environment }
}

/// Draws up to two rules for a node. There are few trigger names, so that chains meet themselves.
pub(crate) fn draw(rng: &mut fastrand::Rng, nodes: usize) -> Vec<Rule> {
    let rule = |rng: &mut fastrand::Rng| {
        let hosts = (0..rng.usize(1..=2)).map(|_| certname(rng.usize(..nodes))).collect();
        let to_group = rng.u8(..4) == 0;
        Rule {
            trigger: name(["reload", "sync"][rng.usize(..2)]),
            hosts: if to_group { Vec::new() } else { hosts },
            groups: if to_group { vec![name("all")] } else { Vec::new() },
            options: options(rng),
            ttl: rng.u32(1..=5),
            loops: if rng.u8(..5) == 0 { Loops::Allow } else { Loops::Avoid },
        }
    };
    (0..rng.usize(..=2)).map(|_| rule(rng)).collect()
}
