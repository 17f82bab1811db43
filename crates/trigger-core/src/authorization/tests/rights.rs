//! The table of rights.

use super::*;
use crate::keyspace::Range;

/// `web01` has fired event 1 at `lb01` and the group `lb`, and event 4 at `lb01`; `db01` has fired event 2 at `web01`,
/// and event 3 at `lb01`. Event 9 is not stored. `web01` has ended event 5 of `db01`, whose delivery is gone.
fn world() -> World {
    let mut world = World::default();
    world.fire(1, "web01", "lb01 @lb");
    world.fire(2, "db01", "web01");
    world.fire(3, "db01", "lb01");
    world.fire(4, "web01", "lb01");
    world.put(&part_key(5), Value::Part(Box::new(part(5, "db01", "web01"))));
    world.put(&outcome_key(5, "web01"), expired());
    world
}

/// What `web01` may do with a key, as `put swap delete read watch`: `y` for yes, `-` for a denial, `l` for a denial that
/// may not last, `k` where the stored value is kept. `o` in the place of `-` where an operator may.
fn check(key: &Key, value: &Value, expected: &str) {
    let world = world();
    let letter = |actor: &Actor, action: &Action| match world.verdict(actor, std::slice::from_ref(action)) {
        Ok(Progress::KeepsStored) => 'k',
        Ok(_) => 'y',
        Err(denial) if denial.kind == DenialKind::Forbidden => '-',
        Err(denial) => {
            assert_eq!(denial.kind, DenialKind::NotYet);
            'l'
        }
    };
    let operator = Actor { role: Role::Operator, ..node("web01") };
    let actions = [
        Action::Put { key: key.clone(), value: value.clone() },
        Action::CompareAndSwap { key: key.clone() },
        Action::Delete { key: key.clone() },
        Action::Read(Scope::Key(key.clone())),
        Action::Watch(Scope::Key(key.clone())),
    ];
    let found: String = actions
        .iter()
        .map(|action| match (letter(&node("web01"), action), letter(&operator, action)) {
            ('-' | 'l', 'y') => 'o',
            (node, operator) => {
                assert_eq!(node, operator, "{action:?}");
                node
            }
        })
        .collect();
    assert_eq!(found, expected, "{key} {value:?}");
}

#[test]
fn events_are_fired_by_their_origin_and_never_change() {
    check(&part_key(9), &a_part(9, "web01", "lb01"), "y--yo");
    check(&part_key(9), &a_part(9, "db01", "lb01"), "---yo");
    check(&part_key(1), &a_part(1, "web01", "lb01 @lb"), "y--yo");
    check(&part_key(1), &a_part(1, "web01", "lb02 @lb"), "---yo");
    check(&part_key(2), &a_part(2, "web01", "lb01"), "---yo");
    check(&part_key(3), &a_part(3, "db01", "lb01"), "---oo");
    check(&part_key(5), &a_part(5, "web01", "lb01"), "---yo");
    check(&part_key(9), &a_part(8, "web01", "lb01"), "---yo");
    check(&part_key(9), &Value::Other, "---yo");
    check(&part_key(9), &Value::Unreadable("it is of a newer version".to_owned()), "l--yo");
    let members = |event: EventId, index: u32| Key::Members { event, index };
    check(&members(event(1), 0), &Value::Members(2), "y--yo");
    check(&members(event(1), 0), &Value::Other, "---yo");
    check(&members(event(1), 1024), &Value::Members(2), "---yo");
    check(&members(event(2), 0), &Value::Members(2), "---yo");
    check(&members(event(3), 0), &Value::Members(2), "---oo");
    check(&members(event(9), 0), &Value::Members(2), "l--yo");
    check(&Key::Settled { event: event(1) }, &Value::Other, "---yo");
}

/// Gives a part so many of something.
type Set = fn(&mut Part, usize);

