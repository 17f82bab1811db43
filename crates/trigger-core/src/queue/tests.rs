//! Scenarios. A script is what happens, in order; the expectation is what the queue asks for.
//!
//! `e1` an event, `e1:web` a tagged one, `e1~` a noop one, `+1500` time in ms, `unchanged`, `failed`,
//! `not_run`, `interrupted` and so on the end of the run, `block`, `unblock`, `wall+90000000` the wall
//! clock alone.

use super::*;
use crate::event::samples;
use crate::identity::RunId;
use crate::outcome::RunResult;

struct World {
    queue: Queue,
    now: Now,
    seen: Vec<String>,
    runs: u128,
}

fn world() -> World {
    world_of(Node { certname: "lb01.example.com".parse().unwrap(), honours_noop: true })
}

fn world_of(node: Node) -> World {
    World {
        queue: Queue::new(node, []),
        now: Now { wall: samples::event(0, "t").fired_at, elapsed: Duration::ZERO },
        seen: Vec::new(),
        runs: 0,
    }
}

fn number(id: EventId) -> String {
    format!("e{}", u128::from_str_radix(&id.to_string().replace('-', ""), 16).unwrap())
}

fn cause(word: &str) -> Cause {
    let (name, tag) = word.split_once(':').map_or((word, None), |(n, t)| (n, Some(t)));
    let n: u128 = name.trim_start_matches('e').trim_end_matches('~').parse().unwrap();
    let mut event = samples::event(n, "t");
    event.options =
        RunOptions { tags: tag.into_iter().map(|t| t.parse().unwrap()).collect(), noop: name.ends_with('~') };
    Cause { event, sources: [Source::Host].into(), interruptions: 0 }
}

