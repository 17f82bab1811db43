//! Deliveries whose events do not count, or cannot be verified yet (C13).

use super::{check, world};

/// Proves C13.
#[test]
fn a_forged_event_ends_refused_and_holds_up_no_other() {
    check("e1 forged:e2 e3 +1500 changed", "run[e1] finish[e2=refused] finish[e1=done] run[e3]");
    check("block forged:e1 e2 unblock", "finish[e1=refused] run[e2]");
}

/// Proves C13.
#[test]
fn a_forgery_with_the_id_of_an_event_that_was_accepted_changes_nothing() {
    check("block e1 forged:e1 unblock changed", "run[e1] finish[e1=done]");
    check("e1 forged:e1 changed forged:e1", "run[e1] finish[e1=done] delete[e1]");
    check("e1 changed restart forged:e1", "run[e1] finish[e1=done] delete[e1]");
}

/// Proves C13.
#[test]
fn an_event_that_was_refused_does_not_run_when_it_is_read_again() {
    check("forged:e1 e1", "finish[e1=refused] finish[e1=refused]");
}

/// Proves C13.
#[test]
fn what_cannot_be_verified_yet_waits_visibly_and_runs_when_it_can() {
    let mut world = world();
    world.play("unverified:e1 unverified:e1");
    let held: Vec<&str> = world.queue.held().map(|(_, reason)| reason).collect();
    assert_eq!(held, ["its certificate is not stored"]);
    assert_eq!(world.queue.activity().held.len(), 1);
    world.play("e1");
    assert_eq!(world.queue.held().count(), 0);
    assert_eq!(world.seen, ["run[e1]"]);
    check("unverified:e1 forged:e1", "finish[e1=refused]");
    check("e1 unverified:e1 changed unverified:e1", "run[e1] finish[e1=done]");
}
