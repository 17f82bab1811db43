//! Each scenario is a fleet of a few lines; `lines` asks and writes the answer down.

use super::*;
use crate::event::samples::{self, event_id};
use crate::lineage::{Chain, Hop};
use crate::node::Activity;
use crate::run::RunOutcome;
use crate::run::history::samples::{record, result, run_id};

/// What lies in the backend.
#[derive(Default)]
struct Fleet {
    nodes: BTreeMap<Certname, NodeFacts>,
    events: BTreeMap<EventId, Event>,
    outcomes: BTreeMap<(EventId, Certname), DeliveryOutcome>,
    is_for: BTreeSet<(EventId, Certname)>,
}

fn node(name: &str) -> Certname {
    name.parse().unwrap()
}

impl Fleet {
    /// An event fired on `origin`, in a run of it or in none.
    fn event(&mut self, id: u128, origin: &str, fired_in: Option<u128>) -> &mut Event {
        let mut event = samples::event(id, &format!("t{id}"));
        event.origin = node(origin);
        event.fired_in = fired_in.map(run_id);
        self.events.entry(event.id).or_insert(event)
    }

    /// A run that covered these events and fired those.
    fn run(&mut self, certname: &str, run: u128, causes: &[u128], fired: &[FiredEvent]) -> &mut Self {
        let causes = causes.iter().map(|&id| self.events[&event_id(id)].clone()).collect();
        let past = PastRun::of(&record(run, causes), result(RunOutcome::Changed), 0, fired.iter().cloned());
        self.nodes.entry(node(certname)).or_default().history.push(past);
        self
    }

    fn registered(&mut self, certname: &str) -> &mut NodeRecord {
        let facts = self.nodes.entry(node(certname)).or_default();
        facts.record.insert(NodeRecord {
            instance: String::new(),
            lock: None,
            released: false,
            location: String::new(),
            renewals: 0,
            version: String::new(),
            seen_at: Timestamp::from_unix_ms(0),
            groups: Default::default(),
            activity: Activity::default(),
        })
    }

    /// Asks until it is explained; the answer, and how often something was read.
    fn explain(&self, question: &Question) -> Result<(Explanation, usize), ExplainError> {
        self.explain_to(&Asker::Reader, question)
    }

    fn explain_to(&self, asker: &Asker, question: &Question) -> Result<(Explanation, usize), ExplainError> {
        let mut facts = Facts::default();
        for reads in 0..1000 {
            match explain(question, asker, &facts)? {
                Progress::Done(explanation) => return Ok((explanation, reads)),
                Progress::Read(wanted) => {
                    assert!(!wanted.is_empty());
                    assert!(wanted.nodes.len() + wanted.events.len() + wanted.outcomes.len() < 2_000);
                    for name in wanted.nodes {
                        let found = self.nodes.get(&name).cloned().unwrap_or_default();
                        assert!(facts.nodes.insert(name, found).is_none(), "nothing is read twice");
                    }
                    for id in wanted.events {
                        assert!(facts.events.insert(id, self.events.get(&id).cloned()).is_none());
                    }
                    for key in wanted.outcomes {
                        let outcome = self.outcomes.get(&key).cloned();
                        assert!(facts.outcomes.insert(key, outcome).is_none());
                    }
                    for key in wanted.is_for {
                        let is_for = self.is_for.contains(&key);
                        assert!(facts.is_for.insert(key, is_for).is_none());
                    }
                }
            }
        }
        panic!("it never comes to an end");
    }

    fn lines(&self, question: &Question) -> String {
        let (explanation, _) = self.explain(question).unwrap();
        let run = |step: &RunStep| {
            let state = match &step.state {
                RunState::Running { .. } => "running",
                RunState::Ended { .. } => "ended",
                RunState::Gone => "gone",
            };
            let causes: Vec<String> = step.causes.listed.iter().map(short).collect();
            let more = if step.causes.more > 0 { format!("+{}", step.causes.more) } else { String::new() };
            format!("run {} {} {state} [{}{more}]", short(&step.run_id), step.certname, causes.join(" "))
        };
        let event = |step: &EventStep| {
            let from = match &step.what {
                _ if step.is_root() => "root".to_owned(),
                Some(PastCause { fired_in: Some(run), .. }) => format!("in {}", short(run)),
                Some(_) => "of unknown origin".to_owned(),
                None => "unknown".to_owned(),
            };
            let marks = [(!step.is_followed, " named"), (step.lineage.is_none(), " swept")];
            let marks: String = marks.iter().filter(|(is_so, _)| *is_so).map(|(_, mark)| *mark).collect();
            format!("event {} {from}{marks}", short(&step.id))
        };
        let runs = explanation.runs.iter().map(run);
        runs.chain(explanation.events.iter().map(event)).collect::<Vec<_>>().join("\n")
    }
}

