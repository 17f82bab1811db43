//! One chain, as people and Graphviz see it.

use snapbox::{IntoData, assert_data_eq, str};
use trigger_core::delivery::DeliveryState;
use trigger_core::event::{FiredBy, FiringResource};
use trigger_core::run::RunOutcome;
use trigger_core::run::history::{FiredEvent, Truncated};
use trigger_core::time::Timestamp;
use trigger_core::why::{EventStep, Explanation, RunState};

use super::*;
use crate::fixtures::{NOON, chain, event, event_id, run, status};

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
│     │ run 00000000-0000-0000-0000-000000000001, in the environment test, limited to web
│     │ 2 resources failed
│     └─ because of 'deploy', fired on ops01 at 2025-11-22T12:00:00Z
│        event 00000000-0000-0000-0000-000000000000, the root: fired outside any run
├─ because of 'backup', fired on db01 at 2025-11-22T12:00:05Z
│  event 00000000-0000-0000-0000-000000000005
│  fired in run 00000000-0000-0000-0000-000000000003 of db01, which is no longer on record
│  the event's own lineage: 'nightly' → db01 (root event 00000000-0000-0000-0000-000000000002)
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
fn a_root_says_whether_a_resource_fired_it() {
    let resource = FiringResource::new("/Stage[main]/Web/Trigger[deploy]", Some(("/etc/web.pp", Some(12))));
    let mut explanation = chain();
    let root = explanation.events.iter_mut().find(|step| step.id == event_id(0)).unwrap();
    root.what.as_mut().unwrap().fired_by = Some(FiredBy::Resource(resource));
    let page = text::page(&of_run(explanation), 120);
    let found: Vec<&str> = page.lines().skip_while(|line| !line.contains("'deploy'")).take(3).collect();
    assert_data_eq!(
        found.join("\n"),
        str![[r#"
│     └─ because of 'deploy', fired on ops01 at 2025-11-22T12:00:00Z
│        event 00000000-0000-0000-0000-000000000000, the root: fired in a Puppet run that Trigger did not start
│        by /Stage[main]/Web/Trigger[deploy] (/etc/web.pp, line 12)
"#]]
        .raw()
    );
}

#[test]
fn where_chains_meet_the_rest_is_described_once() {
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
│     │ run 00000000-0000-0000-0000-000000000001, in the environment test, limited to web
│     │ 2 resources failed
│     └─ because of event 00000000-0000-0000-0000-000000000000
│        which has been swept, so nothing more is known of it
└─ because of 'more', fired on web01 at 2025-11-22T12:00:08Z
   │ event 00000000-0000-0000-0000-000000000008
   └─ web01 ran at 2025-11-22T12:00:01Z: failed (noop), 4.1s
      run 00000000-0000-0000-0000-000000000001, in the environment test, limited to web
      2 resources failed
      (described above)
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

fn of_event(n: u128, targets: &[(&str, DeliveryState)]) -> Answer {
    let mut explanation = chain();
    explanation.events.insert(0, event(n, "back", "lb01.example.com", Some(7)));
    Answer { question: Question::Event(event_id(n)), explanation, event: Some(status(n, targets)) }
}

#[test]
fn a_suppressed_target_is_drawn_once() {
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
fn of_many_targets_the_unsuccessful_ones_are_drawn() {
    let names: Vec<String> = (10..40).map(|n| format!("n{n}")).collect();
    let state = |name: &str| if name == "n39" { DeliveryState::Failed } else { DeliveryState::Done };
    let targets: Vec<(&str, DeliveryState)> = names.iter().map(|name| (name.as_str(), state(name))).collect();
    let graph = dot::graph(&of_event(8, &targets));
    assert!(graph.contains("n39\\nfailed"), "{graph}");
    assert!(graph.contains("14 more targets"), "{graph}");
}

#[test]
fn of_many_fires_those_with_suppressed_targets_are_listed() {
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
    let Answer { question, explanation, event } = &answer;
    let document = Why::of(question, explanation, event.as_ref(), Vec::new());
    let run = serde_json::to_value(document).unwrap()["runs"][0].clone();
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
