//! Scenarios. A script has the inputs in their order, and the expectation the effects.
//!
//! The words of a script are `e1` for an event, `e1:web` for a tagged one, `e1~` for a noop one; `+1500` lets 1500 ms
//! pass, and `wall+90000000` moves the wall clock alone; `unchanged`, `failed`, `not_run`, `interrupted` and so on end
//! the run; `[` and `]` begin and end a reading of deliveries, and `[all` and `all]` one of everything that is there; `block` and `unblock` disable and enable Puppet; `forged:e1` is a delivery whose event does not count, `unverified:e1` one
//! whose event cannot be verified now; `e1^` was fired with a catalog, `asked` means that PuppetDB has not answered yet, and `stored:e1` that it has stored the catalog of `e1`; `cancel:e1` is a delivery that its origin wants to end, `other:e1` one that another
//! node wants to end; `restart` starts a new agent that takes over from an idle
//! one.

mod backlog;
mod blockers;
mod cancelling;
mod environments;
mod forgery;
mod limit;
mod policy;
mod random_scripts;
mod recovery;
mod settling;

use std::collections::BTreeMap;

use super::*;
use crate::cancellation::{Cancellation, SignedCancellation};
use crate::delivery::DeliveryState;
use crate::event::{Event, Target, samples};
use crate::identity::{CatalogUuid, RunId};
use crate::lineage::Loops;
use crate::node::NodeRecord;
use crate::policy::{Policy, Rule, RuleSettings};
use crate::puppetdb::{Catalogs, StoredCatalog};
use crate::run::RunResult;
use crate::status::delivery_status;
use crate::wire::Stored;

struct World {
    queue: Queue,
    now: Now,
    seen: Vec<String>,
    runs: u128,
    /// By the wall clock, as the records of the runs keep them.
    starts: Vec<Timestamp>,
    /// The deduplication log.
    log: BTreeMap<EventId, HonouredEvent>,
}

fn settings() -> QueueSettings {
    QueueSettings {
        certname: "lb01.example.com".parse().unwrap(),
        command: CommandKind::PuppetAgent,
        // High enough not to matter except in the tests of the limit.
        runs_per_minute: "600".parse().unwrap(),
        policy: Policy::default(),
        settle: DEFAULT_SETTLE,
    }
}

/// The settings of a node where events may choose any environment.
fn settings_with_environments() -> QueueSettings {
    let rule = RuleSettings { environments: Some(vec!["*".to_owned()]), ..RuleSettings::default() };
    let policy = Policy::new("trigger.toml", vec![Rule::new(rule).unwrap()]);
    QueueSettings { policy, ..settings() }
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
        log: BTreeMap::new(),
    }
}

/// The node's record in the backend.
fn record(world: &World) -> NodeRecord {
    NodeRecord {
        instance: String::new(),
        lock: None,
        released: false,
        location: String::new(),
        renewals: 0,
        version: String::new(),
        seen_at: world.now.wall,
        groups: Default::default(),
        activity: world.queue.activity(),
    }
}

fn number(id: EventId) -> String {
    format!("e{}", u128::from_str_radix(&id.to_string().replace('-', ""), 16).unwrap())
}

fn disabled(reason: Option<&str>) -> Input {
    let puppet = reason.map(|reason| PuppetBlocker::Disabled(reason.to_owned()));
    Input::Blockers(Blockers { puppet, ..Blockers::default() })
}

fn catalog(n: u128) -> CatalogUuid {
    CatalogUuid::from_uuid(uuid::Uuid::from_u128(n))
}

/// PuppetDB has this catalog of the origin of all events.
fn stored(uuid: CatalogUuid, produced_at: Timestamp) -> Catalogs {
    let catalog = StoredCatalog { uuid: Some(uuid), produced_at };
    Catalogs::Stored([(samples::event(0, "t").origin, catalog)].into())
}

/// The cause that a word describes: `e1` is an event for a full run, `e1:web` for one with this tag, `e1~` for a noop run, `e1^`
/// one with a catalog that is awaited, `e1@test` one for a run in this environment.
fn cause(word: &str) -> Cause {
    let (word, environment) = word.split_once('@').map_or((word, None), |(word, name)| (word, Some(name)));
    let (name, tag) = word.split_once(':').map_or((word, None), |(n, t)| (n, Some(t)));
    let n: u128 = name.trim_start_matches('e').trim_end_matches(['~', '^']).parse().unwrap();
    let mut event = samples::event(n, "t");
    event.catalog = name.contains('^').then(|| catalog(n));
    event.options = RunOptions {
        tags: tag.into_iter().map(|t| t.parse().unwrap()).collect(),
        noop: name.contains('~'),
        environment: environment.map(|name| name.parse().unwrap()),
    };
    Cause {
        event,
        addressed_as: [Target::Node(settings().certname)].into(),
        interruptions: 0,
        without_catalog: false,
        signer: Default::default(),
    }
}