fn short(id: &impl ToString) -> String {
    id.to_string().rsplit('-').next().unwrap_or_default().trim_start_matches('0').to_owned()
}

fn latest(certname: &str) -> Question {
    Question::Run(node(certname), Which::Back(0))
}

fn fired(id: u128, suppressed: &[(&str, &str)], to_groups: bool) -> FiredEvent {
    let suppressed = suppressed.iter().map(|(certname, reason)| SuppressedTarget {
        target: Target::Node(node(certname)),
        reason: (*reason).to_owned(),
    });
    FiredEvent {
        event: event_id(id),
        trigger: "x".parse().unwrap(),
        to_groups,
        suppressed: Truncated::of(suppressed, 4),
        by_rule: Default::default(),
    }
}

/// ops fires 1 at web, whose run 0xa fires 2 at lb, whose run 0xb covers it and 3, fired by hand.
fn three_nodes() -> Fleet {
    let mut fleet = Fleet::default();
    fleet.event(1, "ops", None);
    fleet.run("web", 0xa, &[1], &[]);
    fleet.event(2, "web", Some(0xa)).lineage = Lineage {
        chains: vec![Chain {
            root: event_id(1),
            hops: vec![Hop { trigger: "t1".parse().unwrap(), certname: node("web") }],
        }],
    };
    fleet.event(3, "ops", None);
    fleet.run("lb", 0xb, &[2, 3], &[]);
    fleet
}

#[test]
fn a_chain_is_followed_to_its_roots_with_what_was_merged() {
    let fleet = three_nodes();
    let answer = "run b lb ended [2 3]\nrun a web ended [1]\nevent 2 in a\nevent 3 root\nevent 1 root";
    assert_eq!(fleet.lines(&latest("lb")), answer);
    // lb; 2 and 3; web; 1.
    assert_eq!(fleet.explain(&latest("lb")).unwrap().1, 4);
    assert_eq!(fleet.lines(&Question::Event(event_id(2))), "run a web ended [1]\nevent 2 in a\nevent 1 root");
}

#[test]
fn runs_back_and_by_their_id() {
    let mut fleet = three_nodes();
    fleet.event(4, "ops", None);
    fleet.run("lb", 0xc, &[4], &[]);
    fleet.registered("lb").activity.running = Some(Running {
        run_id: run_id(0xd),
        started_at: Timestamp::from_unix_ms(9),
        causes: vec![event_id(4)],
    });
    assert_eq!(fleet.lines(&latest("lb")), "run d lb running [4]\nevent 4 root");
    let back = |back| Question::Run(node("lb"), Which::Back(back));
    assert_eq!(fleet.lines(&back(1)), "run c lb ended [4]\nevent 4 root");
    assert!(fleet.lines(&back(2)).starts_with("run b lb ended"));
    assert_eq!(fleet.explain(&back(3)), Err(ExplainError::TooFewRuns(3)));
    let by_id = |run| Question::Run(node("lb"), Which::Id(run_id(run)));
    assert_eq!(fleet.lines(&by_id(0xc)), fleet.lines(&back(1)));
    assert_eq!(fleet.explain(&by_id(0xa)), Err(ExplainError::NoSuchRun(run_id(0xa))));
}

#[test]
fn a_run_in_the_history_has_ended_although_the_record_still_has_it_running() {
    let mut fleet = three_nodes();
    fleet.registered("lb").activity.running =
        Some(Running { run_id: run_id(0xb), started_at: Timestamp::from_unix_ms(9), causes: Vec::new() });
    assert!(fleet.lines(&latest("lb")).starts_with("run b lb ended [2 3]"));
    assert_eq!(
        fleet.explain(&Question::Run(node("lb"), Which::Back(1))),
        Err(ExplainError::TooFewRuns(1)),
        "it counts once"
    );
}

#[test]
fn removed_events_and_nodes_are_explained_from_the_other_records() {
    let mut fleet = three_nodes();
    fleet.nodes.remove(&node("web"));
    let (explanation, _) = fleet.explain(&latest("lb")).unwrap();
    assert_eq!(explanation.run(run_id(0xa)).unwrap().state, RunState::Gone);
    let lineage = explanation.event(event_id(2)).unwrap().lineage.clone().unwrap();
    assert_eq!(lineage.chains[0].root, event_id(1), "the event itself says what led to it");

    // The events have been removed; the histories of web and lb still have their runs.
    let mut fleet = three_nodes();
    fleet.events.clear();
    let answer = "run b lb ended [2 3]\nrun a web ended [1]\nevent 2 in a swept\nevent 3 root swept\nevent 1 root swept";
    assert_eq!(fleet.lines(&latest("lb")), answer);
    assert_eq!(fleet.explain(&Question::Event(event_id(2))), Err(ExplainError::NoEvent));
}