#[test]
fn a_part_has_the_bounds_of_an_event() {
    let check = |change: &dyn Fn(&mut Part), expected: &str| {
        let mut part = part(9, "web01", "lb01");
        change(&mut part);
        let put = Action::Put {
            key: Key::Part { event: event(9), index: part.index },
            value: Value::Part(Box::new(part)),
        };
        let found = World::default().says(&node("web01"), &[put]);
        assert!(found.contains(expected), "{expected} in {found}");
    };
    check(&|_| {}, "yes");
    check(&|part| (part.index, part.count) = (1, 2), "yes");
    check(
        &|part| {
            (part.index, part.count) = (1, 2);
            part.event.targets.groups = BTreeSet::from(["lb".parse().unwrap()]);
        },
        "only the first part of an event names groups",
    );
    check(&|part| part.index = 1, "another number of parts");
    check(&|part| part.count = 0, "another number of parts");
    check(&|part| part.count = 783, "another number of parts");
    check(&|part| (part.index, part.count) = (781, 782), "yes");
    let set_each: [(usize, Set); 4] = [
        (128, |part, count| {
            part.event.targets.hosts = (0..count).map(|n| certname(&format!("n{n}"))).collect();
        }),
        (64, |part, count| {
            part.event.targets.groups = (0..count).map(|n| format!("g{n}").parse().unwrap()).collect();
        }),
        (64, |part, count| {
            part.event.options.tags = (0..count).map(|n| format!("t{n}").parse().unwrap()).collect();
        }),
        (8, |part, count| part.event.lineage.chains = vec![part.event.lineage.chains[0].clone(); count]),
    ];
    for (most, set) in set_each {
        check(&|part| set(part, most), "yes");
        check(&|part| set(part, most + 1), "more targets, tags or chains than a part may have");
    }
    let latest = NOW.plus(crate::event::MAX_LIFETIME + crate::event::CLOCK_TOLERANCE);
    check(&|part| part.event.fired_at = latest, "yes");
    check(&|part| part.event.fired_at = latest.plus(Duration::from_millis(1)), "set the clock");
}

#[test]
fn deliveries_are_written_by_the_origin_and_ended_by_the_target() {
    let delivery = Value::Delivery(Delivery { part: 0 });
    check(&delivery_key("lb01", 1), &delivery, "y-ooo");
    check(&delivery_key("lb02", 1), &delivery, "--ooo");
    check(&delivery_key("lb01", 1), &Value::Delivery(Delivery { part: 1 }), "l-ooo");
    check(&delivery_key("lb01", 3), &delivery, "--ooo");
    check(&delivery_key("lb01", 9), &delivery, "l-ooo");
    check(&delivery_key("web01", 2), &delivery, "--yyy");
    check(&delivery_key("web01", 3), &delivery, "--yyy");
    check(&delivery_key("@lb", 1), &delivery, "y--yy");
    check(&delivery_key("@lb", 3), &delivery, "---yy");
    check(&delivery_key("@web", 1), &delivery, "---yy");
    check(&delivery_key("lb01", 1), &Value::Other, "--ooo");
}

/// Proves C13.
#[test]
fn cancellations_are_the_origins_and_operators_each_in_its_own_name() {
    check(&cancellation_key("lb01", 1), &cancellation("web01"), "y-oyy");
    check(&cancellation_key("lb01", 1), &cancellation("lb01"), "--oyy");
    check(&cancellation_key("lb02", 1), &cancellation("web01"), "--oyy");
    check(&cancellation_key("lb01", 3), &cancellation("web01"), "o-ooo");
    check(&cancellation_key("lb01", 3), &cancellation("db01"), "--ooo");
    check(&cancellation_key("lb01", 9), &cancellation("web01"), "l-ooo");
    check(&cancellation_key("web01", 2), &cancellation("web01"), "o-yyy");
    check(&cancellation_key("@lb", 1), &cancellation("web01"), "y--yy");
    check(&cancellation_key("@lb:lb02", 1), &cancellation("web01"), "y--yy");
    check(&cancellation_key("@web", 1), &cancellation("web01"), "---yy");
    check(&cancellation_key("@web:lb02", 1), &cancellation("web01"), "---yy");
    check(&cancellation_key("lb01", 1), &Value::Delivery(Delivery { part: 0 }), "--oyy");
    check(&delivery_key("lb01", 1), &cancellation("web01"), "--ooo");
}

