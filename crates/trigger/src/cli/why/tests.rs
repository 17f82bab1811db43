//! One chain, as people, programs and Graphviz see it.

use std::collections::BTreeSet;

use snapbox::{IntoData, assert_data_eq, str};
use trigger_core::delivery::DeliveryState;
use trigger_core::event::{Event, Target};
use trigger_core::identity::{RunId, TriggerName};
use trigger_core::lineage::{Chain, Hop, Lineage};
use trigger_core::run::history::{FiredEvent, PastCause, SuppressedTarget, Truncated};
use trigger_core::run::{CompletedRun, RunOutcome, RunResult};
use trigger_core::status::DeliveryStatus;
use trigger_core::time::Timestamp;
use trigger_core::why::{EventStep, RunState, RunStep};
use uuid::Uuid;

use super::*;

const NOON: u64 = 1_763_812_800_000;

fn event_id(n: u128) -> EventId {
    EventId::from_uuid(Uuid::from_u128(n))
}

fn run_id(n: u128) -> RunId {
    RunId::from_uuid(Uuid::from_u128(n))
}

fn event(n: u128, trigger: &str, origin: &str, fired_in: Option<u128>) -> EventStep {
    EventStep {
        id: event_id(n),
        what: Some(PastCause {
            event: event_id(n),
            trigger: trigger.parse().unwrap(),
            origin: origin.parse().unwrap(),
            fired_at: Timestamp::from_unix_ms(NOON + n as u64 * 1000),
            fired_in: fired_in.map(run_id),
        }),
        lineage: None,
        is_followed: true,
    }
}

fn run(n: u128, certname: &str, outcome: RunOutcome, causes: &[u128]) -> RunStep {
    let result = RunResult {
        outcome,
        reason: None,
        reported_noop: false,
        started_at: Timestamp::from_unix_ms(NOON + n as u64 * 1000),
        finished_at: Timestamp::from_unix_ms(NOON + n as u64 * 1000 + 4100),
    };
    RunStep {
        certname: certname.parse().unwrap(),
        run_id: run_id(n),
        state: RunState::Ended {
            run: CompletedRun { run_id: run_id(n), noop: false, result },
            tags: BTreeSet::new(),
        },
        causes: Truncated::of(causes.iter().map(|&cause| event_id(cause)), 32),
        superseded: 0,
        fired: Truncated::default(),
    }
}

/// deploy, by hand, at web01, whose run fires "refresh" at lb01, which merges a burst; lb01 fires into a loop.
fn chain() -> Explanation {
    let mut lb01 = run(7, "lb01.example.com", RunOutcome::Changed, &[6, 5, 20, 21]);
    lb01.causes.more = 168;
    lb01.superseded = 12;
    let loops =
        SuppressedTarget { target: Target::Node("web01".parse().unwrap()), reason: "loop: seen".to_owned() };
    let group =
        SuppressedTarget { target: Target::Group("all".parse().unwrap()), reason: "too far".to_owned() };
    let trigger: TriggerName = "back".parse().unwrap();
    let suppressed = Truncated { listed: vec![loops, group], more: 2 };
    let by_rule = Default::default();
    let fired = FiredEvent { event: event_id(9), trigger, to_groups: true, suppressed, by_rule };
    lb01.fired = Truncated::of([fired], 32);
    let mut web01 = run(1, "web01", RunOutcome::Failed, &[0]);
    if let RunState::Ended { run, tags } = &mut web01.state {
        run.noop = true;
        run.result.reason = Some("2 resources\n  failed".to_owned());
        *tags = ["web".parse().unwrap()].into();
    }
    let gone = RunStep { state: RunState::Gone, ..run(3, "db01", RunOutcome::Changed, &[]) };
    let mut of_gone = event(5, "backup", "db01", Some(3));
    of_gone.lineage = Some(Lineage {
        chains: vec![Chain {
            root: event_id(2),
            hops: vec![Hop { trigger: "nightly".parse().unwrap(), certname: "db01".parse().unwrap() }],
        }],
    });
    let named = |n| EventStep { is_followed: false, ..event(n, "rotate \"logs\"", "ops01", None) };
    Explanation {
        runs: vec![lb01, web01, gone],
        events: vec![
            event(6, "refresh", "web01", Some(1)),
            of_gone,
            named(20),
            named(21),
            event(0, "deploy", "ops01", None),
        ],
    }
}

