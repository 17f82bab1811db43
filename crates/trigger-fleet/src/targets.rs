//! What the registrations say about the targets of an event when it is fired: names that no agent has registered under,
//! and nodes whose clocks are ahead. Both are only for warnings: a node may register later.

use std::collections::{BTreeMap, BTreeSet};

use trigger_core::identity::Certname;
use trigger_core::keyspace::{Key, Range};
use trigger_core::time::Timestamp;
use trigger_store::store::{MAX_ORDERED_ENTRIES, StoreError};

use crate::fleet::Fleet;

/// The most edits by which a name may differ from the one that was meant.
const MAX_EDITS: usize = 3;
/// The most unknown names for which a nearest one is looked for.
const MAX_SUGGESTIONS: usize = 16;

/// The targets of an event by their registrations.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RegisteredTargets {
    /// Names that no agent has registered under, each with the most similar name that one has.
    pub unregistered: BTreeMap<Certname, Option<Certname>>,
    /// When each of the others renewed its registration, by its own clock. Empty for an event with many targets.
    pub seen_at: BTreeMap<Certname, Timestamp>,
}

impl Fleet {
    /// Looks up which of `targets` have registered.
    ///
    /// # Errors
    /// When the backend does not answer.
    pub async fn registered_targets(
        &self,
        targets: &BTreeSet<&Certname>,
    ) -> Result<RegisteredTargets, StoreError> {
        let mut found = RegisteredTargets::default();
        if targets.len() <= MAX_ORDERED_ENTRIES {
            let nodes = self.nodes_of(&targets.iter().copied().collect::<Vec<_>>()).await?;
            found.seen_at = nodes.into_iter().map(|(certname, node)| (certname, node.seen_at)).collect();
            if found.seen_at.len() == targets.len() {
                return Ok(found);
            }
        }
        // A record that this version cannot read is a registration too: its key says so.
        let node = |(key, _)| match key {
            Key::Node { certname } => Some(certname),
            _ => None,
        };
        let known: BTreeSet<Certname> =
            self.list(&[self.all(&Range::Nodes)]).await?.into_iter().filter_map(node).collect();
        let unknown = targets.iter().filter(|target| !known.contains(**target)).enumerate();
        let nearest = |(index, target): (usize, &&Certname)| {
            let nearest = if index < MAX_SUGGESTIONS { nearest(target, &known) } else { None };
            ((*target).clone(), nearest.cloned())
        };
        found.unregistered = unknown.map(nearest).collect();
        Ok(found)
    }
}

/// The name that was probably meant by one that is not known: the same host with or without its domain, else the one
/// that differs least.
fn nearest<'k>(wanted: &Certname, known: &'k BTreeSet<Certname>) -> Option<&'k Certname> {
    let is_same_host = |other: &&Certname| {
        let (short, long) = (wanted.as_str(), other.as_str());
        let (short, long) = if short.len() < long.len() { (short, long) } else { (long, short) };
        long.strip_prefix(short).is_some_and(|rest| rest.starts_with('.'))
    };
    let most = MAX_EDITS.min(wanted.as_str().len().saturating_sub(1) / 2);
    let edits = |other: &&Certname| strsim::damerau_levenshtein(wanted.as_str(), other.as_str());
    known.iter().find(is_same_host).or_else(|| {
        let near = known.iter().map(|other| (edits(&other), other)).filter(|(edits, _)| *edits <= most);
        near.min_by_key(|(edits, _)| *edits).map(|(_, other)| other)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(wanted: &str, expected: Option<&str>) {
        let known = ["db01.example.com", "lb01.example.com", "lb02.example.com", "web"];
        let known = known.iter().map(|name| name.parse().unwrap()).collect();
        let found = nearest(&wanted.parse().unwrap(), &known).map(Certname::as_str);
        assert_eq!(found, expected, "{wanted}");
    }

    #[test]
    fn the_nearest_name_is_the_one_that_was_probably_meant() {
        check("lb1.example.com", Some("lb01.example.com"));
        check("lb01.exmaple.com", Some("lb01.example.com"));
        check("lb02", Some("lb02.example.com"));
        check("web.example.com", Some("web"));
        check("mail.example.org", None);
        check("x", None);
    }
}