fn cancelled(event: &str, by: &str) -> Input {
    let cause = Box::new(cause(event));
    let cancellation = Cancellation::new(0, by.parse().unwrap(), cause.event.fired_at, None);
    let request = SignedCancellation { cancellation, signer: Default::default() };
    Input::Cancelled { cause, cancellation: Box::new(request) }
}

impl World {
    fn input(&mut self, input: Input) {
        // The agent looks at the blockers when the queue says that a run may start.
        let may_start = self.queue.may_start(self.now, &input) || matches!(input, Input::Blockers(_));
        for effect in self.queue.step(self.now, input) {
            assert!(may_start || !matches!(effect, Effect::StartRun { .. }), "{effect:?}");
            self.perform(effect);
        }
    }

    /// An earlier agent has started a run for `cause`, which is in progress.
    fn adopt(&mut self, cause: Cause, started_at: Timestamp) {
        let run_id = RunId::from_uuid(uuid::Uuid::from_u128(0));
        let running = Running { run_id, started_at, causes: vec![cause.event.id] };
        self.input(Input::Adopted { running, options: cause.event.options.clone(), causes: vec![cause] });
    }

    fn perform(&mut self, effect: Effect) {
        let text = match effect {
            Effect::StartRun { options, causes } => {
                self.runs += 1;
                self.starts.push(self.now.wall);
                let left_behind =
                    self.queue.waiting_causes().find(|c| c.event.options.kind() == options.kind());
                assert_eq!(left_behind, None, "a run covers everything of its kind that waits");
                let ids: Vec<String> = causes.iter().map(|cause| number(cause.event.id)).collect();
                let running = Running {
                    run_id: RunId::from_uuid(uuid::Uuid::from_u128(self.runs)),
                    started_at: self.now.wall,
                    causes: causes.iter().map(|cause| cause.event.id).collect(),
                };
                self.input(Input::Started(running));
                let tags: Vec<&str> = options.tags.iter().map(|tag| tag.as_str()).collect();
                let tags = if tags.is_empty() { String::new() } else { format!(":{}", tags.join("+")) };
                let environment = options.environment.map_or_else(String::new, |name| format!("@{name}"));
                format!("run{}{tags}{environment}[{}]", if options.noop { "~" } else { "" }, ids.join(","))
            }
            Effect::Finish { completions, .. } => {
                let mut words = Vec::new();
                for completion in completions {
                    let honoured = self.queue.honoured(completion.event);
                    self.log.extend(honoured.map(|honoured| (completion.event, honoured.clone())));
                    let how = match completion.outcome {
                        DeliveryOutcome::Done(_) => "done".to_owned(),
                        DeliveryOutcome::Failed(run) => format!("failed({})", run.result.outcome),
                        DeliveryOutcome::Expired(clocks) => {
                            let differ = clocks.is_some_and(|clocks| {
                                clocks.contains("the clock of web01.example.com is at")
                            });
                            if differ { "expired(clocks)".to_owned() } else { "expired".to_owned() }
                        }
                        DeliveryOutcome::Refused(_) => "refused".to_owned(),
                        DeliveryOutcome::Suppressed(_) => "suppressed".to_owned(),
                        DeliveryOutcome::Superseded(by) => format!("superseded({})", number(by)),
                        DeliveryOutcome::Cancelled { .. } => "cancelled".to_owned(),
                    };
                    words.push(format!("{}={how}", number(completion.event)));
                }
                format!("finish[{}]", words.join(","))
            }
            Effect::DeleteDeliveries { event, .. } => format!("delete[{}]", number(event)),
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
                    drift: Default::default(),
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
            } else if word == "[" {
                self.input(Input::ReadingStarted { is_whole: false });
            } else if word == "[all" {
                self.input(Input::ReadingStarted { is_whole: true });
            } else if word == "]" {
                self.input(Input::ReadingEnded { is_whole: false });
            } else if word == "all]" {
                self.input(Input::ReadingEnded { is_whole: true });
            } else if word == "block" {
                self.input(disabled(Some("disabled: maintenance")));
            } else if let Some(event) = word.strip_prefix("forged:") {
                let (event, target) = (cause(event).event.id, Target::Node(settings().certname));
                self.input(Input::Refused { event, target, reason: "it is forged".to_owned() });
            } else if let Some(event) = word.strip_prefix("unverified:") {
                let (event, reason) = (cause(event).event.id, "its certificate is not stored".to_owned());
                self.input(Input::Unverified(HeldDelivery { event, reason }));
            } else if word == "asked" {
                self.input(Input::Catalogs(Catalogs::Unknown));
            } else if word == "not_asked" {
                self.input(Input::Catalogs(Catalogs::NotAsked));
            } else if let Some(event) = word.strip_prefix("stored:") {
                let event = cause(event).event;
                let before = Timestamp::from_unix_ms(event.fired_at.as_unix_ms() - 5000);
                self.input(Input::Catalogs(stored(catalog(number(event.id)[1..].parse().unwrap()), before)));
            } else if let Some(event) = word.strip_prefix("cancel:") {
                self.input(cancelled(event, "web01.example.com"));
            } else if let Some(event) = word.strip_prefix("other:") {
                self.input(cancelled(event, "web02.example.com"));
            } else if word == "unblock" {
                self.input(disabled(None));
            } else {
                self.input(Input::Delivered(Box::new(cause(word))));
            }
        }
    }

    /// Another agent takes over from an idle one: the deduplication log, the records of the runs, and the deliveries in
    /// the backend. Its forward clock starts again.
    fn restart(&mut self) {
        assert!(self.queue.active.is_none(), "a run in progress would have to be adopted");
        let lines: Vec<String> = self.log.values().map(HonouredEvent::to_line).collect();
        let logged = lines.iter().filter_map(|line| HonouredEvent::from_line(line));
        let new = Queue::new(self.queue.settings.clone(), logged);
        let old = std::mem::replace(&mut self.queue, new);
        self.now.elapsed = Duration::ZERO;
        self.queue.recall_starts(self.now, self.starts.iter().copied());
        let repeated = old.settling.repeated_causes();
        let waiting: Vec<Cause> = old.waiting_causes().chain(repeated).cloned().collect();
        waiting.into_iter().for_each(|cause| self.input(Input::Delivered(Box::new(cause))));
        self.input(Input::Blockers(old.reported));
        self.input(Input::Recovered);
    }

    /// The most runs that started within any minute.
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
    check("e1 e1 e2 e2 +1500 unchanged e1", "run[e1] finish[e1=done] run[e2] delete[e1]");
}