#[test]
fn outcomes_are_the_targets_and_suppressed_ones_the_origins() {
    check(&outcome_key(2, "web01"), &expired(), "yy-yy");
    check(&outcome_key(5, "web01"), &expired(), "yy-yy");
    check(&outcome_key(1, "web01"), &expired(), "yy-yy");
    check(&outcome_key(3, "web01"), &expired(), "---yy");
    check(&outcome_key(9, "web01"), &expired(), "---yy");
    check(&outcome_key(1, "lb01"), &suppressed(), "y--yy");
    check(&outcome_key(1, "lb01"), &expired(), "o--yy");
    check(&outcome_key(2, "lb01"), &suppressed(), "---oo");
    check(&outcome_key(3, "lb01"), &suppressed(), "---oo");
    check(&outcome_key(9, "lb01"), &suppressed(), "l--oo");
    let mut world = world();
    world.put(&outcome_key(1, "lb01"), expired());
    let put = Action::Put { key: outcome_key(1, "lb01"), value: suppressed() };
    assert_eq!(world.says(&node("web01"), &[put]), "kept");
}

#[test]
fn a_nodes_records_are_its_own() {
    let own = |key: fn(Certname) -> Key| key(certname("web01"));
    let other = |key: fn(Certname) -> Key| key(certname("lb01"));
    let registration = |certname| Key::Node { certname };
    check(&own(registration), &Value::Other, "-yoyy");
    check(&other(registration), &Value::Other, "--oyo");
    let history = |certname| Key::RunHistory { certname };
    check(&own(history), &Value::Other, "yyoyy");
    check(&other(history), &Value::Other, "--ooo");
    check(&certificate_key("web01"), &Value::Certificate(certificate("web01", 7)), "y-oyy");
    check(&certificate_key("web01"), &Value::Certificate(certificate("web01", 8)), "--oyy");
    check(&certificate_key("web01"), &Value::Certificate(certificate("lb01", 7)), "--oyy");
    check(&certificate_key("web01"), &Value::Other, "--oyy");
    check(&certificate_key("lb01"), &Value::Certificate(certificate("lb01", 7)), "--oyy");
    check(&Key::Sweep, &Value::Other, "---oo");
}

/// Proves C13.
#[test]
fn a_node_asks_for_logs_in_its_own_name_and_answers_for_its_own_runs() {
    let request = |certname: &str, reader: &str| Key::LogRequest {
        certname: self::certname(certname),
        reader: self::certname(reader),
    };
    let plain = Value::LogRequest { as_operator: false };
    let as_operator = Value::LogRequest { as_operator: true };
    check(&request("lb01", "web01"), &plain, "y-yyy");
    check(&request("lb01", "web01"), &as_operator, "o-yyy");
    check(&request("lb01", "web01"), &Value::Other, "--yyy");
    check(&request("web01", "ops01"), &plain, "--yyy");
    check(&request("lb01", "ops01"), &plain, "---oo");
    check(&request("lb01", "ops01"), &as_operator, "---oo");
    let answer = |reader: &str, certname: &str| Key::LogAnswer {
        reader: self::certname(reader),
        certname: self::certname(certname),
    };
    check(&answer("ops01", "web01"), &Value::Other, "y-yyy");
    check(&answer("web01", "lb01"), &Value::Other, "--yyy");
    check(&answer("ops01", "lb01"), &Value::Other, "---oo");
}

/// Proves C13.
#[test]
fn a_node_is_held_by_operators_and_by_itself_each_in_its_own_name() {
    let key = |name: &str| Key::Hold { certname: certname(name) };
    check(&key("web01"), &hold("web01"), "y-oyy");
    check(&key("web01"), &hold("ops01"), "--oyy");
    check(&key("web01"), &Value::Other, "--oyy");
    check(&key("lb01"), &hold("web01"), "o-ooo");
    check(&key("lb01"), &hold("lb01"), "--ooo");
}

