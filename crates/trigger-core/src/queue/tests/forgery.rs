//! Deliveries whose events do not count, or cannot be verified yet (C13).

use super::*;

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
fn a_forgery_takes_no_event_its_run() {
    check("forged:e1 forged:e1 e1", "finish[e1=refused] finish[e1=refused] run[e1]");
    check("forged:e1 restart e1", "finish[e1=refused] run[e1]");
}

/// Proves C13: whoever can write to the backend can put any number of forgeries there.
#[test]
fn a_hundred_thousand_forgeries_are_not_remembered_and_take_no_time() {
    let mut world = world();
    world.play("block");
    for n in 1..=2_000_u32 {
        let mut cause = cause(&format!("e{n}"));
        cause.event.origin = format!("node{n}").parse().unwrap();
        world.input(Input::Delivered(Box::new(cause)));
    }
    // Where each is compared with all others this takes minutes.
    for n in 100_000..200_000_u32 {
        let (event, target) = (samples::event_id(n.into()), Target::Node(settings().certname));
        let reason = "it is forged".to_owned();
        let refused = Input::Refused { event, target, reason: reason.clone() };
        assert_eq!(world.queue.step(world.now, refused).len(), 1);
        assert!(!world.queue.is_known(event) && world.queue.honoured(event).is_none());
        let event = samples::event_id((n + 100_000).into());
        assert_eq!(world.queue.step(world.now, Input::Unverified(HeldDelivery { event, reason })), []);
    }
    let shown = |world: &World| world.queue.held().count() - world.queue.waiting_causes().count();
    assert_eq!(shown(&world), MAX_LISTED);
    // They are gone from the backend, and one has come that waits for its certificate.
    world.play("[all unverified:e5000 all] [all unverified:e5000 all]");
    assert_eq!(shown(&world), 1);
    world.play("unblock");
    assert_eq!(world.queue.running_causes().len(), 2_000, "none was lost");
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
