//! The answers that a `trigger fire` must give, and the traces that an unanswered one may leave.

use super::*;

const DURABLE: &str = "durable before it answers";
const CAUSED: &str = "no run without a cause";

#[test]
fn a_fire_that_failed_is_found() {
    let failed = |e: &mut Artifacts| {
        e.fires.push(Fire { answer: Answer::Failure("exit code 4".to_owned()), ..fire("", 12) });
    };
    assert_eq!(doctored(failed), [DURABLE]);
}

#[test]
fn a_fire_that_was_not_spooled_while_the_backend_was_away_is_found() {
    let away = |state: &str| {
        doctored(|e| {
            let answer = Answer::Success { event: "e1".to_owned(), state: state.to_owned() };
            e.fires[0] = Fire { away: true, answer, ..e.fires[0].clone() };
        })
    };
    assert_eq!(away("spooled"), [""; 0]);
    assert_eq!(away("committed"), [DURABLE]);
}

#[test]
fn a_fire_inside_a_run_that_nothing_hit_must_answer() {
    let unanswered = |hit_it: bool| {
        doctored(|e| {
            let parent = Some("r1".to_owned());
            e.fires.push(Fire { answer: Answer::Killed, parent, ..fire("", 22) });
            if hit_it {
                killed(e, "r1", 25);
                again(e, "r3", 50);
            }
        })
    };
    assert_eq!(unanswered(false), [DURABLE]);
    assert_eq!(unanswered(true), [""; 0]);
}

/// A fire was killed at 12, and `b` runs for an event `e2` that no fire answered for; `doctor` changes the fire.
fn orphan(doctor: impl Fn(&mut Fire)) -> Vec<&'static str> {
    doctored(|e| {
        let mut killed = Fire { answer: Answer::Killed, ..fire("", 12) };
        doctor(&mut killed);
        e.fires.push(killed);
        e.runs.push(run("r3", "b", (50, 60), "e2"));
        e.statuses.insert("e2".to_owned(), vec![done("b", "r3")]);
    })
}

#[test]
fn what_a_killed_fire_left_is_no_run_without_a_cause() {
    assert_eq!(orphan(|_| ()), [""; 0]);
    assert_eq!(orphan(|fire| fire.trigger = "s".to_owned()), [CAUSED], "another trigger");
    assert_eq!(orphan(|fire| fire.hosts = vec!["d".to_owned()]), [CAUSED], "other targets");
    assert_eq!(orphan(|fire| fire.before = 55), [CAUSED], "fired later");
}

#[test]
fn a_killed_fire_left_one_event_at_the_most() {
    let rules = doctored(|e| {
        e.fires.push(Fire { answer: Answer::Killed, ..fire("", 12) });
        for (event, name, at) in [("e2", "r3", 50), ("e3", "r4", 70)] {
            e.runs.push(run(name, "b", (at, at + 10), event));
            e.statuses.insert(event.to_owned(), vec![done("b", name)]);
        }
    });
    assert_eq!(rules, [CAUSED]);
}

#[test]
fn what_a_killed_fire_left_was_made_at_its_time() {
    let made = |after_the_fire_ms: u64| {
        let event = format!("{:08x}-{:04x}-7000-8000-000000000000", 0, 10_000 + after_the_fire_ms);
        doctored(|e| {
            let before = 10_000 * 1_000_000;
            e.fires.push(Fire { answer: Answer::Killed, ..fire("", before) });
            e.runs.push(run("r3", "b", (before * 3, before * 3 + 1), &event));
            e.statuses.insert(event, vec![done("b", "r3")]);
        })
    };
    assert_eq!(made(20), [""; 0]);
    assert_eq!(made(5_000), [CAUSED]);
}
