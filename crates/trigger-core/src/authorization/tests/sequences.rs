//! What no sequence of allowed requests can do.

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 3] = ["a", "b", "c"];
const EVENTS: u32 = 6;

/// Events that each of the nodes has fired at each other and at a group, with outcomes, and the records of all.
fn world() -> World {
    let mut world = World::default();
    world.fire(0, "a", "b c @lb");
    world.fire(1, "b", "a c @lb");
    world.fire(2, "c", "a b @lb");
    world.fire(3, "b", "c");
    for name in NAMES {
        world.put(&outcome_key(2, name), expired());
        world.put(&Key::Node { certname: certname(name) }, Value::Other);
        world.put(&Key::RunHistory { certname: certname(name) }, Value::Other);
        world.put(&Key::Hold { certname: certname(name) }, hold("ops"));
        world.put(&certificate_key(name), Value::Certificate(certificate(name, 7)));
        for other in NAMES {
            let (certname, reader) = (certname(name), certname(other));
            world.put(&Key::LogAnswer { reader: reader.clone(), certname: certname.clone() }, Value::Other);
            world.put(&Key::LogRequest { certname, reader }, Value::Other);
        }
    }
    for n in 0..3 {
        for target in ["a", "b", "c", "@lb", "@lb:b"] {
            world.put(&cancellation_key(target, n), cancellation("ops"));
        }
    }
    world.put(&Key::Members { event: event(1), index: 0 }, Value::Members(1));
    world.put(&Key::Settled { event: event(1) }, Value::Other);
    world
}

fn key() -> impl Strategy<Value = Key> {
    let name = prop::sample::select(&NAMES[..]);
    let target = prop_oneof![3 => prop::sample::select(&NAMES[..]), 1 => Just("@lb")];
    let reader = prop::sample::select(&NAMES[..]).prop_map(certname);
    (0..14_usize, 0..EVENTS, name, reader, target, 0..2_u32).prop_map(
        |(kind, n, name, reader, target, index)| {
            let (event, certname) = (event(n), certname(name));
            match kind {
                0 | 1 => Key::Part { event, index },
                2 => Key::Members { event, index },
                3 => Key::Settled { event },
                4 => delivery_key(target, n),
                5 => Key::Outcome { event, certname },
                6 => Key::Node { certname },
                7 => Key::RunHistory { certname },
                8 => Key::LogRequest { certname, reader },
                9 => Key::LogAnswer { reader, certname },
                10 => cancellation_key(target, n),
                11 => cancellation_key("@lb:b", n),
                12 => Key::Hold { certname },
                _ => certificate_key(name),
            }
        },
    )
}

/// A value that marks its writer: none of those in [`world`] is like it.
fn value() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(&NAMES[..]);
    prop_oneof![
        4 => (0..EVENTS, names, 0..2_u32, 1..3_u32).prop_map(|(n, origin, index, count)| {
            let part = part(n, origin, "a b c @lb");
            Value::Part(Box::new(Part { index, count, ..part }))
        }),
        2 => (0..2_u32).prop_map(|part| Value::Delivery(Delivery { part })),
        1 => Just(suppressed()),
        1 => prop::sample::select(&NAMES[..]).prop_map(cancellation),
        1 => prop::sample::select(&NAMES[..]).prop_map(hold),
        1 => Just(Value::Outcome(Box::new(DeliveryOutcome::Refused("by a".to_owned())))),
        1 => Just(Value::Other),
        1 => Just(Value::Members(2)),
        1 => (0..2_u32).prop_map(|as_operator| Value::LogRequest { as_operator: as_operator == 1 }),
        1 => prop::sample::select(&NAMES[..]).prop_map(|name| Value::Certificate(certificate(name, 7))),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (key(), value()).prop_map(|(key, value)| Action::Put { key, value }),
        1 => key().prop_map(|key| Action::CompareAndSwap { key }),
        2 => key().prop_map(|key| Action::Delete { key }),
    ]
}