#[test]
fn an_event_of_an_older_version_is_no_root_because_it_names_no_run() {
    let mut fleet = three_nodes();
    fleet.events.get_mut(&event_id(2)).unwrap().fired_in = None;
    assert!(
        fleet.lines(&latest("lb")).contains("event 2 of unknown origin"),
        "{}",
        fleet.lines(&latest("lb"))
    );
}

#[test]
fn errors_distinguish_what_does_not_exist() {
    let mut fleet = Fleet::default();
    assert_eq!(fleet.explain(&latest("lb")), Err(ExplainError::NoNode));
    fleet.registered("lb");
    assert_eq!(fleet.explain(&latest("lb")), Err(ExplainError::NoRun));
}

#[test]
fn a_burst_is_followed_in_part_and_counted_whole() {
    let mut fleet = Fleet::default();
    let ids: Vec<u128> = (1..=200).collect();
    ids.iter().for_each(|&id| drop(fleet.event(id, "ops", None).clone()));
    fleet.run("lb", 0xb, &ids, &[]);
    let (explanation, _) = fleet.explain(&latest("lb")).unwrap();
    assert_eq!(explanation.runs[0].causes.count(), 200);
    let followed = explanation.events.iter().filter(|step| step.is_followed).count();
    assert_eq!((followed, explanation.events.len()), (MAX_FOLLOWED_PER_RUN, 32));
    assert!(explanation.events.iter().all(|step| step.trigger().is_some()), "named are all that are listed");
}

#[test]
fn of_events_with_the_same_past_one_is_followed() {
    let mut fleet = three_nodes();
    for id in 20..23 {
        fleet.event(id, "ops", None).trigger = "again".parse().unwrap();
        fleet.event(id + 10, "web", Some(0xa)).trigger = "again".parse().unwrap();
    }
    fleet.run("db", 0xd, &[20, 21, 22, 30, 31, 32], &[]);
    let (explanation, _) = fleet.explain(&latest("db")).unwrap();
    let followed = explanation.events.iter().filter(|step| step.is_followed).map(|step| step.id);
    assert_eq!(followed.collect::<Vec<_>>(), [20, 30, 1].map(event_id));
}

#[test]
fn bursts_of_bursts_come_to_an_end() {
    let mut fleet = Fleet::default();
    // 300 events, each fired in a run of its own, eight of them in each cause of each cause.
    for id in 10_000..10_300_u128 {
        let run = id * 2;
        fleet.event(id + 50_000, "ops", None);
        fleet.run(&format!("m{id}"), run, &[id + 50_000], &[]);
        fleet.event(id, &format!("m{id}"), Some(run));
    }
    for (group, chunk) in (10_000..10_300_u128).collect::<Vec<_>>().chunks(8).enumerate() {
        let run = 900_000 + group as u128;
        fleet.run(&format!("g{group}"), run, chunk, &[]);
        fleet.event(800_000 + group as u128, &format!("g{group}"), Some(run));
    }
    for (group, chunk) in (800_000..800_037_u128).collect::<Vec<_>>().chunks(8).enumerate() {
        let run = 950_000 + group as u128;
        fleet.run(&format!("h{group}"), run, chunk, &[]);
        fleet.event(850_000 + group as u128, &format!("h{group}"), Some(run));
    }
    let top: Vec<u128> = (850_000..850_005).collect();
    fleet.run("top", 1, &top, &[]);
    let (explanation, reads) = fleet.explain(&latest("top")).unwrap();
    let followed = explanation.events.iter().filter(|step| step.is_followed).count();
    assert_eq!(followed, MAX_FOLLOWED);
    assert!(reads < 20, "level by level, not one by one: {reads}");
}

#[test]
fn records_that_point_at_each_other_are_no_endless_chain() {
    let mut fleet = Fleet::default();
    fleet.event(1, "web", Some(0xa));
    fleet.run("web", 0xa, &[1], &[]);
    assert_eq!(fleet.lines(&latest("web")), "run a web ended [1]\nevent 1 in a");
}

