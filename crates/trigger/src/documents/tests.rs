//! The golden files of the documents, and their schemas.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use snapbox::{Data, assert_data_eq};
use trigger_core::delivery::DeliveryState;
use trigger_core::doctor::{self, Agent, Outbox, examine};
use trigger_core::event::{DEFAULT_LIFETIME, RunOptions, Targets};
use trigger_core::identity::KeyPrefix;
use trigger_core::keyspace::Keyspace;
use trigger_core::lineage::{Lineage, Loops};
use trigger_core::node::{HeldNode, HoldReport, NodeRecord, RefusedHold, Running};
use trigger_core::policy::{Policy, Request, Rule, RuleSettings};
use trigger_core::run::history::{PastCause, PastRun, Truncated};
use trigger_core::run::record::{Cause, RunRecord};
use trigger_core::run::{CompletedRun, Drift, RunOutcome, RunResult};
use trigger_core::signer::Signer;
use trigger_core::status::{DeliveryRun, DeliveryStatus};
use trigger_core::time::Timestamp;
use trigger_core::why::{Question, RunState, Which};
use trigger_fleet::forgetting::Forgotten;
use trigger_fleet::overview::{NodeOverview, Overview};
use trigger_fleet::status;

use super::*;
use crate::fixtures::{NOON, chain, event_id, registration, run_id, status};

/// Compares a file of this crate's or of the repository's with what it should be.
fn check_file(path: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    assert_data_eq!(actual.to_owned(), Data::read_from(&path, None).raw());
}

/// Compares a document with its golden file.
fn check(name: &str, document: &impl Serialize) {
    let text = serde_json::to_string_pretty(document).unwrap();
    check_file(&format!("src/documents/golden/{name}.json"), &format!("{text}\n"));
}

/// Compares the schema of a document with its file.
fn check_schema<T: JsonSchema>(name: &str) {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let text = serde_json::to_string_pretty(&generator.into_root_schema_for::<T>()).unwrap();
    check_file(&format!("../../docs/schema/{name}.json"), &format!("{text}\n"));
}

#[test]
fn every_document_has_a_schema() {
    check_schema::<Fired>("fire");
    check_schema::<FollowedEvent>("fire-wait");
    check_schema::<EventStatus>("status-event");
    check_schema::<CancelledEvent>("cancel");
    check_schema::<HoldOrders>("hold");
    check_schema::<LatestEvents>("status");
    check_schema::<Diagnosis>("doctor");
    check_schema::<Nodes>("nodes");
    check_schema::<ForgottenNode>("node-forget");
    check_schema::<Queue>("queue");
    check_schema::<OutboxList>("outbox-list");
    check_schema::<OutboxChange>("outbox-change");
    check_schema::<Why>("why");
    check_schema::<Backup>("hub-backup");
    check_schema::<Renamed>("rename");
    check_schema::<RunLog>("log");
    check_schema::<Facts>("facts");
    check_schema::<PolicyDecision>("policy-test");
    check_schema::<EtcdRoles>("etcd-roles");
    check_schema::<Error>("error");
}

fn warnings() -> Vec<String> {
    vec!["something to know".to_owned()]
}

fn suppressed_groups() -> BTreeMap<trigger_core::identity::GroupName, String> {
    BTreeMap::from([("web".parse().unwrap(), "loop: seen".to_owned())])
}

