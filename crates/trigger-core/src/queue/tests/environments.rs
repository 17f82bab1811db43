//! Events that choose the environment of their run. The node's rules allow every environment here.

use super::*;

fn check(script: &str, expected: &str) {
    let mut world = world_of(settings_with_environments());
    world.play(script);
    assert_eq!(world.seen.join(" "), expected, "{script}");
}

/// Proves C5.
#[test]
fn a_run_covers_events_of_its_own_environment_alone() {
    check(
        "e1 e2@test e3 e4@test e5:web@test +1500 unchanged +1500 unchanged",
        "run[e1] finish[e1=done] run@test[e2,e4,e5] finish[e2=done,e4=done,e5=done] run[e3]",
    );
    check("e1~@test e2@test +1500 unchanged", "run~@test[e1] finish[e1=done] run@test[e2]");
}

/// Proves C5.
#[test]
fn the_environments_take_turns() {
    check(
        "e1 e2@a e3@b e4 +1500 unchanged e5@a +1500 unchanged +1500 unchanged +1500 unchanged",
        "run[e1] finish[e1=done] run@a[e2] finish[e2=done] run@b[e3] finish[e3=done] run[e4] finish[e4=done] run@a[e5]",
    );
}

/// Proves C6.
#[test]
fn an_environment_that_cannot_be_had_holds_up_no_other_run() {
    check(
        "e1@gone +1500 not_run e2 +1500 unchanged e3 +1500 unchanged +90000",
        "run@gone[e1] finish[] run[e2] finish[e2=done] run[e3] finish[e3=done] run@gone[e1]",
    );
}

/// Proves C6.
#[test]
fn only_so_many_environments_wait() {
    check("block e1@a e2@b e3@c e4@d e5@e e6@f e7@g e8@h e9@i e10@a e11~@b e12", "finish[e9=refused]");
}

/// Proves C4.
#[test]
fn a_run_that_an_earlier_agent_started_keeps_its_environment() {
    let mut world = world_in_recovery(settings_with_environments());
    world.adopt(cause("e1@test"), world.now.wall);
    world.input(Input::Recovered);
    world.play("e2 +1500 interrupted +1500 unchanged");
    assert_eq!(world.seen.join(" "), "finish[] run[e2] finish[e2=done] run@test[e1]");
}

/// Proves C8.
#[test]
fn what_is_to_run_again_is_refused_where_the_run_command_cannot_any_more() {
    let mut world =
        world_in_recovery(QueueSettings { command: CommandKind::Other, ..settings_with_environments() });
    for (event, expected) in
        [("e1@test", "finish[] finish[e1=refused]"), ("e2~", "finish[] finish[e2=refused]")]
    {
        world.adopt(cause(event), world.now.wall);
        world.input(Input::Recovered);
        world.play("+1500 interrupted +1500");
        assert_eq!(std::mem::take(&mut world.seen).join(" "), expected);
    }
}

/// Proves C4.
#[test]
fn an_environment_outlasts_a_restart() {
    check("block e1@test restart e1@test e2 unblock +1500 unchanged", "run[e2] finish[e2=done] run@test[e1]");
}
