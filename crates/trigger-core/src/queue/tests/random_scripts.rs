//! Random scripts, in which each event ends exactly once.

use super::*;
use proptest::prelude::*;

/// The environment that an event asks for, as its number has it.
fn environment(n: u32) -> &'static str {
    ["", "", "@a", "@b"][n as usize % 4]
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => (1..40_u32, prop_oneof![Just(""), Just(":web"), Just("~")]).prop_map(|(n, kind)| {
            // An event's options never change, so its kind follows from its number.
            let catalog = if n % 5 == 0 { "^" } else { "" };
            match (n % 3, kind) {
                (0, _) => format!("e{n}~{catalog}{}", environment(n)),
                (1, _) => format!("e{n}{catalog}:web{}", environment(n)),
                _ => format!("e{n}{catalog}{}", environment(n)),
            }
        }),
        1 => (1..40_u32).prop_map(|n| match n % 3 {
            0 => format!("cancel:e{n}~{}", environment(n)),
            1 => format!("cancel:e{n}:web{}", environment(n)),
            _ => format!("cancel:e{n}{}", environment(n)),
        }),
        3 => (0..3000_u32).prop_map(|ms| format!("+{ms}")),
        3 => prop_oneof![Just("unchanged"), Just("failed"), Just("not_run"), Just("interrupted")]
            .prop_map(str::to_owned),
        1 => Just("[".to_owned()),
        1 => Just("]".to_owned()),
        1 => Just("block".to_owned()),
        1 => Just("unblock".to_owned()),
        2 => prop_oneof![Just("asked"), Just("stored:e5"), Just("stored:e10"), Just("not_asked")]
            .prop_map(str::to_owned),
        1 => Just("restart".to_owned()),
    ]
}

proptest! {
    /// Proves C2 and C6: whatever happens in whatever order, each event ends exactly once.
    #[test]
    fn every_event_ends_exactly_once_and_no_minute_has_more_runs_than_the_limit(
        words in proptest::collection::vec(word(), 0..120),
        limit in prop_oneof![Just(1_usize), Just(2), Just(5), Just(600)],
    ) {
        let limited = limit.to_string().parse().unwrap();
        let mut world = world_of(QueueSettings { runs_per_minute: limited, ..settings_with_environments() });
        for word in &words {
            if word != "restart" || world.queue.active.is_none() {
                world.play(word);
            }
        }
        world.play("unblock");
        for _ in 0..200 {
            world.play("+400000 unchanged");
        }
        prop_assert!(world.most_starts_in_a_minute() <= limit);
        let mut fired: Vec<String> = words.iter().map(|w| w.trim_start_matches("cancel:")).filter(|w| w.starts_with('e'))
            .map(|w| w.split([':', '~', '^', '@']).next().unwrap().to_owned()).collect();
        fired.sort();
        fired.dedup();
        for event in fired {
            let words = world.seen.iter().flat_map(|seen| seen.split(['[', ',', ']']));
            let mut ends: Vec<&str> = words.filter(|word| word.starts_with(&format!("{event}="))).collect();
            // An end without a run is stored again where the delivery comes again.
            if ends.first().is_some_and(|end| end.ends_with("=cancelled")) {
                ends.dedup();
            }
            prop_assert_eq!(ends.len(), 1, "{} in {:?}", event, world.seen);
        }
    }
}
