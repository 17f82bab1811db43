//! Sizes and quotas.

use super::*;

#[test]
fn each_kind_of_value_has_a_largest_size() {
    for (key, bytes) in [
        (part_key(1), 512 * 1024),
        (Key::Members { event: event(1), index: 0 }, 512 * 1024),
        (Key::Settled { event: event(1) }, 1024),
        (delivery_key("lb01", 1), 1024),
        (delivery_key("@lb", 1), 1024),
        (cancellation_key("lb01", 1), 4 * 1024),
        (cancellation_key("@lb", 1), 4 * 1024),
        (cancellation_key("@lb:lb01", 1), 4 * 1024),
        (outcome_key(1, "lb01"), 64 * 1024),
        (Key::Node { certname: certname("web01") }, 2 * 1024 * 1024),
        (Key::RunHistory { certname: certname("web01") }, 256 * 1024),
        (certificate_key("lb01"), 128 * 1024),
        (Key::Hold { certname: certname("lb01") }, 8 * 1024),
        (Key::LogRequest { certname: certname("lb01"), reader: certname("web01") }, 8 * 1024),
        (Key::LogAnswer { reader: certname("ops01"), certname: certname("web01") }, 128 * 1024),
        (Key::Sweep, 1024),
    ] {
        assert_eq!(check_size(&node("web01"), &key, bytes), Ok(()), "{key}");
        let denial = check_size(&node("web01"), &key, bytes + 1).unwrap_err();
        assert_eq!(denial.kind, DenialKind::TooLarge, "{key}");
    }
    assert_eq!(
        check_size(&node("web01"), &delivery_key("lb01", 1), 2000).unwrap_err().to_string(),
        "web01 may not write deliveries/lb01/00000000-0000-0000-0000-000000000001: a value there has at most 1 KiB, \
         and this one has 2000 bytes"
    );
}

#[test]
fn a_request_costs_what_stays() {
    let node = Key::Node { certname: certname("web01") };
    assert!(Cost::of([(&node, 2000, 0), (&certificate_key("web01"), 2000, 0)]).is_zero());
    let (part, delivery) = (part_key(1), delivery_key("lb01", 1));
    let cost = Cost::of([(&part, 100, 0), (&delivery, 10, 0), (&part, 100, 0)]);
    assert_eq!(cost, Cost { events: 1, bytes: 402 });
    assert_eq!(Cost::of([(&delivery, 10, 0)]), Cost { events: 0, bytes: 74 });
    // What a sweep removes within hours stays as long for a quota: no node fills the store with answers that no reader wants.
    let answer = Key::LogAnswer { reader: certname("ops01"), certname: certname("web01") };
    assert_eq!(Cost::of([(&answer, 10, 0)]), Cost { events: 0, bytes: 74 });
    // A sweep gives each target of a part an outcome, and each member too.
    let named = a_part(1, "web01", "lb01 lb02 @lb").targets() + Value::Members(128).targets();
    assert_eq!(named, 130);
    assert_eq!(Cost::of([(&part, 100, named)]), Cost { events: 1, bytes: 164 + 130 * 1024 });
}

/// Proves C13.
#[test]
fn a_node_stores_a_bounded_number_of_events_and_bytes() {
    let second = Duration::from_secs(1);
    let mut quota = Quota::default();
    let one = Cost { events: 1, bytes: 100 };
    let stored = (0..5000).filter(|_| quota.take(second, one).is_ok()).count();
    assert_eq!(stored, 1000);
    assert_eq!(quota.take(second, one), Err(second / 2), "and it is said when there is more");
    assert_eq!(quota.take(second + second / 2, one), Ok(()));

    let mut quota = Quota::default();
    let large = Cost { events: 1, bytes: 32 * 1024 * 1024 };
    let stored = (0..100).filter(|_| quota.take(second, large).is_ok()).count();
    assert_eq!(stored, 6);
    let wait = quota.take(second, large).unwrap_err();
    assert!(!quota.is_whole(second + wait) && quota.take(second + wait, large).is_ok(), "{wait:?}");
    assert!(quota.is_whole(second + wait * 100));
}
