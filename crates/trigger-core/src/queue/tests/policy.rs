//! What the node's policy refuses. All events of the scripts are fired at `t` on `web01.example.com`.

use super::*;

fn policy(settings: RuleSettings) -> Policy {
    Policy::new("trigger.toml", vec![Rule::new(settings).unwrap()])
}

fn deny() -> Policy {
    policy(RuleSettings { deny: true, ..Default::default() })
}

fn only_noop() -> Policy {
    policy(RuleSettings { only_noop: true, ..Default::default() })
}

/// Plays the scripts, with another policy before each but the first.
fn check_changes(first: Policy, script: &str, changes: &[(Policy, &str)], expected: &str) {
    let mut world = world_of(QueueSettings { policy: first, ..settings() });
    world.play(script);
    for (policy, script) in changes {
        world.input(Input::PolicyChanged(policy.clone()));
        world.play(script);
    }
    assert_eq!(world.seen.join(" "), expected);
}

/// Proves C13.
#[test]
fn what_no_rule_accepts_is_refused_on_arrival() {
    check_changes(deny(), "e1", &[], "finish[e1=refused]");
    check_changes(only_noop(), "e1 e2~", &[], "finish[e1=refused] run~[e2]");
}

/// Proves C13.
#[test]
fn another_policy_applies_to_what_waits_and_not_to_a_run_in_progress() {
    check_changes(
        Policy::default(),
        "e1 e2 e3~",
        &[(only_noop(), "+1500 unchanged")],
        "run[e1] finish[e2=refused] finish[e1=done] run~[e3]",
    );
    check_changes(Policy::default(), "block e1", &[(deny(), "")], "finish[e1=refused]");
}

/// Proves C13.
#[test]
fn what_would_run_again_is_judged_again() {
    for end in ["not_run", "interrupted"] {
        check_changes(
            Policy::default(),
            "e1",
            &[(deny(), &format!("+1500 {end} +90000"))],
            "run[e1] finish[] finish[e1=refused]",
        );
    }
}

/// Proves C6.
#[test]
fn what_was_refused_stays_refused() {
    check_changes(
        deny(),
        "e1",
        &[(Policy::default(), "e1 e2")],
        "finish[e1=refused] finish[e1=refused] run[e2]",
    );
    // A restart is no way around it.
    check_changes(
        deny(),
        "e1 restart",
        &[(Policy::default(), "restart e1 e2")],
        "finish[e1=refused] finish[e1=refused] run[e2]",
    );
}

#[test]
fn the_signer_of_a_waiting_event_is_remembered() {
    let role = |value: &str| {
        policy(RuleSettings {
            extensions: [("pp_role".to_owned(), vec![value.to_owned()])].into(),
            ..Default::default()
        })
    };
    let mut world = world_of(QueueSettings { policy: role("web"), ..settings() });
    let signer = crate::signer::Signer::Certificate {
        algorithm: "RS256".to_owned(),
        fingerprint: "ab".repeat(32),
        extensions: [("pp_role".to_owned(), "web".to_owned())].into(),
    };
    world.play("block e1");
    world.input(Input::Delivered(Box::new(Cause { signer, ..cause("e2") })));
    world.input(Input::PolicyChanged(role("w*")));
    world.input(Input::PolicyChanged(role("db")));
    assert_eq!(world.seen.join(" "), "finish[e1=refused] finish[e2=refused]");
}
