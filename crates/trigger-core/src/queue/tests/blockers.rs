//! What keeps runs from starting.

use super::*;

#[test]
fn a_run_that_a_blocker_prevented_is_repeated_as_soon_as_the_blocker_is_gone() {
    let mut world = world();
    world.play("e1 +1000 block not_run");
    assert_eq!(world.queue.activity().held[0].reason, "disabled: maintenance");
    assert!(world.queue.activity().retrying.is_empty());
    world.play("unblock");
    assert_eq!(world.seen.join(" "), "run[e1] finish[] run[e1]");
}

#[test]
fn retries_follow_soon_after_the_end_of_a_blocker() {
    let failed_thrice = "e1 +1500 not_run +10000 not_run +20000 not_run";
    let mut world = world();
    world.play(&format!("{failed_thrice} e2~ +1000 not_run block +1000 unblock"));
    let starts = world.starts.len();
    assert_eq!(world.queue.next_wake(), Some(world.now.elapsed + Duration::from_secs(5)), "not at once");
    let activity = world.queue.activity();
    assert!(
        activity.retrying.iter().all(|r| r.at <= world.now.wall.plus(Duration::from_secs(5))),
        "{activity:?}"
    );
    world.play("+5000 unchanged +1000");
    assert_eq!(world.starts.len(), starts + 2, "{:?}", world.seen);
    // Nothing is put off by it.
    check("e1 +1500 not_run +9000 block unblock +1000", "run[e1] finish[] run[e1]");
}

#[test]
fn blockers_are_checked_before_a_start_and_not_for_every_arrival() {
    let mut world = world();
    let arrival = |word: &str| Input::Delivered(Box::new(cause(word)));
    assert!(world.queue.may_start(world.now, &arrival("e1")));
    assert!(!world.queue.may_start(world.now, &Input::Tick), "nothing waits");
    world.play("e1");
    assert!(!world.queue.may_start(world.now, &arrival("e2")), "a run is in progress");
    world.play("not_run");
    assert!(!world.queue.may_start(world.now, &arrival("e2")), "it waits for another try");
    assert!(!world.queue.may_start(world.now, &arrival("e2~")), "a second has to pass");
    world.now.elapsed += Duration::from_secs(1);
    assert!(world.queue.may_start(world.now, &arrival("e2~")));
    world.now.elapsed += Duration::from_secs(9);
    assert!(world.queue.may_start(world.now, &Input::Tick), "the next try is due");
}

#[test]
fn nothing_starts_while_blocked_and_the_reason_shows() {
    let mut world = world();
    world.play("block e1");
    assert_eq!(world.seen, Vec::<String>::new());
    assert_eq!(world.queue.activity().held[0].reason, "disabled: maintenance");
    world.play("unblock");
    assert_eq!(world.seen, ["run[e1]"]);
}

/// Proves C11.
#[test]
fn the_first_blocker_in_their_order_counts() {
    let mut world = world_in_recovery(settings());
    world.play("e1");
    let check = |world: &mut World,
                 claim: Option<ClaimBlocker>,
                 puppet: Option<PuppetBlocker>,
                 expected: Option<&str>| {
        world.input(Input::Blockers(Blockers { claim, puppet, hold: Some("held until noon".to_owned()) }));
        assert_eq!(world.queue.blocked_reason(), expected);
        let activity = world.queue.activity();
        let held = activity.held.into_iter().map(|held| held.reason);
        let shown: Vec<String> = held.chain(activity.waiting.map(|waiting| waiting.reason)).collect();
        assert_eq!(shown, Vec::from_iter(expected), "it is the reason of the delivery");
    };
    let stale = || Some(ClaimBlocker::Stale("not renewed for 150 s".to_owned()));
    let disabled = || Some(PuppetBlocker::Disabled("maintenance".to_owned()));
    let unknown = || Some(PuppetBlocker::Unknown("Puppet does not answer".to_owned()));
    let renamed = || Some(PuppetBlocker::OtherCertname("Puppet has another certname".to_owned()));
    for puppet in [disabled(), unknown(), renamed()] {
        check(&mut world, stale(), puppet, Some("this agent takes up the runs of an earlier one"));
    }
    world.input(Input::Recovered);
    check(&mut world, stale(), renamed(), Some("Puppet has another certname"));
    check(&mut world, stale(), unknown(), Some("Puppet does not answer"));
    check(&mut world, stale(), disabled(), Some("not renewed for 150 s"));
    check(&mut world, None, unknown(), Some("Puppet does not answer"));
    check(&mut world, None, disabled(), Some("maintenance"));
    let unregistered = Some(ClaimBlocker::NotRegistered);
    check(&mut world, unregistered, None, Some("this agent has not registered with the backend yet"));
    check(&mut world, None, None, Some("held until noon"));
    assert_eq!(world.seen, [""; 0], "not even for a moment without a blocker");
    world.input(Input::Blockers(Blockers::default()));
    assert_eq!(world.seen, ["run[e1]"]);
}

/// Proves C6.
#[test]
fn deliveries_are_held_only_where_an_operator_has_to_act() {
    let text = || "why".to_owned();
    let puppet = |blocker: PuppetBlocker| Blockers { puppet: Some(blocker), ..Blockers::default() };
    let claim = |blocker: ClaimBlocker| Blockers { claim: Some(blocker), ..Blockers::default() };
    let blockers = [
        (puppet(PuppetBlocker::Unknown(text())), DeliveryState::Pending),
        (puppet(PuppetBlocker::Broken(text())), DeliveryState::Held),
        (puppet(PuppetBlocker::OtherCertname(text())), DeliveryState::Held),
        (puppet(PuppetBlocker::Disabled(text())), DeliveryState::Held),
        (claim(ClaimBlocker::NotRegistered), DeliveryState::Pending),
        (claim(ClaimBlocker::Lapsing(text())), DeliveryState::Pending),
        (claim(ClaimBlocker::Stale(text())), DeliveryState::Pending),
        (claim(ClaimBlocker::Contended(text())), DeliveryState::Held),
        (Blockers { hold: Some(text()), ..Blockers::default() }, DeliveryState::Held),
    ];
    let mut world = world_in_recovery(settings());
    let shown = |world: &World| {
        let status = delivery_status(samples::event_id(1), None, Some(&record(world)));
        assert_eq!(status.reason.as_deref(), world.queue.blocked_reason(), "the reason is shown either way");
        status.state
    };
    world.play("e1");
    assert_eq!(
        shown(&world),
        DeliveryState::Pending,
        "an agent takes up the runs of an earlier one by itself"
    );
    world.input(Input::Blockers(puppet(PuppetBlocker::Unknown(text()))));
    world.input(Input::Recovered);
    for (reported, expected) in blockers {
        world.input(Input::Blockers(reported.clone()));
        assert_eq!(shown(&world), expected, "{reported:?}");
    }
}

#[test]
fn blockers_are_looked_at_again_while_a_delivery_waits_for_one_to_go() {
    let mut world = world();
    world.play("block");
    assert_eq!(world.queue.next_wake(), None, "nothing waits");
    world.play("e1");
    assert_eq!(world.queue.next_wake(), Some(BLOCKER_POLL_INTERVAL));
    world.play("+400");
    assert_eq!(world.queue.next_wake(), Some(Duration::from_millis(400) + BLOCKER_POLL_INTERVAL));
    world.play("unblock");
    assert_eq!(world.queue.next_wake(), None, "a run is in progress");
}
