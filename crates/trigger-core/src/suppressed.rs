//! Whom the loop guard left out, in sentences for Puppet's output (C7).

use crate::identity::Certname;
use crate::loop_guard::Suppression;

/// Names in one sentence; the others are counted.
const NAMED: usize = 3;

/// One sentence for all that were left out for one reason: an event may be for a hundred thousand.
pub fn sentences(suppressed: impl IntoIterator<Item = (String, String)>) -> Vec<String> {
    let mut by_reason: Vec<(String, Vec<String>)> = Vec::new();
    for (whom, reason) in suppressed {
        // Few reasons: they differ in the chain, or in a node that is part of one.
        match by_reason.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, all)) => all.push(whom),
            None => by_reason.push((reason, vec![whom])),
        }
    }
    by_reason.iter().map(|(reason, all)| format!("not fired at {}: {reason}", named(all))).collect()
}

/// The same for members of an event's groups, who leave themselves out when it reaches them.
pub fn of_members<'a>(members: impl IntoIterator<Item = (&'a Certname, &'a Suppression)>) -> Vec<String> {
    let members = members.into_iter();
    sentences(members.map(|(member, reason)| (format!("the group member {member}"), reason.to_string())))
}

fn named(all: &[String]) -> String {
    let listed = &all[..all.len().min(NAMED)];
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
        let suppressed = suppressed.iter().map(|(whom, reason)| ((*whom).to_owned(), (*reason).to_owned()));
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