/// Proves C5.
#[test]
fn tags_add_up_and_a_full_run_covers_them() {
    check("e1 e2:web e3:db +1500 unchanged", "run[e1] finish[e1=done] run:db+web[e2,e3]");
    check("e1 e2:web e3 +1500 unchanged", "run[e1] finish[e1=done] run[e2,e3]");
}

/// Proves C2.
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

/// Proves C6.
#[test]
fn a_run_that_failed_is_final() {
    check("e1 failed", "run[e1] finish[e1=failed(failed)]");
    check("e1 timed_out", "run[e1] finish[e1=failed(timed_out)]");
    check("e1 unknown", "run[e1] finish[e1=failed(unknown)]");
}

/// Proves C6.
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

/// Proves C6.
#[test]
fn an_interrupted_run_is_repeated_once() {
    check(
        "e1 +2000 interrupted e2 +2000 interrupted +2000 unchanged",
        "run[e1] finish[] run[e1] finish[e1=failed(interrupted)] run[e2] finish[e2=done]",
    );
}

#[test]
fn an_expired_event_does_not_run() {
    check("block e1 wall+86700001 unblock", "finish[e1=expired]");
    check("block e1 wall+86700000 unblock", "run[e1]");
}

/// Proves C12.
#[test]
fn an_expiry_names_the_clocks_and_blames_them_only_when_they_certainly_differ() {
    // A node that was off for two days has not been deceived by a clock.
    check("wall+172800000 [all e1 ]", "finish[e1=expired]");
    check("[all ] +60000 wall+172800000 [ e1 ]", "finish[e1=expired(clocks)]");
    // Ten minutes overdue: it may have been committed as long ago as everything was read last.
    check("[all ] +600000 wall+86400000 [ e1 ]", "finish[e1=expired]");
    check("[all ] +60000 wall+87400000 [ e1 ]", "finish[e1=expired(clocks)]");
    // It was in time when it came.
    check("[all ] block [ e1 ] wall+172800000 unblock", "finish[e1=expired]");
    let mut world = world();
    world.play("[all ] wall+172800000");
    let mut clocks = clocks::Clocks::default();
    clocks.reading_started(world.now, true);
    clocks.reading_started(world.now, false);
    let event = cause("e1").event;
    clocks.delivered(world.now, &event);
    assert_eq!(
        clocks.explain_expiry(world.now.wall, &event),
        format!(
            "it was fired at {} by the clock of {origin}, for 1d, and it was {} by the clock of this node; it had \
             just been committed, so the clock of {origin} is at least 23h 55m behind the one of this node: set the \
             wrong one right",
            event.fired_at.date_and_time(),
            world.now.wall.date_and_time(),
            origin = event.origin,
        )
    );
}

