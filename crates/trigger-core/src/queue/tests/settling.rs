//! Deliveries that wait until PuppetDB has stored the catalog that their event was fired with.

use super::*;

#[test]
fn a_run_waits_until_the_catalog_of_its_event_is_stored() {
    check("asked e1^ +19000", "");
    check("asked e1^ +3000 stored:e1", "run[e1]");
    check("asked e1^ +3000 stored:e1 +2000 changed", "run[e1] finish[e1=done]");
    // An event without a catalog waits for nothing, nor does one that was fired with a catalog of old.
    check("asked e1", "run[e1]");
    check("stored:e1 e1^", "run[e1]");
    check("stored:e1 e2^ +3000 stored:e2", "run[e2]");
}

#[test]
fn nothing_waits_where_there_is_no_puppetdb() {
    check("e1^", "run[e1]");
    check("asked e1^ +5000 not_asked", "run[e1]");
    let mut world = world_of(QueueSettings { settle: Duration::ZERO, ..settings() });
    world.play("asked e1^");
    assert_eq!(world.seen, ["run[e1]"]);
}

#[test]
fn a_catalog_that_was_compiled_later_is_as_good() {
    let mut world = world();
    world.play("asked e1^");
    let fired_at = samples::event(1, "t").fired_at;
    world.input(Input::Catalogs(stored(catalog(77), fired_at)));
    assert_eq!(world.seen, [""; 0], "it may be the one before");
    world.input(Input::Catalogs(stored(catalog(77), fired_at.plus(Duration::from_millis(1)))));
    assert_eq!(world.seen, ["run[e1]"]);
}

/// Proves C2: a run that lacked the catalog does not end the delivery.
#[test]
fn a_run_that_went_ahead_is_repeated_once_when_the_catalog_is_stored() {
    check("asked e1^ +20000 changed +600000", "run[e1] finish[]");
    check(
        "asked e1^ +20000 changed +600000 stored:e1 +2000 unchanged stored:e2 +600000 e1^",
        "run[e1] finish[] run[e1] finish[e1=done] delete[e1]",
    );
    // Also where it is stored while the run is in progress, which may have been too late.
    check("asked e1^ +20000 stored:e1 +3000 changed", "run[e1] finish[] run[e1]");
    check("asked e1^ +20000 stored:e1 +300 changed +700", "run[e1] finish[] run[e1]");
}

#[test]
fn a_catalog_that_never_comes_is_given_up_after_an_hour() {
    check("asked e1^ +20000 changed +3599999", "run[e1] finish[]");
    check("asked e1^ +20000 changed +3600000 stored:e1 +9000", "run[e1] finish[] finish[e1=done]");
    check("asked e1^ +20000 changed +1000 not_asked", "run[e1] finish[] finish[e1=done]");
    let mut world = world();
    world.play("asked e1^ +20000 changed");
    assert_eq!(world.queue.next_wake(), Some(Duration::from_secs(3620)));
}

/// Proves C6.
#[test]
fn a_run_that_failed_is_final_also_without_the_catalog() {
    check("asked e1^ +20000 failed stored:e1 +9000", "run[e1] finish[e1=failed(failed)]");
    check("asked e1^ +20000 not_run stored:e1 +10000", "run[e1] finish[] run[e1]");
    check(
        "asked e1^ +20000 interrupted +20000 interrupted",
        "run[e1] finish[] run[e1] finish[e1=failed(interrupted)]",
    );
}

/// Proves C5.
#[test]
fn the_wait_is_counted_from_the_first_delivery_and_shared_by_all() {
    check("asked e1^ +15000 e2^ +4999 e3 +1", "run[e1,e2,e3]");
    check(
        "asked e1^ +15000 e2^ e3 +5000 changed stored:e2 +1000 changed",
        "run[e1,e2,e3] finish[e3=done] run[e2] finish[e2=done]",
    );
    // Those that arrive during a run wait for their own.
    check("asked e1 e2^ +1500 changed +18499", "run[e1] finish[e1=done]");
    check("asked e1 e2^ +1500 changed +18500", "run[e1] finish[e1=done] run[e2]");
    // Real runs and noop runs wait for their own events only.
    check("asked e1~^ +1000 e2 +1500 changed +17500", "run[e2] finish[e2=done] run~[e1]");
}

#[test]
fn what_is_delivered_again_is_still_one_delivery() {
    check(
        "asked e1^ e1^ +20000 e1^ changed e1^ +1000 stored:e1 e1^ changed e1^",
        "run[e1] finish[] run[e1] finish[e1=done] delete[e1]",
    );
}

#[test]
fn a_restarted_agent_asks_and_waits_again() {
    let mut world = world();
    world.play("asked e1^ +20000 changed");
    let old = std::mem::replace(&mut world.queue, Queue::new(settings(), world.log.values().cloned()));
    assert_eq!(old.repeated_causes().count(), 1);
    world.input(Input::Recovered);
    world.play("asked e1^ +5000 stored:e1");
    assert_eq!(world.seen, ["run[e1]", "finish[]", "run[e1]"], "its delivery is still there");
}

#[test]
fn an_adopted_run_without_the_catalog_is_repeated() {
    let mut world = world();
    world.play("asked");
    world.adopt(Cause { without_catalog: true, ..cause("e1^") }, world.now.wall);
    world.play("changed +5000 stored:e1");
    assert_eq!(world.seen, ["finish[]", "run[e1]"]);
}

#[test]
fn the_reason_to_wait_shows_and_whose_catalog_is_asked_for() {
    let mut world = world();
    let shown = |world: &World| delivery_status(samples::event_id(1), None, Some(&record(world)));
    world.play("asked e1^");
    assert_eq!(shown(&world).state, DeliveryState::Pending);
    assert_eq!(
        shown(&world).reason.as_deref(),
        Some(
            "PuppetDB has not stored the catalog of web01.example.com yet, with what it exports; at 12:00:20 UTC the run \
             starts without it"
        )
    );
    assert_eq!(world.queue.next_wake(), Some(Duration::from_secs(20)));
    let exporters: Vec<String> = world.queue.awaited_catalogs().iter().map(ToString::to_string).collect();
    assert_eq!(exporters, ["web01.example.com"]);
    world.play("+20000 changed");
    assert_eq!(
        shown(&world).reason.as_deref(),
        Some(
            "the run of 12:00:20 UTC did not wait any longer for PuppetDB, which had not stored the catalog of \
             web01.example.com; another run follows when it has"
        )
    );
    assert_eq!(world.queue.awaited_catalogs().len(), 1);
    world.play("stored:e1 changed");
    assert!(world.queue.awaited_catalogs().is_empty());
    // An operator's block counts first.
    world.play("asked block e2^ +30000");
    assert_eq!(world.queue.blocked_reason(), Some("disabled: maintenance"));
    world.play("unblock");
    assert_eq!(world.queue.blocker(), None, "it has waited long enough meanwhile");
}
