//! Deliveries that end without a run of their own: suppressed and superseded.

use super::*;

const ENDS: &str = "every delivery ends visibly";

/// The event of run `r1` of `b` came by these chains, each named by its root. The run fires `t` as `e2` at `d` and at
/// the group `g` (`c`), and every target is suppressed.
fn suppressed_after(chains: &[(&str, &[(&str, &str)])]) -> impl Fn(&mut Artifacts) {
    let chain = |(root, hops): &(&str, &[(&str, &str)])| Chain {
        root: (*root).to_owned(),
        ..cause("e1", hops).chains.remove(0)
    };
    let chains: Vec<Chain> = chains.iter().map(chain).collect();
    move |e| {
        e.runs[0].start.causes[0].trigger = "s".to_owned();
        e.runs[0].start.causes[0].chains = chains.clone();
        e.fires.push(Fire { parent: Some("r1".to_owned()), hosts: vec!["d".to_owned()], ..fire("e2", 25) });
        e.fires[1].origin = "b".to_owned();
        e.statuses.insert("e2".to_owned(), vec![target("d", "suppressed"), target("c", "suppressed")]);
    }
}

#[test]
fn a_target_that_every_chain_holds_is_suppressed() {
    let both = suppressed_after(&[("x", &[("t", "d"), ("t", "c")]), ("y", &[("t", "c"), ("t", "d")])]);
    assert_eq!(doctored(both), [""; 0]);
    let member_alone = suppressed_after(&[("x", &[("t", "c")])]);
    assert_eq!(doctored(member_alone), [ENDS], "nothing led to d before");
    let one_of_two = suppressed_after(&[("x", &[("t", "d"), ("t", "c")]), ("y", &[("u", "c"), ("t", "d")])]);
    assert_eq!(doctored(one_of_two), [ENDS], "a chain permits c");
    assert_eq!(doctored(suppressed_after(&[("x", &[("u", "d"), ("u", "c")])])), [ENDS], "another trigger");
}

#[test]
fn a_chain_as_long_as_the_ttl_suppresses_everything() {
    let four = [("s", "a"), ("s", "c"), ("s", "d"), ("s", "e")];
    assert_eq!(doctored(suppressed_after(&[("x", &four)])), [""; 0]);
    assert_eq!(doctored(suppressed_after(&[("x", &four[..3])])), [ENDS]);
}

#[test]
fn a_budget_that_is_used_up_suppresses_everything() {
    let fired = |times: u64, root: &str| {
        doctored(|e| {
            suppressed_after(&[(root, &[])])(e);
            for number in 0..times {
                let event = format!("f{number}");
                let answer = Answer::Success { event: event.clone(), state: "committed".to_owned() };
                let (hosts, groups) = (vec!["a".to_owned()], Vec::new());
                e.fires.push(Fire { hosts, groups, answer, before: 21 + number, ..e.fires[1].clone() });
                let (name, at) = (format!("r{event}"), 100 * (number + 1));
                e.runs.push(run(&name, "a", (at, at + 10), &event));
                e.runs.last_mut().unwrap().start.causes[0].chains[0].root = root.to_owned();
                e.statuses.insert(event, vec![done("a", &name)]);
            }
        })
    };
    assert_eq!(fired(3, "x"), [""; 0]);
    assert_eq!(fired(2, "x"), [ENDS]);
}

#[test]
fn only_what_a_run_fired_is_suppressed() {
    assert_eq!(doctored(|e| statuses(e, "e1")[0] = target("b", "suppressed")), [ENDS]);
}

fn superseded_by(certname: &str, successor: &str) -> Target {
    let reason = format!("in a long backlog, superseded by the later event {successor}");
    Target { reason: Some(reason), ..target(certname, "superseded") }
}

/// `e1` is superseded at `b` by the last of `successors`, each of them by the next; the last one runs.
fn superseded(successors: &[&str], doctor: impl Fn(&mut Artifacts)) -> Vec<&'static str> {
    let names = [&["e1"], successors].concat();
    doctored(|e| {
        for (number, name) in successors.iter().enumerate() {
            e.fires.push(Fire { groups: Vec::new(), ..fire(name, 12 + number as u64) });
        }
        for pair in names.windows(2) {
            let end = superseded_by("b", pair[1]);
            match statuses(e, pair[0]).first_mut() {
                Some(target) => *target = end,
                None => statuses(e, pair[0]).push(end),
            }
        }
        let last = successors[successors.len() - 1];
        e.runs[0].start.causes = vec![cause(last, &[])];
        statuses(e, last).push(done("b", "r1"));
        doctor(e);
    })
}

#[test]
fn a_superseded_event_is_honoured_by_the_last_of_its_successors() {
    assert_eq!(superseded(&["e2"], |_| ()), [""; 0]);
    assert_eq!(superseded(&["e2", "e3"], |_| ()), [""; 0]);
    let pending = |e: &mut Artifacts| statuses(e, "e2")[0].state = "pending".to_owned();
    assert_eq!(superseded(&["e2"], pending), [ENDS, "no lost wake-up"]);
}

#[test]
fn a_successor_that_cannot_stand_for_the_event_is_found() {
    assert_eq!(superseded(&["e2"], |e| e.fires[1].trigger = "s".to_owned()), [ENDS]);
    assert_eq!(superseded(&["e2"], |e| e.fires[1].origin = "c".to_owned()), [ENDS]);
    let earlier = |e: &mut Artifacts| (e.fires[1].before, e.fires[1].after) = (5, 9);
    assert_eq!(superseded(&["e2"], earlier), [ENDS]);
    let unknown = |e: &mut Artifacts| statuses(e, "e1")[0] = superseded_by("b", "e9");
    assert_eq!(superseded(&["e2"], unknown), [ENDS]);
}

#[test]
fn successors_that_go_round_in_a_circle_are_found() {
    let circle = |e: &mut Artifacts| {
        statuses(e, "e2")[0] = superseded_by("b", "e1");
        e.runs.remove(0);
        e.records.clear();
    };
    assert_eq!(superseded(&["e2"], circle), [ENDS]);
}

#[test]
fn a_successors_end_is_judged_like_any_other() {
    let lost = |e: &mut Artifacts| e.runs[0].end.as_mut().unwrap().code = 1;
    assert_eq!(superseded(&["e2"], lost), ["no lost wake-up"]);
}