#[test]
fn a_noop_event_is_refused_where_noop_cannot_be_honoured() {
    let mut world = world_of(QueueSettings { command: CommandKind::Other, ..settings() });
    world.play("e1~ e2");
    assert_eq!(world.seen, ["finish[e1=refused]", "run[e2]"]);
}

#[test]
fn an_environment_is_refused_where_the_run_command_cannot_run_in_one() {
    let mut world = world_of(QueueSettings { command: CommandKind::Other, ..settings_with_environments() });
    let Some(refused) = world.queue.refusal(&cause("e1@test")) else { panic!("it is accepted") };
    let reason = DeliveryOutcome::Refused(
        "this node's run command cannot run in the environment test: 'puppet agent' can".to_owned(),
    );
    assert_eq!(refused, reason);
    world.play("e1@test e2");
    assert_eq!(world.seen, ["finish[e1=refused]", "run[e2]"]);
}

#[test]
fn an_outcome_without_a_run_is_stored_again_when_the_backend_has_lost_it() {
    let mut world = world_of(QueueSettings { command: CommandKind::Other, ..settings() });
    world.play("e1~ e1~");
    assert_eq!(world.seen, ["finish[e1=refused]", "finish[e1=refused]"]);
    check("block e1 wall+90000000 unblock e1", "finish[e1=expired] finish[e1=expired]");
}

/// Proves C4 and C13: what ends without a run is honoured once as well, across restarts.
#[test]
fn an_end_without_a_run_outlasts_the_agent() {
    check("block e1 wall+90000000 unblock restart e1", "finish[e1=expired] finish[e1=expired]");
    let mut world = world();
    world.play("block");
    for n in 1..=70 {
        world.play(&format!("e{n}"));
    }
    world.play("unblock +1500 changed restart");
    world.seen.clear();
    world.play("e1 e6 e70 +5000");
    assert_eq!(
        world.seen,
        ["finish[e1=superseded(e65)]", "finish[e6=superseded(e70)]", "delete[e70]"],
        "what took their place has run"
    );
}

/// Proves C2: a backend that was restored from a backup may have lost what took an event's place, before it was run for.
#[test]
fn an_event_runs_whose_successor_is_not_known_any_more() {
    let mut world = world();
    world.play("block");
    for n in 1..=65 {
        world.play(&format!("e{n}"));
    }
    assert_eq!(world.seen, ["finish[e1=superseded(e65)]"]);
    // The agent is killed, and the backend has only the first event.
    world.queue = Queue::new(settings(), world.log.values().cloned());
    world.input(Input::Recovered);
    world.play("e1 +1500 not_run e1 +20000 changed e1");
    assert_eq!(world.seen[1..], ["run[e1]", "finish[]", "run[e1]", "finish[e1=done]", "delete[e1]"]);
}

#[test]
fn real_and_noop_runs_take_turns_whatever_the_clocks_of_their_origins_say() {
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
fn an_event_in_its_own_chain_is_suppressed_at_the_member_of_a_group_unless_loops_are_allowed() {
    let mut world = world();
    let mut looped = cause("e9");
    let hop =
        crate::lineage::Hop { trigger: "t".parse().unwrap(), certname: "lb01.example.com".parse().unwrap() };
    looped.event.lineage.chains[0].hops.push(hop);
    let mut allowed = looped.clone();
    allowed.event.id = samples::event_id(10);
    allowed.event.loops = Loops::Allow;
    world.input(Input::Delivered(Box::new(looped)));
    world.input(Input::Delivered(Box::new(allowed)));
    assert_eq!(world.seen, ["finish[e9=suppressed]", "run[e10]"]);
}

#[test]
fn the_queue_knows_when_it_has_to_be_woken() {
    let mut world = world();
    assert_eq!(world.queue.next_wake(), None);
    world.play("e1 unchanged e2");
    assert_eq!(world.queue.next_wake(), Some(Duration::from_secs(1)));
    world.play("+1000");
    assert_eq!(world.queue.next_wake(), None, "a run in progress wakes the queue by ending");
}