#[test]
fn ranges_show_what_concerns_a_node() {
    let group: GroupName = "any".parse().unwrap();
    for (scope, expected) in [
        (Scope::Range(Range::Events), "--"),
        (Scope::Range(Range::Event(event(1))), "y-"),
        (Scope::Range(Range::Event(event(2))), "y-"),
        (Scope::Range(Range::Event(event(3))), "--"),
        (Scope::Range(Range::Event(event(9))), "y-"),
        (Scope::Range(Range::Deliveries(certname("web01"))), "yy"),
        (Scope::Range(Range::Deliveries(certname("lb01"))), "--"),
        (Scope::Range(Range::GroupDeliveries(group)), "yy"),
        (Scope::Range(Range::Outcomes(event(1))), "yy"),
        (Scope::Range(Range::Outcomes(event(2))), "--"),
        (Scope::Range(Range::Outcomes(event(9))), "--"),
        (Scope::Range(Range::Nodes), "y-"),
        (Scope::Range(Range::LogRequests), "--"),
        (Scope::Range(Range::LogRequestsTo(certname("web01"))), "yy"),
        (Scope::Range(Range::LogRequestsTo(certname("lb01"))), "--"),
        (Scope::Range(Range::LogAnswers), "--"),
        (Scope::All, "--"),
    ] {
        let world = world();
        let found = |role: Role| -> String {
            let actor = Actor { role, ..node("web01") };
            let actions = [Action::Read(scope.clone()), Action::Watch(scope.clone())];
            let is_allowed = |action: &Action| world.verdict(&actor, std::slice::from_ref(action)).is_ok();
            actions.iter().map(|action| if is_allowed(action) { 'y' } else { '-' }).collect()
        };
        assert_eq!(found(Role::Node), expected, "{scope:?}");
        assert_eq!(found(Role::Operator), "yy", "{scope:?}");
    }
}

/// Proves C13: what is not stored yet may be stored by any node, so that there is nothing to see, now or later.
#[test]
fn an_event_that_is_not_stored_shows_nothing() {
    for scope in [Scope::Key(part_key(9)), Scope::Range(Range::Event(event(9)))] {
        assert_eq!(world().says(&node("web01"), &[Action::Read(scope)]), "nothing");
    }
    assert_eq!(world().says(&node("web01"), &[Action::Read(Scope::Key(part_key(1)))]), "yes");
    // Nor does an outcome, written before the event is, make it one that concerns the writer.
    let put = Action::Put { key: outcome_key(9, "web01"), value: expired() };
    assert_eq!(
        world().says(&node("web01"), &[put]),
        "web01 may not write outcomes/00000000-0000-0000-0000-000000000009/web01: nothing is stored of the event"
    );
}

#[test]
fn one_request_fires_a_whole_event() {
    let put = |key: Key, value: Value| Action::Put { key, value };
    let request = |origin: &str| {
        vec![
            put(part_key(9), a_part(9, origin, "lb01 @lb")),
            put(Key::Members { event: event(9), index: 0 }, Value::Members(1)),
            put(outcome_key(9, "lb02"), suppressed()),
            put(delivery_key("lb01", 9), Value::Delivery(Delivery { part: 0 })),
            put(delivery_key("@lb", 9), Value::Delivery(Delivery { part: 0 })),
        ]
    };
    assert_eq!(world().says(&node("web01"), &request("web01")), "yes");
    assert_eq!(
        world().says(&node("web01"), &request("db01")),
        "web01 may not write events/00000000-0000-0000-0000-000000000009/parts/0: a node fires as itself only, and \
         the origin of this event is db01"
    );
    assert_eq!(
        world().says(&node("web01"), &request("web01")[1..]),
        "web01 cannot write events/00000000-0000-0000-0000-000000000009/members/0 yet: nothing is stored of the event"
    );
}

#[test]
fn an_operator_is_known_by_its_name_or_by_its_certificate() {
    let operators = Operators {
        certnames: BTreeSet::from([certname("ops01")]),
        auth_roles: BTreeSet::from(["trigger".to_owned()]),
        cli_auth: true,
    };
    let role = |name: &str, extensions: &[(&str, &'static str)]| {
        let extension =
            |wanted: &str| extensions.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
        operators.role(&certname(name), extension)
    };
    assert_eq!(role("ops01", &[]), Role::Operator);
    assert_eq!(role("web01", &[]), Role::Node);
    assert_eq!(role("web01", &[("pp_auth_role", "trigger")]), Role::Operator);
    assert_eq!(role("web01", &[("pp_auth_role", "web, trigger")]), Role::Operator);
    assert_eq!(role("web01", &[("pp_auth_role", "triggers")]), Role::Node);
    assert_eq!(role("web01", &[("pp_role", "trigger")]), Role::Node);
    assert_eq!(role("web01", &[("pp_cli_auth", "true")]), Role::Operator);
    assert_eq!(role("web01", &[("pp_cli_auth", "false")]), Role::Node);
    let none = Operators::default();
    assert_eq!(none.role(&certname("web01"), |_| Some("true")), Role::Node);
}