fn of_run(explanation: Explanation) -> Answer {
    let question = Question::Run("lb01.example.com".parse().unwrap(), Which::Back(0));
    Answer { question, explanation, event: None }
}

#[test]
fn people_read_from_the_run_down_to_its_roots() {
    assert_data_eq!(
        text::page(&of_run(chain()), 100),
        str![[r#"
lb01.example.com ran at 2025-11-22T12:00:07Z: changed, 4.1s
│ run 00000000-0000-0000-0000-000000000007
├─ because of 'refresh', fired on web01 at 2025-11-22T12:00:06Z
│  │ event 00000000-0000-0000-0000-000000000006
│  └─ web01 ran at 2025-11-22T12:00:01Z: failed (noop), 4.1s
│     │ run 00000000-0000-0000-0000-000000000001, limited to web
│     │ 2 resources failed
│     └─ because of 'deploy', fired on ops01 at 2025-11-22T12:00:00Z
│        event 00000000-0000-0000-0000-000000000000, the root: fired outside any run
├─ because of 'backup', fired on db01 at 2025-11-22T12:00:05Z
│  event 00000000-0000-0000-0000-000000000005
│  fired in run 00000000-0000-0000-0000-000000000003 of db01, which is no longer on record
│  the event itself says: 'nightly' → db01 (root event 00000000-0000-0000-0000-000000000002)
├─ and 170 more events that shared the run
│  ├─ 2 of 'rotate "logs"', fired on ops01
│  └─ 168 others
├─ and 12 earlier events of a backlog that later ones superseded
└─ it fired 'back'
   │ event 00000000-0000-0000-0000-000000000009
   ├─ suppressed at web01: loop: seen
   ├─ suppressed at the group all: too far
   └─ suppressed at 2 more targets: trigger status 00000000-0000-0000-0000-000000000009
"#]]
        .raw()
    );
}

#[test]
fn where_chains_meet_the_rest_is_told_once() {
    let mut explanation = chain();
    explanation.runs.truncate(2);
    explanation.runs[0] = run(7, "lb01", RunOutcome::Unchanged, &[6, 8]);
    explanation.events = vec![
        event(6, "refresh", "web01", Some(1)),
        event(8, "more", "web01", Some(1)),
        EventStep { what: None, ..event(0, "x", "y", None) },
    ];
    assert_data_eq!(
        text::page(&of_run(explanation), 100),
        str![[r#"
lb01 ran at 2025-11-22T12:00:07Z: unchanged, 4.1s
│ run 00000000-0000-0000-0000-000000000007
├─ because of 'refresh', fired on web01 at 2025-11-22T12:00:06Z
│  │ event 00000000-0000-0000-0000-000000000006
│  └─ web01 ran at 2025-11-22T12:00:01Z: failed (noop), 4.1s
│     │ run 00000000-0000-0000-0000-000000000001, limited to web
│     │ 2 resources failed
│     └─ because of event 00000000-0000-0000-0000-000000000000
│        which has been swept: nothing tells what it was
└─ because of 'more', fired on web01 at 2025-11-22T12:00:08Z
   │ event 00000000-0000-0000-0000-000000000008
   └─ web01 ran at 2025-11-22T12:00:01Z: failed (noop), 4.1s
      run 00000000-0000-0000-0000-000000000001, limited to web
      2 resources failed
      (told above)
"#]]
        .raw()
    );
}

#[test]
fn programs_get_every_field() {
    let document =
        serde_json::to_string_pretty(&json::document(&of_run(chain()), &["w".to_owned()])).unwrap();
    assert_data_eq!(
        document,
        str![[r#"
{
  "certname": "lb01.example.com",
  "event_id": null,
  "events": [
    {
      "event_id": "00000000-0000-0000-0000-000000000006",
      "fired_at": "2025-11-22T12:00:06.000Z",
      "fired_in": "00000000-0000-0000-0000-000000000001",
      "followed": true,
      "lineage": null,
      "origin": "web01",
      "root": false,
      "trigger": "refresh"
    },
    {
      "event_id": "00000000-0000-0000-0000-000000000005",
      "fired_at": "2025-11-22T12:00:05.000Z",
      "fired_in": "00000000-0000-0000-0000-000000000003",
      "followed": true,
      "lineage": [
        {
          "hops": [
            {
              "certname": "db01",
              "trigger": "nightly"
            }
          ],
          "root": "00000000-0000-0000-0000-000000000002"
        }
      ],
      "origin": "db01",
      "root": false,
      "trigger": "backup"
    },
    {
      "event_id": "00000000-0000-0000-0000-000000000014",
      "fired_at": "2025-11-22T12:00:20.000Z",
      "fired_in": null,
      "followed": false,
      "lineage": null,
      "origin": "ops01",
      "root": true,
      "trigger": "rotate \"logs\""
    },
    {
      "event_id": "00000000-0000-0000-0000-000000000015",
      "fired_at": "2025-11-22T12:00:21.000Z",
      "fired_in": null,
      "followed": false,
      "lineage": null,
      "origin": "ops01",
      "root": true,
      "trigger": "rotate \"logs\""
    },
    {
      "event_id": "00000000-0000-0000-0000-000000000000",
      "fired_at": "2025-11-22T12:00:00.000Z",
      "fired_in": null,
      "followed": true,
      "lineage": null,
      "origin": "ops01",
      "root": true,
      "trigger": "deploy"
    }
  ],
  "run_id": "00000000-0000-0000-0000-000000000007",
  "runs": [
    {
      "causes": [
        "00000000-0000-0000-0000-000000000006",
        "00000000-0000-0000-0000-000000000005",
        "00000000-0000-0000-0000-000000000014",
        "00000000-0000-0000-0000-000000000015"
      ],
      "certname": "lb01.example.com",
      "finished_at": "2025-11-22T12:00:11.100Z",
      "fired": [
        {
          "event_id": "00000000-0000-0000-0000-000000000009",
          "more_suppressed": 2,
          "suppressed": [
            {
              "certname": "web01",
              "reason": "loop: seen"
            },
            {
              "group": "all",
              "reason": "too far"
            }
          ],
          "trigger": "back"
        }
      ],
      "more_causes": 168,
      "more_fired": 0,
      "noop": false,
      "outcome": "changed",
      "reason": null,
      "run_id": "00000000-0000-0000-0000-000000000007",
      "seen_at": null,
      "started_at": "2025-11-22T12:00:07.000Z",
      "state": "ended",
      "superseded": 12,
      "tags": []
    },
    {
      "causes": [
        "00000000-0000-0000-0000-000000000000"
      ],
      "certname": "web01",
      "finished_at": "2025-11-22T12:00:05.100Z",
      "fired": [],
      "more_causes": 0,
      "more_fired": 0,
      "noop": true,
      "outcome": "failed",
      "reason": "2 resources\n  failed",
      "run_id": "00000000-0000-0000-0000-000000000001",
      "seen_at": null,
      "started_at": "2025-11-22T12:00:01.000Z",
      "state": "ended",
      "superseded": 0,
      "tags": [
        "web"
      ]
    },
    {
      "causes": [],
      "certname": "db01",
      "finished_at": null,
      "fired": [],
      "more_causes": 0,
      "more_fired": 0,
      "noop": null,
      "outcome": null,
      "reason": null,
      "run_id": "00000000-0000-0000-0000-000000000003",
      "seen_at": null,
      "started_at": null,
      "state": "gone",
      "superseded": 0,
      "tags": null
    }
  ],
  "targets": null,
  "warnings": [
    "w"
  ]
}
"#]]
        .raw()
    );
}

#[test]
fn graphviz_gets_what_is_followed_and_counts_the_rest() {
    assert_data_eq!(dot::graph(&of_run(chain())), str![[r#"
digraph why {
  graph [rankdir=TB];
  node [fontname="sans-serif", fontsize=11];
  edge [fontname="sans-serif", fontsize=9];
  "event 00000000-0000-0000-0000-000000000006" [label="'refresh'\nfired on web01\n2025-11-22T12:00:06Z", shape=ellipse];
  "run 00000000-0000-0000-0000-000000000001" -> "event 00000000-0000-0000-0000-000000000006";
  "event 00000000-0000-0000-0000-000000000005" [label="'backup'\nfired on db01\n2025-11-22T12:00:05Z", shape=ellipse];
  "run 00000000-0000-0000-0000-000000000003" -> "event 00000000-0000-0000-0000-000000000005";
  "event 00000000-0000-0000-0000-000000000000" [label="'deploy'\nfired on ops01\n2025-11-22T12:00:00Z", shape=ellipse, penwidth=2];
  "run 00000000-0000-0000-0000-000000000007" [label="lb01.example.com ran\nchanged, 4.1s\n2025-11-22T12:00:07Z", shape=box, style=rounded, color=darkgreen];
  "event 00000000-0000-0000-0000-000000000006" -> "run 00000000-0000-0000-0000-000000000007";
  "event 00000000-0000-0000-0000-000000000005" -> "run 00000000-0000-0000-0000-000000000007";
  "more of 00000000-0000-0000-0000-000000000007 0" [label="2 more of 'rotate \"logs\"'\nfired on ops01", shape=plaintext];
  "more of 00000000-0000-0000-0000-000000000007 0" -> "run 00000000-0000-0000-0000-000000000007";
  "more of 00000000-0000-0000-0000-000000000007 1" [label="168 more events", shape=plaintext];
  "more of 00000000-0000-0000-0000-000000000007 1" -> "run 00000000-0000-0000-0000-000000000007";
  "more of 00000000-0000-0000-0000-000000000007 2" [label="12 earlier events\nof a backlog, superseded", shape=plaintext];
  "more of 00000000-0000-0000-0000-000000000007 2" -> "run 00000000-0000-0000-0000-000000000007";
  "event 00000000-0000-0000-0000-000000000009" [label="'back'", shape=ellipse, style=dashed];
  "run 00000000-0000-0000-0000-000000000007" -> "event 00000000-0000-0000-0000-000000000009" [style=dashed];
  "event 00000000-0000-0000-0000-000000000009 at web01" [label="web01", shape=box, style=dashed, color=darkorange];
  "event 00000000-0000-0000-0000-000000000009" -> "event 00000000-0000-0000-0000-000000000009 at web01" [style=dashed, label="suppressed", tooltip="loop: seen"];
  "event 00000000-0000-0000-0000-000000000009 at group all" [label="group all", shape=box, style=dashed, color=darkorange];
  "event 00000000-0000-0000-0000-000000000009" -> "event 00000000-0000-0000-0000-000000000009 at group all" [style=dashed, label="suppressed", tooltip="too far"];
  "event 00000000-0000-0000-0000-000000000009 elsewhere" [label="2 more targets", shape=plaintext];
  "event 00000000-0000-0000-0000-000000000009" -> "event 00000000-0000-0000-0000-000000000009 elsewhere" [style=dashed, label="suppressed"];
  "run 00000000-0000-0000-0000-000000000001" [label="web01 ran\nfailed (noop), 4.1s\n2025-11-22T12:00:01Z", shape=box, style=rounded, color=red];
  "event 00000000-0000-0000-0000-000000000000" -> "run 00000000-0000-0000-0000-000000000001";
  "run 00000000-0000-0000-0000-000000000003" [label="db01 ran\nno longer on record", shape=box, style=rounded, color=gray];
}
"#]].raw());
}

/// Where an event stands that was fired at these, each in its state.
fn status(n: u128, targets: &[(&str, DeliveryState)]) -> EventStatus {
    let target = |(certname, state): &(&str, DeliveryState)| {
        let reason = Some(format!("because of {certname}"));
        let status = DeliveryStatus { state: *state, run: None, reason, successor: None, last_seen: None };
        (certname.parse().unwrap(), status)
    };
    let event = Event {
        id: event_id(n),
        trigger: "back".parse().unwrap(),
        origin: "lb01.example.com".parse().unwrap(),
        targets: Default::default(),
        options: Default::default(),
        lineage: Lineage::root(event_id(n)),
        fired_in: Some(run_id(7)),
        loops: Default::default(),
        fired_at: Timestamp::from_unix_ms(NOON),
        expires_in: std::time::Duration::from_secs(60),
    };
    EventStatus { event, targets: targets.iter().map(target).collect(), unreadable_parts: Vec::new() }
}

fn of_event(n: u128, targets: &[(&str, DeliveryState)]) -> Answer {
    let mut explanation = chain();
    explanation.events.insert(0, event(n, "back", "lb01.example.com", Some(7)));
    Answer { question: Question::Event(event_id(n)), explanation, event: Some(status(n, targets)) }
}

#[test]
fn a_target_that_was_left_out_is_drawn_once() {
    let graph =
        dot::graph(&of_event(9, &[("web01", DeliveryState::Suppressed), ("web02", DeliveryState::Done)]));
    let of_event = format!("\"event {}\" -> ", event_id(9));
    let edges: Vec<&str> = graph.lines().filter_map(|line| line.trim().strip_prefix(&of_event)).collect();
    let at = |target: &str| format!("\"event {} at {target}\"", event_id(9));
    let expected = [
        // The group has no place among the targets.
        format!("{} [style=dashed, label=\"suppressed\", tooltip=\"too far\"];", at("group all")),
        format!("{} [style=dashed, label=\"suppressed\", tooltip=\"because of web01\"];", at("web01")),
        format!("{};", at("web02")),
    ];
    assert_eq!(edges, expected, "{graph}");
}

#[test]
fn of_many_targets_those_are_drawn_that_did_not_end_well() {
    let names: Vec<String> = (10..40).map(|n| format!("n{n}")).collect();
    let state = |name: &str| if name == "n39" { DeliveryState::Failed } else { DeliveryState::Done };
    let targets: Vec<(&str, DeliveryState)> = names.iter().map(|name| (name.as_str(), state(name))).collect();
    let graph = dot::graph(&of_event(8, &targets));
    assert!(graph.contains("n39\\nfailed"), "{graph}");
    assert!(graph.contains("14 more targets"), "{graph}");
}

#[test]
fn what_the_loop_guard_cut_is_told_of_many_fires() {
    let mut explanation = chain();
    let cut = explanation.runs[0].fired.listed.remove(0);
    let whole = |n| FiredEvent { event: event_id(n), suppressed: Truncated::default(), ..cut.clone() };
    explanation.runs[0].fired.listed = (100..120).map(whole).chain([cut.clone()]).collect();
    let page = text::page(&of_run(explanation), 100);
    let (first, rest) = page.split_once("it fired 'back'").unwrap();
    assert!(!first.contains("suppressed"), "{page}");
    assert!(rest.contains("suppressed at web01: loop: seen"), "{page}");
    assert!(rest.contains("and it fired 13 more events"), "{page}");
}

#[test]
fn a_run_in_progress_on_a_node_that_is_silent_says_so() {
    let mut explanation = chain();
    let (started_at, seen_at) = (Timestamp::from_unix_ms(NOON), Timestamp::from_unix_ms(NOON + 1000));
    explanation.runs[0].state = RunState::Running { started_at, seen_at };
    let answer = of_run(explanation);
    let silent =
        "lb01.example.com has been running since 2025-11-22T12:00:00Z; its agent has been silent for ";
    let page = text::page(&answer, usize::MAX);
    assert!(page.starts_with(silent), "{page}");
    let run = json::document(&answer, &[])["runs"][0].clone();
    assert_eq!(run["seen_at"], "2025-11-22T12:00:01.000Z", "{run}");
    assert!(run["reason"].as_str().unwrap().starts_with("its agent has been silent for "), "{run}");
    assert!(dot::graph(&answer).contains("its agent has been silent for "));

    let mut answer = of_event(8, &[("web02", DeliveryState::Pending)]);
    let target = answer.event.as_mut().unwrap().targets.values_mut().next().unwrap();
    target.last_seen = Some(seen_at);
    let page = text::page(&answer, usize::MAX);
    let silent = "at web02 pending: because of web02; its agent has been silent for ";
    assert!(page.contains(silent), "{page}");
}
