//! Scenarios. A script is what happens, in order; the expectation is what the queue asks for.
//!
//! `e1` an event, `e1:web` a tagged one, `e1~` a noop one, `+1500` time in ms, `unchanged`, `failed`,
//! `not_run`, `interrupted` and so on the end of the run, `block`, `unblock`, `wall+90000000` the wall
//! clock alone, `restart` a new agent that takes over from an idle one.

use super::*;
use crate::event::{Event, samples};
use crate::identity::RunId;
use crate::lineage::Loops;
use crate::node::NodeRecord;
use crate::run::RunResult;
use crate::wire::Stored;

struct World {
    queue: Queue,
    now: Now,
    seen: Vec<String>,
    runs: u128,
    /// By the wall clock, as the records of the runs keep them.
    starts: Vec<Timestamp>,
}

fn settings() -> QueueSettings {
    QueueSettings {
        certname: "lb01.example.com".parse().unwrap(),
        honours_noop: true,
        // So high that only those tests meet it that want to.
        runs_per_minute: "600".parse().unwrap(),
    }
}

fn world() -> World {
    world_of(settings())
}

fn world_with_limit(runs_per_minute: &str) -> World {
    world_of(QueueSettings { runs_per_minute: runs_per_minute.parse().unwrap(), ..settings() })
}

fn world_of(settings: QueueSettings) -> World {
    let mut world = world_in_recovery(settings);
    world.input(Input::Recovered);
    world
}

fn world_in_recovery(settings: QueueSettings) -> World {
    World {
        queue: Queue::new(settings, []),
        now: Now { wall: samples::event(0, "t").fired_at, elapsed: Duration::ZERO },
        seen: Vec::new(),
        runs: 0,
        starts: Vec::new(),
    }
}

fn number(id: EventId) -> String {
    format!("e{}", u128::from_str_radix(&id.to_string().replace('-', ""), 16).unwrap())
}

fn disabled(reason: Option<&str>) -> Input {
    Input::Blockers(Blockers { disabled: reason.map(str::to_owned), ..Blockers::default() })
}

fn cause(word: &str) -> Cause {
    let (name, tag) = word.split_once(':').map_or((word, None), |(n, t)| (n, Some(t)));
    let n: u128 = name.trim_start_matches('e').trim_end_matches('~').parse().unwrap();
    let mut event = samples::event(n, "t");
    event.options =
        RunOptions { tags: tag.into_iter().map(|t| t.parse().unwrap()).collect(), noop: name.ends_with('~') };
    Cause { event, addressed_as: [Target::Node(settings().certname)].into(), interruptions: 0 }
}

