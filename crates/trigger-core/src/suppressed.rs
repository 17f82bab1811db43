//! The sentences in Puppet's output about targets that the loop guard suppressed (C7).

use crate::identity::Certname;
use crate::loop_guard::Suppression;

/// Targets that one sentence names; the others are counted.
const MAX_NAMED: usize = 3;

/// One sentence for each reason, with the targets that were suppressed for it: an event may have a hundred thousand
/// targets. `suppressed` has pairs of target and reason.
pub fn sentences(suppressed: impl IntoIterator<Item = (String, String)>) -> Vec<String> {
    let mut by_reason: Vec<(String, Vec<String>)> = Vec::new();
    for (target, reason) in suppressed {
        // There are few reasons: they differ in the chain, or in a node that is part of the chain.
        match by_reason.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, all)) => all.push(target),
            None => by_reason.push((reason, vec![target])),
        }
    }
    by_reason.iter().map(|(reason, all)| format!("not fired at {}: {reason}", named(all))).collect()
}

/// The sentences for members of an event's groups, which suppress the event themselves when it reaches them.
pub fn of_members<'a>(members: impl IntoIterator<Item = (&'a Certname, &'a Suppression)>) -> Vec<String> {
    let members = members.into_iter();
    sentences(members.map(|(member, reason)| (format!("the group member {member}"), reason.to_string())))
}

fn named(all: &[String]) -> String {
    let listed = &all[..all.len().min(MAX_NAMED)];
    match (all.len() - listed.len(), listed) {
        (0, [rest @ .., last]) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        (0, _) => listed.join(", "),
        (more, _) => format!("{} and {more} more", listed.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(suppressed: &[(&str, &str)], expected: &[&str]) {
        let suppressed =
            suppressed.iter().map(|(target, reason)| ((*target).to_owned(), (*reason).to_owned()));
        assert_eq!(sentences(suppressed), expected);
    }

    #[test]
    fn one_sentence_for_each_reason() {
        check(&[("a", "loop")], &["not fired at a: loop"]);
        check(
            &[("a", "loop"), ("b", "too far"), ("c", "loop"), ("the group lb", "too far")],
            &["not fired at a and c: loop", "not fired at b and the group lb: too far"],
        );
    }

    #[test]
    fn of_ten_thousand_nodes_three_are_named() {
        let nodes: Vec<String> = (1..=10_000).map(|n| format!("n{n}")).collect();
        let suppressed: Vec<(&str, &str)> = nodes.iter().map(|node| (node.as_str(), "too far")).collect();
        check(&suppressed, &["not fired at n1, n2, n3 and 9997 more: too far"]);
    }
}
