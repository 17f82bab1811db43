//! The knowledge that a hub may lack after a restore from a backup.

use super::*;

const LOST: &str = "no lost wake-up";

fn forgotten(keys: &[&str], doctor: impl Fn(&mut Artifacts)) -> Vec<&'static str> {
    doctored(|e| {
        e.forgotten = keys.iter().map(|key| (*key).to_owned()).collect();
        doctor(e);
    })
}

#[test]
fn only_an_event_that_a_restored_hub_forgot_may_be_unknown() {
    let unknown = |e: &mut Artifacts| e.statuses.clear();
    assert_eq!(forgotten(&["events/e1/parts/0"], unknown), [""; 0]);
    assert_eq!(forgotten(&["events/e0/parts/0", "events/e2/parts/0"], unknown), [LOST]);
    assert_eq!(forgotten(&[], unknown), [LOST]);
}

#[test]
fn only_a_delivery_that_a_restored_hub_forgot_may_wait_without_end() {
    let pending = |e: &mut Artifacts| statuses(e, "e1")[0] = target("b", "pending");
    assert_eq!(forgotten(&["deliveries/b/e1"], pending), [""; 0]);
    assert_eq!(forgotten(&["outcomes/e1/b"], pending), [""; 0]);
    assert_eq!(forgotten(&["deliveries/c/e1", "group-deliveries/g/e1"], pending), [LOST], "b is in no group");
    let of_a_member = |e: &mut Artifacts| statuses(e, "e1")[1] = target("c", "pending");
    assert_eq!(forgotten(&["group-deliveries/g/e1"], of_a_member), [""; 0]);
}

#[test]
fn a_run_for_an_event_without_a_fire_has_no_cause_after_a_restore_either() {
    let rules = forgotten(&["events/e0/parts/0"], |e| e.runs.push(run("r3", "b", (50, 60), "e9")));
    assert_eq!(rules, ["no run without a cause"]);
}

#[test]
fn a_forgotten_event_that_ran_all_the_same_is_judged() {
    let wrong = |e: &mut Artifacts| statuses(e, "e1")[0] = done("b", "r2");
    assert_eq!(forgotten(&["events/e1/parts/0"], wrong), [LOST]);
}