impl World {
    fn input(&mut self, input: Input) {
        // The shell looks at what may block a run when it is told that one may start.
        let may_start = self.queue.may_start(self.now, &input) || matches!(input, Input::Blockers(_));
        for effect in self.queue.step(self.now, input) {
            assert!(may_start || !matches!(effect, Effect::StartRun { .. }), "{effect:?}");
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        let text = match effect {
            Effect::StartRun { options, causes } => {
                self.runs += 1;
                self.starts.push(self.now.wall);
                let left_behind = self.queue.waiting_causes().find(|c| c.event.options.noop == options.noop);
                assert_eq!(left_behind, None, "a run covers all that waits for one of its kind");
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
            Effect::Finish { completions, .. } => {
                let mut words = Vec::new();
                for completion in completions {
                    let how = match completion.outcome {
                        DeliveryOutcome::Done(_) => "done".to_owned(),
                        DeliveryOutcome::Failed(run) => format!("failed({})", run.result.outcome),
                        DeliveryOutcome::Expired => "expired".to_owned(),
                        DeliveryOutcome::Refused(_) => "refused".to_owned(),
                        DeliveryOutcome::Suppressed(_) => "suppressed".to_owned(),
                        DeliveryOutcome::Superseded(by) => format!("superseded({})", number(by)),
                    };
                    words.push(format!("{}={how}", number(completion.event)));
                }
                format!("finish[{}]", words.join(","))
            }
            Effect::DeleteDeliveries { event, .. } => format!("forget[{}]", number(event)),
        };
        self.seen.push(text);
    }

    fn play(&mut self, script: &str) {
        for word in script.split_whitespace() {
            if let Ok(outcome) = word.parse::<RunOutcome>() {
                let run_id = RunId::from_uuid(uuid::Uuid::from_u128(self.runs));
                let result = RunResult {
                    outcome,
                    reason: None,
                    reported_noop: false,
                    started_at: self.now.wall,
                    finished_at: self.now.wall,
                };
                self.input(Input::RunEnded { run: CompletedRun::new(run_id, false, result), jitter: 1.0 });
            } else if let Some(ms) = word.strip_prefix("wall+") {
                self.now.wall = self.now.wall.plus(Duration::from_millis(ms.parse().unwrap()));
                self.input(Input::Tick);
            } else if let Some(ms) = word.strip_prefix('+') {
                let passed = Duration::from_millis(ms.parse().unwrap());
                self.now.elapsed += passed;
                self.now.wall = self.now.wall.plus(passed);
                self.input(Input::Tick);
            } else if word == "restart" {
                self.restart();
            } else if word == "block" {
                self.input(disabled(Some("disabled: maintenance")));
            } else if word == "unblock" {
                self.input(disabled(None));
            } else {
                self.input(Input::Delivered(cause(word)));
            }
        }
    }

    /// Another agent takes over what an idle one left: what has ended, the records of the runs, and the
    /// deliveries in the backend. Its forward clock begins anew.
    fn restart(&mut self) {
        assert!(self.queue.active.is_none(), "a run in progress would have to be adopted");
        let old = std::mem::replace(&mut self.queue, Queue::new(settings(), []));
        // What ended without a run is remembered by its outcome alone.
        let by_runs = old.completed.iter().filter(|(_, ended)| ended.without_run.is_none());
        self.queue = Queue::new(old.settings.clone(), by_runs.map(|(event, ended)| (*event, ended.at)));
        self.now.elapsed = Duration::ZERO;
        self.queue.recall_starts(self.now, self.starts.iter().copied());
        let waiting: Vec<Cause> = old.waiting_causes().cloned().collect();
        waiting.into_iter().for_each(|cause| self.input(Input::Delivered(cause)));
        self.input(Input::Blockers(old.reported));
        self.input(Input::Recovered);
    }

    /// Invariant: no more runs than the limit within any minute.
    fn most_starts_in_a_minute(&self) -> usize {
        let within = |start: &Timestamp| {
            let minute = start.plus(Duration::from_secs(60));
            self.starts.iter().filter(|other| *other >= start && **other < minute).count()
        };
        self.starts.iter().map(within).max().unwrap_or_default()
    }
}

fn check(script: &str, expected: &str) {
    check_in(world(), script, expected);
}

fn check_in(mut world: World, script: &str, expected: &str) {
    world.play(script);
    assert_eq!(world.seen.join(" "), expected, "{script}");
}

/// Proves C5.
#[test]
fn the_first_event_runs_at_once() {
    check("e1", "run[e1]");
}

/// Proves C5.
#[test]
fn events_during_a_run_share_the_next_run() {
    check("e1 e2 e3 +1500 changed", "run[e1] finish[e1=done] run[e2,e3]");
}

/// Proves C5.
#[test]
fn later_runs_start_at_least_a_second_apart() {
    check("e1 +100 unchanged e2 +800 e3", "run[e1] finish[e1=done]");
    check("e1 +100 unchanged e2 +800 e3 +100", "run[e1] finish[e1=done] run[e2,e3]");
}

#[test]
fn an_event_is_one_cause_however_often_it_is_read() {
    check("e1 e1 e2 e2 +1500 unchanged e1", "run[e1] finish[e1=done] run[e2] forget[e1]");
}

/// Proves C5.
#[test]
fn tags_add_up_and_a_full_run_covers_them() {
    check("e1 e2:web e3:db +1500 unchanged", "run[e1] finish[e1=done] run:db+web[e2,e3]");
    check("e1 e2:web e3 +1500 unchanged", "run[e1] finish[e1=done] run[e2,e3]");
}

#[test]
fn a_tagged_run_in_progress_covers_nothing_that_came_later() {
    check("e1:web e2:web +1500 unchanged", "run:web[e1] finish[e1=done] run:web[e2]");
}

/// Proves C5.
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
fn a_run_that_could_not_happen_because_of_a_block_runs_as_soon_as_that_is_gone() {
    let mut world = world();
    world.play("e1 +1000 block not_run");
    assert_eq!(world.queue.activity().held[0].reason, "disabled: maintenance");
    assert!(world.queue.activity().retrying.is_empty());
    world.play("unblock");
    assert_eq!(world.seen.join(" "), "run[e1] finish[] run[e1]");
}

#[test]
fn what_was_retrying_before_a_block_is_tried_soon_after_it() {
    let failed_thrice = "e1 +1500 not_run +10000 not_run +20000 not_run";
    let mut world = world();
    world.play(&format!("{failed_thrice} e2~ +1000 not_run block +1000 unblock"));
    let starts = world.starts.len();
    assert_eq!(world.queue.next_wake(), Some(world.now.elapsed + Duration::from_secs(5)), "not at once");
    let told = world.queue.activity();
    assert!(told.retrying.iter().all(|r| r.at <= world.now.wall.plus(Duration::from_secs(5))), "{told:?}");
    world.play("+5000 unchanged +1000");
    assert_eq!(world.starts.len(), starts + 2, "{:?}", world.seen);
    // Nothing is put off by it.
    check("e1 +1500 not_run +9000 block unblock +1000", "run[e1] finish[] run[e1]");
}

#[test]
fn what_may_block_is_looked_at_before_a_start_and_not_for_every_arrival() {
    let mut world = world();
    let arrival = |word: &str| Input::Delivered(cause(word));
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
fn the_first_blocker_in_their_order_counts() {
    let mut world = world_in_recovery(settings());
    world.play("e1");
    let check = |world: &mut World, claim: Option<ClaimBlocker>, disabled: Option<&str>, expected| {
        world.input(Input::Blockers(Blockers { claim, disabled: disabled.map(str::to_owned) }));
        assert_eq!(world.queue.blocked_reason(), expected);
        let held: Vec<&str> = world.queue.held().map(|(_, reason)| reason).collect();
        assert_eq!(held, Vec::from_iter(expected), "it is the reason of the delivery");
    };
    let stale = || Some(ClaimBlocker::Stale("not renewed for 150 s".to_owned()));
    check(&mut world, stale(), Some("maintenance"), Some("this agent takes up the runs of an earlier one"));
    world.input(Input::Recovered);
    check(&mut world, stale(), Some("maintenance"), Some("not renewed for 150 s"));
    check(&mut world, None, Some("maintenance"), Some("maintenance"));
    let unregistered = Some(ClaimBlocker::NotRegistered);
    check(&mut world, unregistered, None, Some("this agent has not registered with the backend yet"));
    assert_eq!(world.seen, [""; 0], "not even for a moment without a blocker");
    check(&mut world, None, None, None);
    assert_eq!(world.seen, ["run[e1]"]);
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

#[test]
fn a_noop_event_is_refused_where_noop_cannot_be_honoured() {
    let mut world = world_of(QueueSettings { honours_noop: false, ..settings() });
    world.play("e1~ e2");
    assert_eq!(world.seen, ["finish[e1=refused]", "run[e2]"]);
}

#[test]
fn an_end_without_a_run_is_told_again_when_the_backend_has_lost_it() {
    let mut world = world_of(QueueSettings { honours_noop: false, ..settings() });
    world.play("e1~ e1~");
    assert_eq!(world.seen, ["finish[e1=refused]", "finish[e1=refused]"]);
    check("block e1 wall+90000000 unblock e1", "finish[e1=expired] finish[e1=expired]");
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
    for n in 1..=MAX_BACKLOG {
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
    assert_eq!(world.seen.iter().filter(|s| s.contains("superseded")).count(), 500 - MAX_BACKLOG);
}

#[test]
fn neither_kind_of_run_waits_for_ever_behind_the_other_whatever_its_events_are_called() {
    let mut world = world();
    // The noop event comes from a node whose clock is years ahead: its id is higher than any other.
    world.play("e1 e99999~");
    for n in 2..=10 {
        world.play(&format!("e{n} +1000 unchanged +1000"));
    }
    let runs: Vec<&str> = world.seen.iter().map(String::as_str).filter(|s| s.starts_with("run")).collect();
    assert!(runs[..3].contains(&"run~[e99999]"), "{runs:?}");
}

#[test]
fn a_backlog_that_nothing_collapses_costs_each_new_event_one_look_at_it() {
    let mut world = world();
    world.play("block");
    let of = |n: u128| {
        let mut cause = cause(&format!("e{n}"));
        cause.event.origin = format!("node{n}").parse().unwrap();
        cause
    };
    // At every pair this would take minutes.
    for n in 1..=2_000 {
        world.input(Input::Delivered(of(n)));
    }
    assert_eq!(world.seen, [""; 0]);
    // An equal of the first one, and of the second one after a run that did not happen.
    let again = |n: u128, origin: u128| {
        let event = Event { id: samples::event_id(n), ..of(origin).event };
        Input::Delivered(Cause { event, ..of(origin) })
    };
    world.input(again(20_000, 1));
    assert_eq!(world.seen, ["finish[e1=superseded(e20000)]"]);
    world.play("unblock");
    world.seen.clear();
    world.input(again(20_001, 2));
    world.play("not_run");
    world.input(again(20_002, 3));
    assert_eq!(world.seen, ["finish[]", "finish[e2=superseded(e20001),e3=superseded(e20002)]"]);
}

#[test]
fn the_record_of_a_node_has_room_for_what_waits_however_much_that_is() {
    let mut world = world();
    let reason = "ä".repeat(10_000);
    world.input(disabled(Some(&reason)));
    for n in 1..=(MAX_LISTED as u128 + 500) {
        let mut cause = cause(&format!("e{n}"));
        cause.event.origin = format!("node{n}").parse().unwrap();
        world.input(Input::Delivered(cause));
    }
    let record = |world: &World| NodeRecord {
        instance: String::new(),
        lock: None,
        released: false,
        location: String::new(),
        renewals: 0,
        version: String::new(),
        seen_at: world.now.wall,
        groups: Default::default(),
        activity: world.queue.activity(),
    };
    let bytes = |world: &World| record(world).to_wire().len();
    assert_eq!(world.queue.held().count(), MAX_LISTED + 500, "all are held");
    assert!(world.queue.held().all(|(_, told)| told == reason));
    // What etcd takes is 1.5 MiB.
    assert!(bytes(&world) < 1024 * 1024, "{}", bytes(&world));
    world.play("unblock");
    assert_eq!(world.queue.activity().running.unwrap().causes.len(), MAX_LISTED);
    assert_eq!(world.queue.running_causes().len(), MAX_LISTED + 500);
    world.play("not_run");
    assert_eq!(world.queue.activity().retrying[0].causes.len(), MAX_LISTED);
}

#[test]
fn an_event_in_its_own_chain_is_suppressed_at_the_member_of_a_group_unless_loops_are_allowed() {
    let mut world = world();
    let mut looped = cause("e9");
    let hop =
        crate::lineage::Hop { trigger: "t".parse().unwrap(), certname: "lb01.example.com".parse().unwrap() };
    looped.event.lineage.chains[0].hops.push(hop);
    let mut allowed = looped.clone();
    allowed.event.id = samples::event_id(10);
    allowed.event.loops = Loops::Allow;
    world.input(Input::Delivered(looped));
    world.input(Input::Delivered(allowed));
    assert_eq!(world.seen, ["finish[e9=suppressed]", "run[e10]"]);
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

/// Takes up a run of `e1` that ended when no agent was there.
fn take_up(world: &mut World, outcome: &str, interruptions: u32) {
    let run_id = RunId::from_uuid(uuid::Uuid::from_u128(0));
    let result = RunResult {
        outcome: outcome.parse().unwrap(),
        reason: None,
        reported_noop: false,
        started_at: world.now.wall,
        finished_at: world.now.wall,
    };
    let causes = vec![Cause { interruptions, ..cause("e1") }];
    world.input(Input::CompletedWhileDown { run: CompletedRun::new(run_id, false, result), causes });
}

#[test]
fn what_a_run_that_nobody_saw_end_has_not_ended_comes_from_the_backend_or_not_at_all() {
    let mut world = world();
    world.play("block");
    take_up(&mut world, "not_run", 0);
    take_up(&mut world, "interrupted", 0);
    assert_eq!(world.queue.waiting_causes().count(), 0, "it may have ended elsewhere since");
    take_up(&mut world, "changed", 0);
    world.play("e1 unblock +600000");
    assert_eq!(world.seen, ["finish[]", "finish[]", "finish[e1=done]", "forget[e1]"]);
}

#[test]
fn a_repetition_that_was_interrupted_unseen_is_the_last() {
    let mut world = world();
    take_up(&mut world, "interrupted", 1);
    assert_eq!(world.seen, ["finish[e1=failed(interrupted)]"]);
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

/// Proves C5.
#[test]
fn no_more_runs_start_within_a_minute_than_the_limit_allows() {
    check_in(
        world_with_limit("2"),
        "e1 unchanged +5000 e2 unchanged +5000 e3 e4 +49999 +1 unchanged e5 +4999 +1",
        "run[e1] finish[e1=done] run[e2] finish[e2=done] run[e3,e4] finish[e3=done,e4=done] run[e5]",
    );
}

#[test]
fn by_default_ten_runs_may_start_within_a_minute() {
    let mut world = world_of(QueueSettings { runs_per_minute: Default::default(), ..settings() });
    for n in 1..=70 {
        world.play(&format!("e{n} unchanged +1000"));
    }
    assert_eq!(world.starts.len(), 20, "ten at once, ten a minute after each of those");
    assert_eq!(world.most_starts_in_a_minute(), 10);
}

#[test]
fn what_the_limit_delays_says_until_when_and_is_woken_then() {
    let mut world = world_with_limit("1");
    world.play("e1 unchanged");
    assert_eq!(world.queue.activity().delayed, None, "nothing waits");
    world.play("+500 e2~ e3");
    let delayed = world.queue.activity().delayed.unwrap();
    assert_eq!(delayed.at, world.now.wall.plus(Duration::from_millis(59_500)));
    assert_eq!(
        delayed.reason,
        "1 run started within a minute (runs_per_minute); the next may start at 12:01:00 UTC"
    );
    assert_eq!(delayed.causes, [samples::event_id(3), samples::event_id(2)]);
    assert_eq!(world.queue.next_wake(), Some(Duration::from_secs(60)));
    // The same words for as long as it is the same delay, whatever the clock does.
    world.play("wall+300 +100");
    assert_eq!(world.queue.activity().delayed.unwrap(), delayed);
    world.play("block");
    assert_eq!(world.queue.activity().delayed, None, "it is held now");
    world.play("unblock +59400");
    assert_eq!(world.seen.last().unwrap(), "run~[e2]");
    assert_eq!(world.queue.activity().delayed, None);
    world.play("unchanged");
    assert_eq!(world.queue.activity().delayed.unwrap().causes, [samples::event_id(3)]);
}

#[test]
fn a_retry_counts_as_a_start_and_waits_for_the_limit_too() {
    let mut world = world_with_limit("2");
    world.play("e1 not_run +10000 not_run");
    let retrying = &world.queue.activity().retrying[0];
    assert_eq!(
        retrying.at,
        world.starts[0].plus(Duration::from_secs(60)),
        "twenty seconds would be too soon"
    );
    world.play("+49999");
    assert_eq!(world.starts.len(), 2);
    world.play("+1");
    assert_eq!(world.starts.len(), 3);
}

#[test]
fn a_restart_makes_no_room_for_more_runs() {
    check_in(
        world_with_limit("2"),
        "e1 unchanged +5000 e2 unchanged +5000 restart e3 +5000 restart +44999 +1",
        "run[e1] finish[e1=done] run[e2] finish[e2=done] run[e3]",
    );
}

#[test]
fn an_adopted_run_counts_from_its_own_start() {
    let mut world = world_with_limit("1");
    world.now.elapsed = Duration::from_secs(1);
    let adopted = cause("e1");
    let running = Running {
        run_id: RunId::from_uuid(uuid::Uuid::from_u128(0)),
        started_at: Timestamp::from_unix_ms(world.now.wall.as_unix_ms() - 50_000),
        causes: vec![adopted.event.id],
    };
    world.input(Input::Adopted { running, options: RunOptions::default(), causes: vec![adopted] });
    world.play("e2 changed +9999");
    assert_eq!(world.seen, ["finish[e1=done]"]);
    world.play("+1");
    assert_eq!(world.seen, ["finish[e1=done]", "run[e2]"]);
}

#[test]
fn what_expires_while_it_is_delayed_ends_visibly() {
    check_in(
        world_with_limit("1"),
        "e1 unchanged e2 wall+86700001 +60000",
        "run[e1] finish[e1=done] finish[e2=expired]",
    );
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
            1 => Just("restart".to_owned()),
        ]
    }

    proptest! {
        /// C2 and C6: whatever happens in whatever order, each event ends exactly once.
        #[test]
        fn every_event_ends_exactly_once_and_no_minute_has_more_runs_than_the_limit(
            words in proptest::collection::vec(word(), 0..120),
            limit in prop_oneof![Just(1_usize), Just(2), Just(5), Just(600)],
        ) {
            let mut world = world_with_limit(&limit.to_string());
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