#[test]
fn suppressed_targets_come_from_the_run_and_from_the_members() {
    let mut fleet = three_nodes();
    fleet.event(5, "lb", Some(0xb));
    fleet.event(6, "lb", Some(0xb));
    fleet.run("lb", 0xb, &[2, 3], &[fired(5, &[("web", "loop")], false), fired(6, &[], true)]);
    fleet
        .outcomes
        .insert((event_id(6), node("web")), DeliveryOutcome::Suppressed("loop of a member".to_owned()));
    fleet.outcomes.insert((event_id(5), node("lb")), DeliveryOutcome::Suppressed("never asked".to_owned()));
    let (explanation, _) = fleet.explain(&latest("lb")).unwrap();
    let reasons: Vec<&str> = explanation.runs[0]
        .fired
        .listed
        .iter()
        .flat_map(|fired| &fired.suppressed.listed)
        .map(|suppressed| suppressed.reason.as_str())
        .collect();
    assert_eq!(reasons, ["loop", "loop of a member"]);
}

#[test]
fn events_of_triggers_that_made_a_node_run_before_are_looked_up_first() {
    let mut fleet = three_nodes();
    let mut fires: Vec<FiredEvent> = (50..80).map(|id| fired(id, &[], true)).collect();
    fires[29].trigger = "t1".parse().unwrap();
    fleet.run("lb", 0xb, &[2, 3], &fires);
    fleet.outcomes.insert((event_id(79), node("web")), DeliveryOutcome::Suppressed("loop".to_owned()));
    let (explanation, _) = fleet.explain(&latest("lb")).unwrap();
    let suppressed = explanation.runs[0].fired.listed.iter().filter(|fired| fired.suppressed.count() > 0);
    assert_eq!(suppressed.map(|fired| fired.event).collect::<Vec<_>>(), [event_id(79)]);
}

#[test]
fn a_run_in_progress_shows_when_its_node_was_last_seen() {
    let mut fleet = three_nodes();
    let record = fleet.registered("lb");
    record.seen_at = Timestamp::from_unix_ms(7);
    let started_at = Timestamp::from_unix_ms(5);
    record.activity.running = Some(Running { run_id: run_id(0xd), started_at, causes: vec![event_id(3)] });
    let (explanation, _) = fleet.explain(&latest("lb")).unwrap();
    let expected = RunState::Running { started_at, seen_at: Timestamp::from_unix_ms(7) };
    assert_eq!(explanation.runs[0].state, expected);
}

/// Proves C13.
#[test]
fn what_a_node_says_of_itself_leads_to_no_other_node() {
    let asker = Asker::Node(node("web"));
    let shown = |fleet: &Fleet, question: &Question| -> String {
        let (explanation, _) = fleet.explain_to(&asker, question).unwrap();
        let runs = explanation.runs.iter().map(|run| run.certname.to_string());
        let events = explanation.events.iter().filter(|step| step.is_followed);
        runs.chain(events.map(|step| step.id.to_string()[35..].to_owned())).collect::<Vec<_>>().join(" ")
    };
    let mut fleet = Fleet::default();
    // Its history has causes that it names, with the runs of others as their origins.
    fleet.event(1, "db", Some(0xd));
    fleet.run("web", 0xa, &[1], &[]);
    fleet.run("db", 0xd, &[], &[]);
    assert_eq!(shown(&fleet, &latest("web")), "web", "another node's event, which is not for this node");
    fleet.is_for.insert((event_id(1), node("web")));
    assert_eq!(shown(&fleet, &latest("web")), "web db 1", "the same event, where it is");
    let stored = std::mem::take(&mut fleet.events);
    assert_eq!(shown(&fleet, &latest("web")), "web 1", "the same event, after it was removed");
    fleet.events = stored;

    // A chain goes on where each of its nodes was a target, and not by the lineage that an origin has written.
    fleet.event(2, "ops", Some(0xe)).lineage.chains.first_mut().unwrap().hops =
        vec![Hop { trigger: "t".parse().unwrap(), certname: node("ops") }];
    fleet.run("ops", 0xe, &[], &[]);
    fleet.run("db", 0xd, &[2], &[]);
    assert_eq!(shown(&fleet, &latest("web")), "web db 1");
    fleet.is_for.insert((event_id(2), node("db")));
    assert_eq!(shown(&fleet, &latest("web")), "web db ops 1 2");

    // Of an event that it may read and that is not for it, it sees no more than the event.
    assert_eq!(shown(&fleet, &Question::Event(event_id(2))), "");
    assert_eq!(fleet.explain_to(&asker, &Question::Event(event_id(2))).unwrap().0.events.len(), 1);
    assert_eq!(fleet.explain_to(&asker, &Question::Event(event_id(9))), Err(ExplainError::NoEvent));
}