/// An event with a delivery that is pending, one that is running and one that is done, for two groups.
fn event_status() -> status::EventStatus {
    let mut status = status(
        9,
        &[("lb01", DeliveryState::Pending), ("lb02", DeliveryState::Running), ("lb03", DeliveryState::Done)],
    );
    let run = |run| DeliveryStatus {
        state: DeliveryState::Done,
        run: Some(run),
        reason: None,
        successor: None,
        last_seen: None,
    };
    let running = Running {
        run_id: run_id(1),
        started_at: Timestamp::from_unix_ms(NOON + 1000),
        causes: vec![event_id(9)].into_iter().collect(),
    };
    let result = RunResult {
        outcome: RunOutcome::Changed,
        reason: None,
        reported_noop: false,
        drift: Drift { noop_pending: Some(true), really_changed: Some(true) },
        started_at: Timestamp::from_unix_ms(NOON + 1000),
        finished_at: Timestamp::from_unix_ms(NOON + 5100),
    };
    let running = DeliveryStatus { state: DeliveryState::Running, ..run(DeliveryRun::Running(running)) };
    let completed = run(DeliveryRun::Ended(CompletedRun { run_id: run_id(2), noop: false, result }));
    status.targets.insert("lb02".parse().unwrap(), running);
    status.targets.insert("lb03".parse().unwrap(), completed);
    status.cancellations.insert("lb01".parse().unwrap(), "web01".parse().unwrap());
    status.event.options.tags = ["profile::lb".parse().unwrap()].into();
    status.event.targets.groups = ["lb".parse().unwrap(), "web".parse().unwrap()].into();
    status
}

#[test]
fn a_fired_event() {
    let target = |name: &str, state| FireTarget { certname: Text(name.parse().unwrap()), state };
    let fired = Fired {
        event_id: Some(Text(event_id(9))),
        trigger: Text("refresh load balancers".parse().unwrap()),
        state: FireState::Committed,
        revision: Some(42),
        retry_of: None,
        targets: vec![target("lb01", FireState::Committed), target("lb02", FireState::Suppressed)],
        groups: vec![Text("lb".parse().unwrap())],
        suppressed_groups: SuppressedGroup::list(&suppressed_groups()),
        warnings: warnings(),
    };
    check("fire", &fired);
    let spooled = Fired {
        state: FireState::Spooled,
        revision: None,
        retry_of: Some(Text(event_id(1))),
        targets: Vec::new(),
        suppressed_groups: Vec::new(),
        warnings: Vec::new(),
        ..fired
    };
    check("fire-spooled", &spooled);
}

#[test]
fn what_is_wrong_with_a_node() {
    let mut facts = doctor::Facts::new(Timestamp::from_unix_ms(NOON), "0.1.0");
    facts.configuration.path = "/etc/trigger/trigger.toml".to_owned();
    facts.configuration.is_there = true;
    facts.configuration.names_backend = true;
    facts.agent = Some(Agent::Absent);
    facts.outbox = Some(Outbox { spooled: 2, elsewhere: 2, quarantined: 0 });
    check("doctor", &Diagnosis::of(&examine(&facts), warnings()));
}

#[test]
fn the_nodes_of_a_fleet() {
    let RunState::Ended { run, tags, environment } = chain().runs[0].state.clone() else {
        panic!("a run that has ended")
    };
    let cause = PastCause {
        event: event_id(6),
        trigger: "refresh".parse().unwrap(),
        origin: "web01".parse().unwrap(),
        fired_at: Timestamp::from_unix_ms(NOON),
        fired_in: None,
        fired_by: None,
    };
    let causes = Truncated { listed: vec![cause], more: 2 };
    let last_run = PastRun { run, tags, environment, causes, superseded: 0, fired: Truncated::default() };
    let lb01 = NodeOverview { record: registration(&["lb"]), last_run: Some(last_run) };
    let mut web01 = NodeRecord { released: true, activity: Default::default(), ..registration(&[]) };
    web01.activity.hold = Some(held());
    let overview = Overview {
        nodes: [
            ("lb01".parse().unwrap(), lb01),
            ("web01".parse().unwrap(), NodeOverview { record: web01, last_run: None }),
        ]
        .into(),
        unreadable: [("db01".parse().unwrap(), "it is of a newer version".to_owned())].into(),
        ..Overview::default()
    };
    check("nodes", &Nodes::of(&overview, Timestamp::from_unix_ms(NOON + 1000), warnings()));
}

