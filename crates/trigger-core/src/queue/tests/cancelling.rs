//! Deliveries that are cancelled. All events of the scripts are fired on `web01.example.com`.

use super::*;

/// Proves C6.
#[test]
fn a_delivery_that_waits_is_cancelled_at_once() {
    check("e1 e2 cancel:e2 +1500 unchanged +1500", "run[e1] finish[e2=cancelled] finish[e1=done]");
    check("block e1 cancel:e1 unblock +5000", "finish[e1=cancelled]");
    check("block e1 e2 cancel:e1 unblock", "finish[e1=cancelled] run[e2]");
    check("e1 not_run cancel:e1 +90000", "run[e1] finish[] finish[e1=cancelled]");
    check("block e1~ cancel:e1~ unblock", "finish[e1=cancelled]");
}

/// Proves C6: it was cancelled before this node saw it.
#[test]
fn a_delivery_that_arrives_cancelled_never_runs() {
    check("cancel:e1 e1 +5000", "finish[e1=cancelled] finish[e1=cancelled]");
    check("cancel:e1 restart e1 +5000", "finish[e1=cancelled] finish[e1=cancelled]");
    check("unverified:e1 cancel:e1", "finish[e1=cancelled]");
}

/// Proves C6.
#[test]
fn a_run_in_progress_ends_by_itself_and_its_outcome_counts() {
    check("e1 cancel:e1 +1500 changed +5000", "run[e1] finish[e1=done]");
    check("e1 cancel:e1 +1500 failed", "run[e1] finish[e1=failed(failed)]");
    check("e1 unchanged cancel:e1", "run[e1] finish[e1=done] delete[e1]");
}

/// Proves C6.
#[test]
fn what_would_run_again_is_cancelled_instead() {
    for end in ["not_run", "interrupted"] {
        check(&format!("e1 cancel:e1 +1500 {end} +90000"), "run[e1] finish[] finish[e1=cancelled]");
        check(
            &format!("block e1 e2 unblock cancel:e1 +1500 {end} +90000"),
            "run[e1,e2] finish[] finish[e1=cancelled] run[e2]",
        );
    }
}

/// Proves C13: a node that neither fired the event nor is an operator here changes nothing.
#[test]
fn another_node_cancels_nothing() {
    check("other:e1", "run[e1]");
    check("block e1 other:e1 unblock +1500 unchanged", "run[e1] finish[e1=done]");
}

/// Proves C13.
#[test]
fn what_the_policy_refuses_is_refused_though_it_is_cancelled() {
    let deny = Rule::new(RuleSettings { deny: true, ..Default::default() }).unwrap();
    let policy = Policy::new("trigger.toml", vec![deny]);
    let mut world = world_of(QueueSettings { policy, ..settings() });
    world.play("cancel:e1");
    assert_eq!(world.seen, ["finish[e1=refused]"]);
}

/// Proves C6: what has run is done, though it was to run again for a catalog.
#[test]
fn what_has_run_without_its_catalog_is_not_repeated() {
    check("asked e1^ +20000 changed cancel:e1^ +3600000", "run[e1] finish[] finish[e1=done]");
    check("asked e1^ +20000 cancel:e1^ changed +3600000", "run[e1] finish[e1=done]");
    // Queued again, or in its second run.
    let queued = "asked e1^ +20000 changed block stored:e1";
    check(&format!("{queued} cancel:e1^ unblock +90000"), "run[e1] finish[] finish[e1=done]");
    let running = "asked e1^ +20000 changed stored:e1 +2000 cancel:e1^";
    for end in ["not_run", "interrupted"] {
        check(&format!("{running} {end} +90000"), "run[e1] finish[] run[e1] finish[] finish[e1=done]");
    }
    check(&format!("{running} failed"), "run[e1] finish[] run[e1] finish[e1=failed(failed)]");
}

/// Proves C6: the same where nothing but time ends it.
#[test]
fn what_has_run_without_its_catalog_does_not_expire() {
    let queued = "asked e1^ +20000 changed block stored:e1";
    check(&format!("{queued} +90000000 unblock"), "run[e1] finish[] finish[e1=done]");
}