/// Whether a stored value is another node's: not of an event that `a` has fired, not an end of a delivery to `a`, not a
/// record of `a`.
fn belongs_to_another(key: &str, world: &World) -> bool {
    let is_of_own_event = |event: EventId| {
        let part = world.part(&Key::Part { event, index: 0 });
        part.is_some_and(|part| part.event.origin == certname("a"))
    };
    match key.parse().unwrap() {
        Key::Part { event, .. } | Key::Members { event, .. } | Key::Settled { event } => {
            !is_of_own_event(event)
        }
        Key::GroupDelivery { event, .. } | Key::GroupCancellation { event, .. } => !is_of_own_event(event),
        Key::Cancellation { certname, event } => certname.as_str() != "a" && !is_of_own_event(event),
        Key::Delivery { certname, .. }
        | Key::Outcome { certname, .. }
        | Key::Node { certname }
        | Key::RunHistory { certname }
        | Key::Hold { certname }
        | Key::Certificate { certname, .. } => certname.as_str() != "a",
        Key::LogRequest { certname, reader } | Key::LogAnswer { reader, certname } => {
            certname.as_str() != "a" && reader.as_str() != "a"
        }
        Key::Sweep => true,
    }
}

/// Does `actions` in the order given, each of which the rules allow.
fn act(world: &mut World, actor: &Actor, actions: &[Action]) {
    for action in actions {
        let Ok(Progress::Allowed) = world.verdict(actor, std::slice::from_ref(action)) else { continue };
        match action {
            Action::Put { key, value } => world.put(key, value.clone()),
            Action::CompareAndSwap { key } => world.put(key, suppressed()),
            Action::Delete { key } => drop(world.0.remove(&key.to_string())),
            Action::Read(_) | Action::Watch(_) => {}
        }
    }
}

proptest! {
    /// Proves C13: whatever a node asks for and in whatever order, no value of another one changes or goes.
    #[test]
    fn no_node_changes_what_belongs_to_another(actions in proptest::collection::vec(action(), 0..60)) {
        let before = world();
        let mut after = before.clone();
        act(&mut after, &node("a"), &actions);
        for (key, value) in &before.0 {
            if belongs_to_another(key, &before) {
                prop_assert_eq!(after.0.get(key), Some(value), "{}", key);
            }
        }
        // It asks for logs in its own name, and not as an operator, which it is not.
        for name in NAMES {
            for reader in NAMES {
                let key = Key::LogRequest { certname: certname(name), reader: certname(reader) }.to_string();
                if let Some(request @ Value::LogRequest { .. }) = after.0.get(&key) {
                    prop_assert_eq!((reader, request), ("a", &Value::LogRequest { as_operator: false }));
                }
            }
        }
        // And every event that it has added says so.
        for n in 0..EVENTS {
            for key in [part_key(n), Key::Part { event: event(n), index: 1 }] {
                if let (Some(part), false) = (after.part(&key), before.has(&key)) {
                    prop_assert_eq!(part.event.origin.as_str(), "a");
                }
            }
        }
    }

    /// Proves C13: an operator changes nothing of another node, and deletes no event and no outcome: only the deliveries
    /// to a node, and its records.
    #[test]
    fn no_operator_changes_what_nodes_have_fired(actions in proptest::collection::vec(action(), 0..60)) {
        let before = world();
        let mut after = before.clone();
        act(&mut after, &Actor { certname: certname("a"), role: Role::Operator }, &actions);
        for (key, value) in &before.0 {
            let kinds = ["deliveries/", "nodes/", "run-history/", "certificates/", "holds/"];
            let may_go = kinds.iter().any(|kind| key.starts_with(kind));
            // It cancels, in its own name, what others have fired.
            let is_cancelled = key.contains("/cancelled") && after.0.get(key) == Some(&cancellation("a"));
            // And holds and releases any node so.
            let is_ordered = key.starts_with("holds/") && after.0.get(key) == Some(&hold("a"));
            if belongs_to_another(key, &before) && !is_cancelled && !is_ordered {
                prop_assert!(after.0.get(key) == Some(value) || (may_go && !after.has(&key.parse().unwrap())));
            }
        }
    }
}
