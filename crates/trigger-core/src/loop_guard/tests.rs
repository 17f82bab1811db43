//! Scenarios of the loop guard.

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

fn avoid(ttl: u32) -> GuardSettings {
    GuardSettings { loops: Loops::Avoid, ttl }
}

fn allow(ttl: u32) -> GuardSettings {
    GuardSettings { loops: Loops::Allow, ttl }
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

/// Proves C7.
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
        permitted_chains(&name("a"), Some(&node("n1")), &[chain("b>n2")], avoid(5), move |_| times).is_ok()
    };
    assert!(fires(2));
    assert!(!fires(3));
}

#[test]
fn at_most_eight_chains_go_on_shortest_first() {
    let causes: Vec<Event> = (0..12_u32)
        .map(|n| {
            let hops = (0..n).map(|h| Hop { trigger: name(&format!("t{h}")), certname: node("x") }).collect();
            let root = event_id(u128::from(n));
            Event { lineage: Lineage { chains: vec![Chain { root, hops }] }, ..event(1, &format!("u{n}")) }
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
fn chains_that_differ_in_their_root_alone_displace_no_other() {
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
fn remaining_places_go_to_other_hops_before_other_roots() {
    let served = eight("a>n1");
    let others: Vec<Chain> = (1..=5).map(|n| chain(&format!("b>n2 c>m{n}"))).collect();
    let carried = carried(&BTreeSet::from([served.clone(), [&served[..3], &others].concat()]));
    assert_eq!(carried, [&served[..3], &others].concat());
}

#[test]
fn a_root_whose_fires_are_used_up_displaces_no_chain_with_the_same_hops() {
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
fn a_member_of_a_group_checks_the_pair_itself() {
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
