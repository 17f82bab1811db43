//! Long backlogs.

use super::*;
use crate::queue::waiting::MAX_BACKLOG;

/// Proves C5.
#[test]
fn the_deliveries_of_one_reading_share_one_run() {
    check("[ e1 e2 e3 ]", "run[e1,e2,e3]");
    check("[ e1 e2:web e3~ ] +1000 unchanged", "run[e1,e2] finish[e1=done,e2=done] run~[e3]");
    // A long reading comes in portions.
    check("[ e1 e2 [ +400 e3 +400 ]", "run[e1,e2,e3]");
    // What is read again costs nothing.
    check(
        "[ e1 e2 ] +2000 unchanged [ e1 e2 e3 e4 ]",
        "run[e1,e2] finish[e1=done,e2=done] delete[e1] delete[e2] run[e3,e4]",
    );
    // A reading during a run delays nothing but the next one.
    check("e1 [ e2 +1500 unchanged e3 ]", "run[e1] finish[e1=done] run[e2,e3]");
}

#[test]
fn a_reading_without_an_end_does_not_hold_up_what_it_has_delivered() {
    check("[ e1 +9999 e2 +0", "");
    check("[ e1 +9999 e2 +1", "run[e1,e2]");
    let mut world = world();
    world.play("[ e1");
    assert_eq!(world.queue.next_wake(), Some(READING_TIMEOUT));
    assert!(!world.queue.may_start(world.now, &Input::Tick));
    assert!(world.queue.may_start(world.now, &Input::ReadingEnded { is_whole: false }));
    world.play("] e2 [ e3 +5000 [ e4 +5000");
    assert_eq!(world.seen.join(" "), "run[e1]", "one run at a time");
    world.play("unchanged");
    assert_eq!(world.seen.last().unwrap(), "run[e2,e3,e4]", "a second portion is no second delay");
}

#[test]
fn a_burst_of_two_hundred_costs_a_handful_of_runs_and_loses_none() {
    let mut world = world();
    for n in 1..=200 {
        world.play(&format!("e{n} +5"));
        if n % 2 == 0 && world.queue.active.is_some() {
            world.play("unchanged");
        }
    }
    world.play("+1500 unchanged +1500 unchanged");
    let runs: Vec<&String> = world.seen.iter().filter(|s| s.starts_with("run")).collect();
    assert!(runs.len() <= 5, "{runs:?}");
    assert!(runs.last().unwrap().contains("e200"));
    let ends = world.seen.iter().flat_map(|s| s.matches('=')).count();
    assert_eq!(ends, 200);
}

#[test]
fn in_a_long_backlog_only_later_equals_supersede_an_event() {
    let mut world = world();
    world.play("block");
    for n in 1..=MAX_BACKLOG {
        world.play(&format!("e{n}:t{n}"));
    }
    world.play("e100 e101");
    // Sixty-four different requests, then two alike: the earlier of the two goes.
    assert_eq!(world.seen, ["finish[e100=superseded(e101)]"]);
}

#[test]
fn every_superseded_event_names_a_later_one_that_is_still_there() {
    let mut world = world();
    world.play("block");
    for n in 1..=500 {
        world.play(&format!("e{n}"));
    }
    world.play("unblock");
    let run = world.seen.last().unwrap().clone();
    assert!(run.starts_with("run[") && run.contains("e500"), "{run}");
    assert_eq!(world.seen.iter().filter(|s| s.contains("superseded")).count(), 500 - MAX_BACKLOG);
}

#[test]
fn a_new_event_is_compared_once_with_a_backlog_that_has_no_duplicates() {
    let mut world = world();
    world.play("block");
    let of = |n: u128| {
        let mut cause = cause(&format!("e{n}"));
        cause.event.origin = format!("node{n}").parse().unwrap();
        cause
    };
    // At every pair this would take minutes.
    for n in 1..=2_000 {
        world.input(Input::Delivered(Box::new(of(n))));
    }
    assert_eq!(world.seen, [""; 0]);
    // An equal of the first one, and of the second one after a run that did not happen.
    let again = |n: u128, origin: u128| {
        let event = Event { id: samples::event_id(n), ..of(origin).event };
        Input::Delivered(Box::new(Cause { event, ..of(origin) }))
    };
    world.input(again(20_000, 1));
    assert_eq!(world.seen, ["finish[e1=superseded(e20000)]"]);
    world.play("unblock");
    world.seen.clear();
    world.input(again(20_001, 2));
    world.play("not_run");
    world.input(again(20_002, 3));
    assert_eq!(world.seen, ["finish[]", "finish[e2=superseded(e20001),e3=superseded(e20002)]"]);
}

#[test]
fn the_record_of_a_node_is_bounded_however_many_deliveries_wait() {
    let mut world = world();
    let reason = "ä".repeat(10_000);
    world.input(disabled(Some(&reason)));
    for n in 1..=(MAX_LISTED as u128 + 500) {
        let mut cause = cause(&format!("e{n}"));
        cause.event.origin = format!("node{n}").parse().unwrap();
        world.input(Input::Delivered(Box::new(cause)));
    }
    let bytes = |world: &World| record(world).to_wire().len();
    assert_eq!(world.queue.held().count(), MAX_LISTED + 500, "all are held");
    assert!(world.queue.held().all(|(_, shown)| shown == reason));
    // What etcd takes is 1.5 MiB.
    assert!(bytes(&world) < 1024 * 1024, "{}", bytes(&world));
    world.play("unblock");
    assert_eq!(world.queue.activity().running.unwrap().causes.len(), MAX_LISTED);
    assert_eq!(world.queue.running_causes().len(), MAX_LISTED + 500);
    world.play("not_run");
    assert_eq!(world.queue.activity().retrying[0].causes.len(), MAX_LISTED);
}
