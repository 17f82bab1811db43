//! Runs of earlier agents.

use super::*;

#[test]
fn an_adopted_run_keeps_its_causes_and_nothing_starts_beside_it() {
    let mut world = world();
    world.adopt(cause("e1"), world.now.wall);
    world.play("e1 e2 +5000 changed");
    assert_eq!(world.seen, ["finish[e1=done]", "run[e2]"]);
}

/// Takes up a run of `e1` that ended when no agent was there.
fn take_up(world: &mut World, outcome: &str, interruptions: u32) {
    let run_id = RunId::from_uuid(uuid::Uuid::from_u128(0));
    let result = RunResult {
        outcome: outcome.parse().unwrap(),
        reason: None,
        reported_noop: false,
        drift: Default::default(),
        started_at: world.now.wall,
        finished_at: world.now.wall,
    };
    let causes = vec![Cause { interruptions, ..cause("e1") }];
    world.input(Input::CompletedWhileDown { run: CompletedRun::new(run_id, false, result), causes });
}

#[test]
fn causes_that_a_run_did_not_complete_while_the_agent_was_down_come_from_the_backend_only() {
    let mut world = world();
    world.play("block");
    take_up(&mut world, "not_run", 0);
    take_up(&mut world, "interrupted", 0);
    assert_eq!(world.queue.waiting_causes().count(), 0, "another node may have completed it since");
    take_up(&mut world, "changed", 0);
    world.play("e1 unblock +600000");
    assert_eq!(world.seen, ["finish[]", "finish[]", "finish[e1=done]", "delete[e1]"]);
}

#[test]
fn a_repetition_that_was_interrupted_while_the_agent_was_down_is_the_last() {
    let mut world = world();
    take_up(&mut world, "interrupted", 1);
    assert_eq!(world.seen, ["finish[e1=failed(interrupted)]"]);
}