#[test]
fn an_event_that_was_cancelled() {
    let mut status = event_status();
    if let Some(target) = status.targets.values_mut().next() {
        target.state = DeliveryState::Cancelled;
        target.reason = Some("cancelled by ops01: wrong node".to_owned());
        target.last_seen = None;
    }
    let cancelled = CancelledEvent {
        event: Event::of(&status),
        was_spooled: false,
        ended_before: vec![Text("web01".parse().unwrap())],
        warnings: warnings(),
    };
    check("cancel", &cancelled);
}

/// A node that is held, and has refused the order of another one since.
fn held() -> HoldReport {
    HoldReport {
        accepted: Some(12),
        held: Some(HeldNode {
            until: Timestamp::from_unix_ms(NOON + 3_600_000),
            by: "ops01".parse().unwrap(),
            reason: Some("database migration".to_owned()),
        }),
        refused: Some(RefusedHold {
            number: 13,
            by: "web01".parse().unwrap(),
            reason: "web01 is no operator".to_owned(),
        }),
    }
}

#[test]
fn nodes_that_were_held() {
    let certname = "lb01".parse().unwrap();
    let released = HoldReport { accepted: Some(14), held: None, refused: None };
    let node = |number, by: &str, report: &HoldReport| {
        OrderedNode::of(&certname, number, &by.parse().unwrap(), Some(report))
    };
    let nodes = vec![
        node(11, "ops01", &held()),
        node(12, "ops01", &held()),
        node(13, "web01", &held()),
        node(13, "ops02", &held()),
        node(14, "ops01", &held()),
        node(14, "ops01", &released),
    ];
    check("hold", &HoldOrders { nodes, warnings: warnings() });
}

#[test]
fn a_node_that_was_removed() {
    let forgotten = Forgotten { expired: vec![event_id(9)], was_registered: true };
    check("node-forget", &ForgottenNode::of(&"lb01".parse().unwrap(), &forgotten, warnings()));
}

#[test]
fn an_event_that_was_waited_for() {
    let followed = FollowedEvent {
        event: Event::of(&event_status()),
        state: FireState::Committed,
        revision: Some(42),
        suppressed_groups: SuppressedGroup::list(&suppressed_groups()),
        timed_out: true,
        warnings: warnings(),
    };
    check("fire-wait", &followed);
}

#[test]
fn an_event_in_the_backend() {
    let mut status = event_status();
    status.unreadable_parts = vec!["part 2 of 3".to_owned()];
    check("status-event", &EventStatus::committed(&status, &warnings()));
}

#[test]
fn an_event_in_the_outbox() {
    let status = status(9, &[("lb01", DeliveryState::Spooled)]);
    let reason = "the backend has not committed it yet";
    check(
        "status-event-spooled",
        &EventStatus::spooled(&status, DeliveryState::Spooled, reason, &suppressed_groups(), &[]),
    );
}

#[test]
fn the_latest_events() {
    check("status", &LatestEvents::of(&[event_status(), status(8, &[])], &warnings()));
    check("status-empty", &LatestEvents::of(&[], &[]));
}

#[test]
fn a_queue() {
    let view = r#"{
        "certname": "lb01", "backend": "hub+http://127.0.0.1:8145",
        "disconnected": "connection refused", "blocked": "Puppet is disabled", "blocked_by": "disabled",
        "hold": { "until_unix_ms": 1763816400000, "by": "ops01", "reason": "database migration" },
        "running": { "run_id": "r1", "started_at_unix_ms": 1763812800000, "causes": ["e1", "e2"] },
        "waiting": [
            { "event_id": "e3", "trigger": "reload", "origin": "web01", "tags": ["lb"], "noop": true,
              "retry_at_unix_ms": 1763812860000, "reason": "no catalog" },
            { "event_id": "e4", "trigger": "reload", "origin": "web01", "tags": [], "noop": false,
              "retry_at_unix_ms": null, "reason": null }
        ],
        "held": [
            { "event_id": "e5", "trigger": "reload", "origin": "web01", "reason": "Puppet is disabled" },
            { "event_id": "e6", "trigger": null, "origin": null, "reason": "written by a newer version" }
        ],
        "unreadable": [{ "key": "/puppet_trigger/events/hosts/lb01/x", "reason": "not an event id" }]
    }"#;
    let agent = Some(serde_json::from_str(view).unwrap());
    check("queue", &Queue::of(agent, vec![spooled()], vec![quarantined()], warnings()));
    check("queue-without-agent", &Queue::of(None, Vec::new(), Vec::new(), Vec::new()));
}