impl World {
    fn input(&mut self, input: Input) {
        for effect in self.queue.step(self.now, input) {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        let text = match effect {
            Effect::StartRun { options, causes } => {
                self.runs += 1;
                let ids: Vec<String> = causes.iter().map(|cause| number(cause.event.id)).collect();
                let running = Running {
                    run_id: RunId::from_uuid(uuid::Uuid::from_u128(self.runs)),
                    started_at: self.now.wall,
                    causes: causes.iter().map(|cause| cause.event.id).collect(),
                };
                self.input(Input::Started(running));
                let tags: Vec<&str> = options.tags.iter().map(|tag| tag.as_str()).collect();
                let tags = if tags.is_empty() { String::new() } else { format!(":{}", tags.join("+")) };
                format!("run{}{tags}[{}]", if options.noop { "~" } else { "" }, ids.join(","))
            }
            Effect::Finish { endings, .. } => {
                let mut words = Vec::new();
                for ending in endings {
                    let how = match ending.end {
                        End::Done(_) => "done".to_owned(),
                        End::Failed(run) => format!("failed({})", run.result.outcome),
                        End::Expired => "expired".to_owned(),
                        End::Refused(_) => "refused".to_owned(),
                        End::Suppressed(_) => "suppressed".to_owned(),
                        End::Superseded(by) => format!("superseded({})", number(by)),
                    };
                    words.push(format!("{}={how}", number(ending.event)));
                }
                format!("finish[{}]", words.join(","))
            }
            Effect::Forget { event, .. } => format!("forget[{}]", number(event)),
        };
        self.seen.push(text);
    }

    fn play(&mut self, script: &str) {
        for word in script.split_whitespace() {
            if let Ok(outcome) = word.parse::<Outcome>() {
                let run_id = RunId::from_uuid(uuid::Uuid::from_u128(self.runs));
                let result = RunResult {
                    outcome,
                    reason: None,
                    started_at: self.now.wall,
                    finished_at: self.now.wall,
                };
                self.input(Input::RunEnded { run: EndedRun { run_id, noop: false, result }, jitter: 1.0 });
            } else if let Some(ms) = word.strip_prefix("wall+") {
                self.now.wall = self.now.wall.plus(Duration::from_millis(ms.parse().unwrap()));
                self.input(Input::Tick);
            } else if let Some(ms) = word.strip_prefix('+') {
                let passed = Duration::from_millis(ms.parse().unwrap());
                self.now.elapsed += passed;
                self.now.wall = self.now.wall.plus(passed);
                self.input(Input::Tick);
            } else if word == "block" {
                self.input(Input::Blocked(Some("disabled: maintenance".to_owned())));
            } else if word == "unblock" {
                self.input(Input::Blocked(None));
            } else {
                self.input(Input::Delivered(cause(word)));
            }
        }
    }
}

fn check(script: &str, expected: &str) {
    let mut world = world();
    world.play(script);
    assert_eq!(world.seen.join(" "), expected, "{script}");
}

#[test]
fn the_first_event_runs_at_once() {
    check("e1", "run[e1]");
}

#[test]
fn events_during_a_run_share_the_next_run() {
    check("e1 e2 e3 +1500 changed", "run[e1] finish[e1=done] run[e2,e3]");
}

#[test]
fn later_runs_start_at_least_a_second_apart() {
    check("e1 +100 unchanged e2 +800 e3", "run[e1] finish[e1=done]");
    check("e1 +100 unchanged e2 +800 e3 +100", "run[e1] finish[e1=done] run[e2,e3]");
}

#[test]
fn an_event_is_one_cause_however_often_it_is_read() {
    check("e1 e1 e2 e2 +1500 unchanged e1", "run[e1] finish[e1=done] run[e2] forget[e1]");
}

#[test]
fn tags_add_up_and_a_full_run_covers_them() {
    check("e1 e2:web e3:db +1500 unchanged", "run[e1] finish[e1=done] run:db+web[e2,e3]");
    check("e1 e2:web e3 +1500 unchanged", "run[e1] finish[e1=done] run[e2,e3]");
}

#[test]
fn a_tagged_run_in_progress_covers_nothing_that_came_later() {
    check("e1:web e2:web +1500 unchanged", "run:web[e1] finish[e1=done] run:web[e2]");
}

#[test]
fn noop_requests_have_runs_of_their_own() {
    check(
        "e1 e2~ e3 e4~ +1500 unchanged +1500 unchanged",
        "run[e1] finish[e1=done] run~[e2,e4] finish[e2=done,e4=done] run[e3]",
    );
}

#[test]
fn a_run_that_failed_is_final() {
    check("e1 failed", "run[e1] finish[e1=failed(failed)]");
    check("e1 timed_out", "run[e1] finish[e1=failed(timed_out)]");
    check("e1 unknown", "run[e1] finish[e1=failed(unknown)]");
}

#[test]
fn a_run_that_could_not_happen_is_tried_again_later_and_later() {
    check("e1 not_run +9999", "run[e1] finish[]");
    check("e1 not_run +10000 not_run +19999", "run[e1] finish[] run[e1] finish[]");
    check("e1 not_run +10000 not_run +20000", "run[e1] finish[] run[e1] finish[] run[e1]");
}

#[test]
fn a_new_event_shortens_a_long_wait_and_shares_the_try() {
    check(
        "e1 not_run +10000 not_run +20000 not_run e2 +5000",
        "run[e1] finish[] run[e1] finish[] run[e1] finish[] run[e1,e2]",
    );
}

#[test]
fn an_interrupted_run_is_repeated_once() {
    check(
        "e1 +2000 interrupted e2 +2000 interrupted +2000 unchanged",
        "run[e1] finish[] run[e1] finish[e1=failed(interrupted)] run[e2] finish[e2=done]",
    );
}

#[test]
fn what_outlived_its_event_does_not_run() {
    check("block e1 wall+86700001 unblock", "finish[e1=expired]");
    check("block e1 wall+86700000 unblock", "run[e1]");
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

#[test]
fn a_noop_event_is_refused_where_noop_cannot_be_honoured() {
    let mut world = world_of(Node { certname: "lb01.example.com".parse().unwrap(), honours_noop: false });
    world.play("e1~ e2");
    assert_eq!(world.seen, ["finish[e1=refused]", "run[e2]"]);
}

#[test]
fn a_burst_of_two_hundred_costs_a_handful_of_runs_and_loses_none() {
    let mut world = world();
    for n in 1..=200 {
        world.play(&format!("e{n} +5"));
        if n % 2 == 0 && world.queue.active.is_some() {
            world.play("unchanged");
        }
    }
    world.play("+1500 unchanged +1500 unchanged");
    let runs: Vec<&String> = world.seen.iter().filter(|s| s.starts_with("run")).collect();
    assert!(runs.len() <= 5, "{runs:?}");
    assert!(runs.last().unwrap().contains("e200"));
    let ends = world.seen.iter().flat_map(|s| s.matches('=')).count();
    assert_eq!(ends, 200);
}

#[test]
fn a_long_backlog_is_collapsed_only_into_later_equals() {
    let mut world = world();
    world.play("block");
    for n in 1..=BACKLOG_LIMIT {
        world.play(&format!("e{n}:t{n}"));
    }
    world.play("e100 e101");
    // Sixty-four different requests, then two alike: the earlier of the two goes.
    assert_eq!(world.seen, ["finish[e100=superseded(e101)]"]);
}

#[test]
fn every_superseded_event_names_a_later_one_that_is_still_there() {
    let mut world = world();
    world.play("block");
    for n in 1..=500 {
        world.play(&format!("e{n}"));
    }
    world.play("unblock");
    let run = world.seen.last().unwrap().clone();
    assert!(run.starts_with("run[") && run.contains("e500"), "{run}");
    assert_eq!(world.seen.iter().filter(|s| s.contains("superseded")).count(), 500 - BACKLOG_LIMIT);
}

#[test]
fn an_event_in_its_own_chain_is_suppressed_at_the_member_of_a_group() {
    let mut world = world();
    let mut looped = cause("e9");
    let hop =
        crate::lineage::Hop { trigger: "t".parse().unwrap(), certname: "lb01.example.com".parse().unwrap() };
    looped.event.lineage.chains[0].hops.push(hop);
    world.input(Input::Delivered(looped));
    assert_eq!(world.seen, ["finish[e9=suppressed]"]);
}

#[test]
fn an_adopted_run_keeps_its_causes_and_nothing_starts_beside_it() {
    let mut world = world();
    let adopted = cause("e1");
    let running = Running {
        run_id: RunId::from_uuid(uuid::Uuid::from_u128(0)),
        started_at: world.now.wall,
        causes: vec![adopted.event.id],
    };
    world.input(Input::Adopted { running, options: RunOptions::default(), causes: vec![adopted] });
    world.play("e1 e2 +5000 changed");
    assert_eq!(world.seen, ["finish[e1=done]", "run[e2]"]);
}

#[test]
fn runs_replayed_after_a_crash_leave_one_cause_or_none() {
    let mut world = world();
    world.play("block");
    let adopt = |world: &mut World, n: u128, outcome: &str| {
        let adopted = cause("e1");
        let running = Running {
            run_id: RunId::from_uuid(uuid::Uuid::from_u128(n)),
            started_at: world.now.wall,
            causes: vec![adopted.event.id],
        };
        world.input(Input::Adopted { running, options: RunOptions::default(), causes: vec![adopted] });
        world.play(outcome);
    };
    adopt(&mut world, 1, "not_run");
    adopt(&mut world, 2, "interrupted");
    assert_eq!(world.queue.waiting_causes().count(), 1);
    adopt(&mut world, 3, "changed");
    world.play("unblock +600000");
    assert_eq!(world.seen, ["finish[]", "finish[]", "finish[e1=done]"]);
}

#[test]
fn the_queue_tells_when_it_wants_to_be_woken() {
    let mut world = world();
    assert_eq!(world.queue.next_wake(), None);
    world.play("e1 unchanged e2");
    assert_eq!(world.queue.next_wake(), Some(Duration::from_secs(1)));
    world.play("+1000");
    assert_eq!(world.queue.next_wake(), None, "a run in progress wakes the queue by ending");
}

mod random_scripts {
    use super::*;
    use proptest::prelude::*;

    fn word() -> impl Strategy<Value = String> {
        prop_oneof![
            6 => (1..40_u32, prop_oneof![Just(""), Just(":web"), Just("~")]).prop_map(|(n, kind)| {
                // An event's options never change, so its kind follows from its number.
                match (n % 3, kind) { (0, _) => format!("e{n}~"), (1, _) => format!("e{n}:web"), _ => format!("e{n}") }
            }),
            3 => (0..3000_u32).prop_map(|ms| format!("+{ms}")),
            3 => prop_oneof![Just("unchanged"), Just("failed"), Just("not_run"), Just("interrupted")]
                .prop_map(str::to_owned),
            1 => Just("block".to_owned()),
            1 => Just("unblock".to_owned()),
        ]
    }

    proptest! {
        /// Invariants 2 and 6: whatever happens in whatever order, each event ends exactly once.
        #[test]
        fn every_event_ends_exactly_once(words in proptest::collection::vec(word(), 0..120)) {
            let mut world = world();
            world.play(&words.join(" "));
            world.play("unblock");
            for _ in 0..200 {
                world.play("+400000 unchanged");
            }
            let mut fired: Vec<String> = words.iter().filter(|w| w.starts_with('e'))
                .map(|w| w.split([':', '~']).next().unwrap().to_owned()).collect();
            fired.sort();
            fired.dedup();
            for event in fired {
                let ends: usize = world.seen.iter().map(|s| s.matches(&format!("{event}=")).count()).sum();
                prop_assert_eq!(ends, 1, "{} in {:?}", event, world.seen);
            }
        }
    }
}