#[test]
fn facts() {
    let event = trigger_core::event::Event {
        id: event_id(9),
        trigger: "reload".parse().unwrap(),
        origin: "web01".parse().unwrap(),
        targets: Targets::default(),
        options: RunOptions::default(),
        lineage: Lineage::root(event_id(9)),
        fired_in: None,
        fired_by: None,
        catalog: None,
        loops: Loops::Avoid,
        fired_at: Timestamp::from_unix_ms(NOON),
        expires_in: DEFAULT_LIFETIME,
    };
    let cause = Cause {
        event,
        addressed_as: BTreeSet::new(),
        interruptions: 0,
        without_catalog: false,
        signer: Signer::default(),
    };
    let record = RunRecord {
        run_id: run_id(1),
        certname: "lb01".parse().unwrap(),
        command: Vec::new(),
        options: RunOptions::default(),
        timeout: Duration::from_secs(1),
        started_at: Timestamp::from_unix_ms(NOON),
        // A ninth is counted.
        causes: vec![cause; 9],
        environment: BTreeMap::new(),
    };
    let result = RunResult {
        outcome: RunOutcome::Failed,
        reason: Some("File[/x]: no space".to_owned()),
        reported_noop: false,
        drift: Drift::default(),
        started_at: Timestamp::from_unix_ms(NOON),
        finished_at: Timestamp::from_unix_ms(NOON + 4100),
    };
    let view = r#"{ "certname": "lb01", "backend": "hub+http://127.0.0.1:8145", "disconnected": null, "holds_claim": true,
        "blocked": "Puppet is disabled", "running": null, "waiting": [], "held": [], "unreadable": [] }"#;
    let backend = "hub+http://127.0.0.1:8145".to_owned();
    let document = Facts::new(
        Some("lb01".parse().unwrap()),
        Some(backend),
        &KeyPrefix::default(),
        &["web".parse().unwrap()],
        Some(&serde_json::from_str(view).unwrap()),
        Some(&(record, result)),
        warnings(),
    );
    check("facts", &document);
    check("facts-of-a-new-node", &Facts::new(None, None, &KeyPrefix::default(), &[], None, None, Vec::new()));
}

fn spooled() -> SpooledEvent {
    SpooledEvent {
        event_id: "e7".to_owned(),
        trigger: "reload".to_owned(),
        backend: "hub+http://127.0.0.1:8145".to_owned(),
        fired_at: Some(Time(Timestamp::from_unix_ms(NOON))),
        is_elsewhere: true,
        targets: 2,
        reason: "backend hub+http://localhost:8145 is unreachable".to_owned(),
    }
}

fn quarantined() -> QuarantinedFile {
    QuarantinedFile {
        file: "/var/lib/trigger/outbox/quarantined/e8.json".to_owned(),
        reason: "it expired".to_owned(),
    }
}

#[test]
fn an_outbox() {
    let (spooled, quarantined) = (vec![spooled()], vec![quarantined()]);
    check("outbox-list", &OutboxList { spooled, quarantined, warnings: warnings() });
    let events = vec!["e7".to_owned()];
    let backend = Some("hub+http://127.0.0.1:8145".to_owned());
    check("outbox-change", &OutboxChange { action: "readdressed", events, backend, warnings: Vec::new() });
}

#[test]
fn an_explanation_of_a_run() {
    let question = Question::Run("lb01.example.com".parse().unwrap(), Which::Back(0));
    check("why-run", &Why::of(&question, &chain(), None, warnings()));
}

#[test]
fn an_explanation_of_an_event() {
    let mut explanation = chain();
    explanation.runs.clear();
    explanation.events.truncate(1);
    explanation.events[0].what = None;
    let status = status(6, &[("lb01", DeliveryState::Held)]);
    check("why-event", &Why::of(&Question::Event(event_id(6)), &explanation, Some(&status), Vec::new()));
}

#[test]
fn a_backup() {
    let (data_dir, file) = ("/var/lib/trigger/hub".to_owned(), "/backup/hub.db".to_owned());
    check("hub-backup", &Backup { data_dir, file, warnings: Vec::new() });
}

#[test]
fn a_node_with_a_new_certname() {
    let [from, to] = ["web01.example.com", "shop01.example.com"].map(|name| name.parse().unwrap());
    let renamed = |to, left| Renamed::new("/var/lib/trigger".to_owned(), &from, to, left, warnings());
    let left = renamed(&to, vec![event_id(1), event_id(2)]);
    check("rename", &left);
    assert_eq!(
        left.sentence(),
        "/var/lib/trigger belongs to shop01.example.com now; it belonged to web01.example.com.\n\
         These events wait for web01.example.com and expire there; fire again at shop01.example.com what it still \
         needs:\n  00000000-0000-0000-0000-000000000001\n  00000000-0000-0000-0000-000000000002"
    );
    assert_eq!(renamed(&to, Vec::new()).sentence().lines().count(), 1);
    assert_eq!(
        renamed(&from, Vec::new()).sentence(),
        "/var/lib/trigger belongs to web01.example.com already."
    );
}

#[test]
fn the_roles_of_a_fleet_at_an_etcd() {
    let certnames = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
    let (nodes, operators) = (certnames(&["web01.example.com"]), certnames(&["ops01.example.com"]));
    let roles = EtcdRoles::new(&Keyspace::default(), &nodes, &operators, warnings());
    check("etcd-roles", &roles);
    check_file("src/documents/golden/etcd-roles.sh", &roles.script());
}

#[test]
fn a_decision_of_a_policy() {
    let rule = |settings| Rule::new(settings).unwrap();
    let from = |from: &str| RuleSettings { from: Some(vec![from.to_owned()]), ..RuleSettings::default() };
    let rules = vec![
        rule(from("db*")),
        rule(RuleSettings { only_noop: true, ..from("web*.example.com") }),
        rule(RuleSettings::default()),
    ];
    let policy = Policy::new("/etc/trigger/trigger.toml", rules);
    let (trigger, origin) = ("refresh".parse().unwrap(), "web01.example.com".parse().unwrap());
    let decided = |policy: &Policy, noop| {
        let options = RunOptions { tags: ["profile::lb".parse().unwrap()].into(), noop, environment: None };
        let signer = Signer::Unsigned;
        let request = Request { trigger: &trigger, origin: &origin, options: &options, signer: &signer };
        PolicyDecision::of(policy, &request, &policy.judge(&request), warnings())
    };
    check("policy-test", &decided(&policy, false));
    assert_eq!(
        decided(&policy, false).text(),
        "Refused: the [[accept]] rule 2 in /etc/trigger/trigger.toml on this node allows the trigger 'refresh' from \
         web01.example.com noop runs only, and this event asks for a real run.\n  \
         1. from db*: it is for events from db*\n  \
         2. from web*.example.com; noop only: it decides\n"
    );
    check("policy-test-accepted", &decided(&policy, true));
    assert_eq!(
        decided(&policy, true).text().lines().next(),
        Some(
            "Accepted: the [[accept]] rule 2 in /etc/trigger/trigger.toml accepts 'refresh' from web01.example.com."
        )
    );
    let none = decided(&Policy::new("/etc/trigger/trigger.toml", Vec::new()), false).text();
    assert!(none.starts_with("Accepted: /etc/trigger/trigger.toml has no [[accept]] rules"), "{none}");
}

#[test]
fn a_failure() {
    check("error", &Error { error: "it failed".to_owned(), warnings: warnings() });
}

#[test]
fn the_output_of_a_run_is_one_text() {
    let output = "Notice: a\nError: b\n".to_owned();
    check("log", &RunLog::of("lb01".parse().unwrap(), run_id(1), true, 7, output, warnings()));
}
