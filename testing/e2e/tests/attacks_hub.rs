//! A node that was taken over, behind a real hub with TLS: it has a certificate of the fleet's CA, and the whole protocol
//! at hand (C13). It can make other nodes run their own Puppet, as their policy allows, and nothing else.

#![allow(clippy::expect_used, reason = "a test fails where its scenery cannot be built")]

use std::fs;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};
use trigger_e2e::{BackendKind, Fleet, Node, Process, Ssl, eventually};

const PREFIX: &str = "/puppet_trigger/events";
const EVIL: &str = "evil.example.com";
const LB: &str = "lb01.example.com";
const WEB: &str = "web01.example.com";
const TO_PART_0: &str = r#"{"v":1,"body":{"part":0}}"#;

/// A hub with a node that serves and one that was taken over. Nodes that do not require signatures show what the hub
/// itself keeps from them.
struct Scene {
    fleet: Fleet,
    lb: Node,
    web: Node,
    evil: Node,
}

impl Scene {
    fn new() -> Self {
        let fleet = Fleet::on(BackendKind::Hub);
        let (mut lb, mut web, evil) = (fleet.node(LB), fleet.node(WEB), fleet.running(EVIL));
        lb.set("require_signature", "false").start_agent();
        web.set("require_signature", "false");
        Self { fleet, lb, web, evil }
    }

    fn ask(&self, path: &str, body: &Value) -> (u16, Value) {
        self.fleet.backend.post_as(&self.evil.ssl(), path, body)
    }

    fn put(&self, entries: &[(String, String)]) -> (u16, Value) {
        let entries: Vec<Value> =
            entries.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
        self.ask("/v1/put", &json!({ "entries": entries }))
    }

    /// The sentence with which the hub forbids a request.
    fn forbidden(&self, (status, reply): (u16, Value)) -> String {
        assert_eq!(status, 403, "{reply}");
        let sentence = reply["error"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned();
        assert!(sentence.contains(&format!("{EVIL} may not ")), "{sentence}");
        sentence
    }

    fn cannot_put(&self, key: &str, value: &str) {
        self.forbidden(self.put(&[(key.to_owned(), value.to_owned())]));
    }

    /// Stores one entry after the other, until the hub says that one node may not store more.
    fn fill_the_store(&self, at_once: usize, entry: impl Fn(usize) -> (String, String)) {
        let mut stored = 0;
        let (status, reply) = loop {
            match self.put(&(stored..stored + at_once).map(&entry).collect::<Vec<_>>()) {
                (200, _) => stored += at_once,
                refusal => break refusal,
            }
            assert!(stored < 5000, "one node has stored {stored} entries at once");
        };
        assert_eq!(status, 429, "{reply}");
        assert!(reply.to_string().contains("stored as much as one node may"), "{reply}");
    }

    /// The part of an event that the attacker has fired, at nodes of its choice.
    fn own_part(&self, hosts: &[&str]) -> (String, String) {
        let hosts: Vec<&str> = hosts.iter().flat_map(|host| ["--host", host]).collect();
        let event = self.evil.fire(&[&["attack"], &hosts[..]].concat()).committed();
        let part = self.fleet.backend.get(&part(&event)).expect("a part");
        (event, part)
    }
}

fn part(event: &str) -> String {
    format!("{PREFIX}/events/{event}/parts/0")
}

fn delivery(certname: &str, event: &str) -> String {
    format!("{PREFIX}/deliveries/{certname}/{event}")
}

fn outcome(certname: &str, event: &str) -> String {
    format!("{PREFIX}/outcomes/{event}/{certname}")
}

/// An id like that of an event, of which nothing is stored yet.
fn new_id(like: &str, n: usize) -> String {
    // In the form of earlier versions, which anyone could make.
    format!("{}7{}{n:012x}", &like[..14], &like[15..24])
}

/// Proves C8 and C13.
#[test]
fn it_runs_no_command_of_its_own() {
    let scene = Scene::new();
    let (known, text) = scene.own_part(&[LB]);
    scene.evil.wait_for(&known, LB, "done");
    let pwned = scene.lb.path("pwned");
    let command = format!("touch {}", pwned.display());
    // What it can write is an event; whatever else it puts into one reaches no command line.
    for (n, field) in ["run_cmd", "command", "environment", "options"].into_iter().enumerate() {
        let event = new_id(&known, n);
        let unsigned =
            format!("{}}}", text.split_once(",\"sig\"").expect("a signature").0).replace(&known, &event);
        let planted =
            unsigned.replacen("\"body\":{", &format!("\"body\":{{\"{field}\":{},", json!(command)), 1);
        assert!(planted.contains(&command), "{planted}");
        let (status, reply) =
            scene.put(&[(part(&event), planted), (delivery(LB, &event), TO_PART_0.to_owned())]);
        assert!([200, 400, 403].contains(&status), "{status} {reply}");
    }
    let named = format!("$({command}); `{command}`");
    let event = scene.evil.fire(&["--host", LB, "--", &named]).committed();
    scene.evil.wait_for(&event, LB, "done");
    let marker = scene.web.fire(&["marker", "--host", LB]).committed();
    scene.web.wait_for(&marker, LB, "done");
    assert!(!pwned.exists());
}

/// Proves C13.
#[test]
fn it_neither_reads_nor_changes_what_is_another_nodes() {
    let scene = Scene::new();
    let event = scene.web.fire(&["refresh", "--host", LB]).committed();
    scene.web.wait_for(&event, LB, "done");
    let kept = [outcome(LB, &event), format!("{PREFIX}/nodes/{LB}"), format!("{PREFIX}/run-history/{LB}")];
    let before: Vec<_> = kept.iter().map(|key| scene.fleet.backend.get(key).expect("a value")).collect();
    for (key, value) in kept.iter().zip(&before) {
        scene.cannot_put(key, value);
        let swap = json!({ "key": key, "value": value, "expected": null });
        scene.forbidden(scene.ask("/v1/compare-and-swap", &swap));
        scene.forbidden(scene.ask("/v1/delete", &json!({ "keys": [key] })));
    }
    for range in [
        json!({ "key": outcome(LB, &event) }),
        json!({ "key": format!("{PREFIX}/run-history/{LB}") }),
        json!({ "key": part(&event) }),
        json!({ "prefix": format!("{PREFIX}/deliveries/{LB}/") }),
        json!({ "prefix": format!("{PREFIX}/outcomes/{event}/") }),
        json!({ "prefix": format!("{PREFIX}/events/") }),
        json!({ "prefix": format!("{PREFIX}/") }),
    ] {
        scene.forbidden(scene.ask("/v1/read", &json!({ "ranges": [range] })));
    }
    // Nor by the questions that the hub answers with its own rights.
    let about = json!({ "prefix": PREFIX, "about": { "run": { "certname": LB, "back": 0 } } });
    let (_, reply) = scene.ask("/v1/why", &about);
    assert!(!reply.to_string().contains(&event), "{reply}");
    let status = scene.evil.trigger(&["status", &event]);
    assert_ne!(status.code, 0, "{status:?}");
    let after: Vec<_> = kept.iter().map(|key| scene.fleet.backend.get(key).expect("a value")).collect();
    assert_eq!(after[0], before[0]);
    assert_eq!(scene.web.delivery(&event, LB)["state"], "done");
    let log = scene.fleet.backend.log();
    assert!(log.contains(EVIL) && log.contains("may not"), "{log}");
}

/// Proves C13.
#[test]
fn it_holds_up_no_other_nodes_events() {
    let mut scene = Scene::new();
    scene.lb.kill_agent();
    let event = scene.web.fire(&["refresh", "--host", LB]).committed();
    scene.forbidden(scene.ask("/v1/delete", &json!({ "keys": [delivery(LB, &event)] })));
    scene.forbidden(scene.ask("/v1/delete", &json!({ "keys": [part(&event)] })));
    scene.cannot_put(&part(&event), "{}");
    scene.cannot_put(&outcome(LB, &event), r#"{"v":1,"body":{"suppressed":"no"}}"#);
    scene.cannot_put(&format!("{PREFIX}/events/{event}/settled"), "{}");
    scene.cannot_put(&format!("{PREFIX}/sweep"), EVIL);
    // The claim of another node cannot be taken, while its agent is away either.
    let registration = format!("{PREFIX}/nodes/{LB}");
    let (_, found) = scene.ask("/v1/read", &json!({ "ranges": [{ "key": registration }] }));
    let swap = json!({
        "key": registration, "value": found["entries"][0]["value"], "expected": found["entries"][0]["revision"],
    });
    scene.forbidden(scene.ask("/v1/compare-and-swap", &swap));
    // Nor is a certname without an agent to be had by its own configuration.
    let mut impostor = scene.fleet.node_in("impostor", WEB);
    impostor.has_certificate(&scene.evil.ssl()).launch_agent();
    impostor.wait_for_log("may not");
    assert_eq!(impostor.runs().len(), 0);
    scene.lb.start_agent();
    scene.web.wait_for(&event, LB, "done");
    assert_eq!(scene.lb.runs().len(), 1);
}

/// Proves C13: its own record of runs, in which it has run for the event of others, shows it nothing of that event.
#[test]
fn what_it_writes_into_its_own_records_shows_it_no_more() {
    let mut scene = Scene::new();
    let secret = scene.web.fire(&["refresh", "--host", LB]).committed();
    scene.web.wait_for(&secret, LB, "done");
    let own = scene.evil.fire(&["attack", "--host", EVIL]).committed();
    scene.evil.wait_for(&own, EVIL, "done");
    // Its agent signs what is in its files. An event whose id is not its origin's would be none.
    let by = |certname: &str| format!("\"origin\":\"{certname}\"");
    scene.evil.kill_agent();
    let mut changed = 0;
    for entry in fs::read_dir(scene.evil.path("state/runs")).expect("the records of its runs") {
        let path = entry.expect("a record").path();
        if let Ok(text) = fs::read_to_string(&path)
            && text.contains(&own)
        {
            let text = text.replace(&own, &secret).replace(&by(EVIL), &by(WEB));
            fs::write(&path, text).expect("a changed record");
            changed += 1;
        }
    }
    assert!(changed > 0, "no record has the event");
    scene.evil.start_agent();
    let next = scene.evil.fire(&["attack", "--host", EVIL]).committed();
    scene.evil.wait_for(&next, EVIL, "done");
    let history = format!("{PREFIX}/run-history/{EVIL}");
    let stored = scene.fleet.backend.get(&history).expect("a history");
    assert!(stored.contains(&secret), "the lie is stored: {stored}");

    let keys = |ssl: &Ssl, about: Value| -> Vec<String> {
        let question = json!({ "prefix": PREFIX, "about": about });
        let (status, reply) = scene.fleet.backend.post_as(ssl, "/v1/why", &question);
        let entries = reply["entries"].as_array();
        let entries = entries.unwrap_or_else(|| panic!("{status} {reply}"));
        entries.iter().filter_map(|entry| entry["key"].as_str()).map(str::to_owned).collect()
    };
    for back in [0, 1] {
        let shown = keys(&scene.evil.ssl(), json!({ "run": { "certname": EVIL, "back": back } }));
        assert!(shown.contains(&history), "{shown:?}");
        let others = |key: &&String| key.contains(&secret) || key.contains(LB) || key.contains(WEB);
        assert_eq!(shown.iter().find(others), None);
    }
    let about = json!({ "prefix": PREFIX, "about": { "event": secret } });
    scene.forbidden(scene.ask("/v1/why", &about));
    scene.forbidden(scene.ask("/v1/read", &json!({ "ranges": [{ "key": part(&secret) }] })));
    // The node that ran for it is shown it.
    let shown = keys(&scene.lb.ssl(), json!({ "run": { "certname": LB, "back": 0 } }));
    assert!(shown.contains(&part(&secret)), "{shown:?}");
}

/// Proves C13: it fires as itself, whatever its configuration says.
#[test]
fn it_fires_in_no_other_nodes_name() {
    let mut scene = Scene::new();
    scene.lb.kill_agent();
    scene.lb.set("accept", &format!("[{{ from = '{WEB}' }}]")).start_agent();
    let own = scene.evil.fire(&["attack", "--host", LB]).committed();
    scene.evil.wait_for(&own, LB, "refused");
    let mut impostor = scene.fleet.node_in("impostor", WEB);
    impostor.has_certificate(&scene.evil.ssl());
    let answer = impostor.fire(&["attack", "--host", LB]);
    assert_ne!(answer.json["state"], "committed", "{answer:?}");
    // By hand: its own event with the other node as origin.
    let text = scene.fleet.backend.get(&part(&own)).expect("a part");
    let event = new_id(&own, 1);
    let forged = text.replace(&own, &event).replace(EVIL, WEB);
    let sentence =
        scene.forbidden(scene.put(&[(part(&event), forged), (delivery(LB, &event), TO_PART_0.to_owned())]));
    assert!(sentence.contains("fires as itself only"), "{sentence}");
    let genuine = scene.web.fire(&["refresh", "--host", LB]).committed();
    scene.web.wait_for(&genuine, LB, "done");
    assert_eq!(scene.lb.runs().len(), 1);
}

/// Proves C1 and C13: it knows the id of an event that its origin has spooled.
#[test]
fn it_takes_no_event_the_id_before_it_is_published() {
    let scene = Scene::new();
    let event = scene.web.fire(&["refresh", "--host", LB, "--backend", "etcd://127.0.0.1:9"]).spooled();
    let (own, text) = scene.own_part(&[EVIL]);
    let squatted = text.replace(&own, &event);
    let sentence = scene.forbidden(scene.put(&[(part(&event), squatted)]));
    assert!(sentence.contains("whose id is one of its origin's"), "{sentence}");
    let answer = scene.web.trigger(&["outbox", "readdress", &event]);
    assert_eq!(answer.code, 0, "{answer:?}");
    // It publishes what waits in the outbox, too.
    scene.web.fire(&["marker", "--host", WEB]).committed();
    scene.web.wait_for(&event, LB, "done");
}

/// Proves C13.
#[test]
fn it_replays_nothing() {
    let scene = Scene::new();
    let (own, text) = scene.own_part(&[LB]);
    scene.evil.wait_for(&own, LB, "done");
    eventually("a delivery that has ended", || {
        scene.fleet.backend.get(&delivery(LB, &own)).map_or(Ok(()), Err)
    });
    // Its own event, which it may write: the target has run it, and does not again.
    scene.put(&[(part(&own), text), (delivery(LB, &own), TO_PART_0.to_owned())]);
    // Another node's.
    let event = scene.web.fire(&["refresh", "--host", LB]).committed();
    scene.web.wait_for(&event, LB, "done");
    scene.cannot_put(&delivery(LB, &event), TO_PART_0);
    scene.cannot_put(&delivery(EVIL, &event), TO_PART_0);
    let marker = scene.web.fire(&["marker", "--host", LB]).committed();
    scene.web.wait_for(&marker, LB, "done");
    eventually("a delivery that has ended", || {
        scene.fleet.backend.get(&delivery(LB, &own)).map_or(Ok(()), Err)
    });
    assert_eq!(scene.lb.runs().len(), 3, "its own, and those of two events of another node");
}

/// Proves C13: what one node stores is bounded, and others store on.
#[test]
fn it_does_not_fill_the_store() {
    let scene = Scene::new();
    let large = "x".repeat(2000);
    let (status, reply) = scene.put(&[(delivery(LB, &new_id("019356b0-7c4a-7000-8000-0", 0)), large)]);
    assert_eq!(status, 413, "{reply}");
    let (own, text) = scene.own_part(&[LB]);
    scene.fill_the_store(100, |n| (part(&new_id(&own, n)), text.replace(&own, &new_id(&own, n))));
    let event = scene.web.fire(&["refresh", "--host", LB]).committed();
    scene.web.wait_for(&event, LB, "done");
    // What it fires itself waits in its outbox.
    scene.evil.fire(&["attack", "--host", LB]).event();
}

/// Proves C13: requests for the output of runs, and answers to them, count as what the node stores.
#[test]
fn its_requests_and_answers_for_logs_do_not_fill_the_store() {
    let scene = Scene::new();
    let request = |certname: &str, reader: &str| format!("{PREFIX}/log-requests/{certname}/{reader}");
    let answer = |reader: &str, certname: &str| format!("{PREFIX}/log-answers/{reader}/{certname}");
    // It has its own places only, and each has a largest size.
    scene.cannot_put(&request(LB, WEB), "{}");
    scene.cannot_put(&answer(WEB, LB), "{}");
    let (status, reply) = scene.put(&[(request(LB, EVIL), "x".repeat(8 * 1024 + 1))]);
    assert_eq!(status, 413, "{reply}");
    let (status, reply) = scene.put(&[(answer(WEB, EVIL), "x".repeat(128 * 1024 + 1))]);
    assert_eq!(status, 413, "{reply}");

    let large = "x".repeat(128 * 1024);
    scene.fill_the_store(50, |n| (answer(&format!("ops{n}.example.com"), EVIL), large.clone()));
    // Others store on, events as well as requests for logs and the answers to them.
    let event = scene.web.fire(&["refresh", "--host", LB]).committed();
    scene.web.wait_for(&event, LB, "done");
    let asked = scene.web.trigger(&["log", LB, "--timeout", "20s"]);
    assert!(asked.stderr.contains("may not read the output of runs here"), "{asked:?}");
}

/// Proves C13: what the hub denies one node is counted, and fills no log.
#[test]
fn its_denials_do_not_fill_the_log() {
    const MANY: usize = 2000;
    const AT_ONCE: usize = 100;
    let scene = Scene::new();
    let known = scene.web.fire(&["refresh", "--host", LB]).committed();
    scene.web.wait_for(&known, LB, "done");
    let text = scene.fleet.backend.get(&part(&known)).expect("a part");
    let lines = || scene.fleet.backend.log().lines().filter(|line| line.contains(EVIL)).count();
    let (before, began) = (lines(), Instant::now());
    for first in (0..MANY).step_by(AT_ONCE) {
        let forged = |n| (part(&new_id(&known, n)), text.replace(&known, &new_id(&known, n)));
        let (status, reply) = scene.put(&(first..first + AT_ONCE).map(forged).collect::<Vec<_>>());
        assert!([200, 403].contains(&status), "{status} {reply}");
        let refused = reply.to_string().contains("may not");
        assert!(refused, "{reply}");
    }
    let seconds = usize::try_from(began.elapsed().as_secs()).expect("a short time") + 1;
    let written = lines() - before;
    // A line of the log and one of the audit for each that is reported.
    assert!((1..=2 * (20 + seconds)).contains(&written), "{written} lines in {seconds} s");
    // The next one is reported again, once it is the turn of one.
    eventually("a line about a denial", || {
        let before = lines();
        scene.cannot_put(&outcome(LB, &known), "{}");
        if lines() > before { Ok(()) } else { Err(before.to_string()) }
    });
}

/// Proves C13: the flood of one node is slowed down, and the events of others pass.
#[test]
fn its_flood_of_requests_keeps_no_other_node_waiting() {
    /// More than a node may send at once, so that the flood has met its limit.
    const MANY: usize = 600;
    let scene = Scene::new();
    let ssl = scene.evil.ssl();
    let body = json!({ "ranges": [{ "prefix": format!("{PREFIX}/nodes/") }] }).to_string();
    let flood = |n: usize| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--insecure", "--output", "/dev/null", "--write-out", "%{http_code}\n"]);
        curl.args(["--header", "Content-Type: application/json", "--data-raw", &body]);
        curl.arg("--cert").arg(ssl.certificate()).arg("--key").arg(ssl.key());
        curl.arg(format!("https://localhost:{}/v1/read?[1-1000000]", scene.fleet.backend.port()));
        Process::start(&mut curl, &scene.evil.path(&format!("flood-{n}")), "curl")
    };
    let mut floods: Vec<Process> = (0..4).map(flood).collect();
    eventually("a flood", || {
        let answers: usize = floods.iter().map(|flood| flood.log().lines().count()).sum();
        if answers > MANY { Ok(()) } else { Err(answers.to_string()) }
    });
    let event = scene.web.fire(&["refresh", "--host", LB]).committed();
    scene.web.wait_for(&event, LB, "done");
    assert!(
        floods.iter_mut().all(|flood| flood.exit().is_none()),
        "the flood has ended before the event was done"
    );
}

/// Proves C5 and C7: events without end are merged into runs at the target's own pace, and hold up no other's.
#[test]
fn its_flood_of_events_makes_few_runs() {
    let mut scene = Scene::new();
    scene.lb.kill_agent();
    scene.lb.set("runs_per_minute", "4").start_agent();
    scene.lb.hold();
    let first = scene.evil.fire(&["attack", "--host", LB]).committed();
    scene.evil.wait_for(&first, LB, "running");
    for _ in 0..20 {
        scene.evil.fire(&["attack", "--host", LB]).committed();
    }
    let event = scene.web.fire(&["refresh", "--host", LB]).committed();
    scene.web.wait_for(&event, LB, "pending");
    scene.lb.release();
    scene.web.wait_for(&event, LB, "done");
    assert_eq!(scene.lb.runs().len(), 2, "one for the first event, one for all that came during it");
}

/// The other tests are worth something only if the hub lets the attacker in.
#[test]
fn its_certificate_opens_the_hub_and_no_operators_rights() {
    let scene = Scene::new();
    let nodes = json!({ "ranges": [{ "prefix": format!("{PREFIX}/nodes/") }] });
    let (status, reply) = scene.ask("/v1/read", &nodes);
    assert_eq!(status, 200, "{reply}");
    scene.forbidden(scene.ask("/v1/delete", &json!({ "keys": [format!("{PREFIX}/nodes/{LB}")] })));
    scene.forbidden(scene.ask("/v1/delete", &json!({ "keys": [format!("{PREFIX}/certificates/{LB}/x")] })));
}

/// Proves C13.
#[test]
fn it_cancels_no_event_of_another_node() {
    let scene = Scene::new();
    scene.lb.hold();
    let first = scene.web.fire(&["refresh", "--host", LB]).committed();
    scene.web.wait_for(&first, LB, "running");
    let wanted = scene.web.fire(&["refresh", "--host", LB]).committed();
    for by in [WEB, EVIL, LB] {
        let forged = format!(r#"{{"v":1,"body":{{"part":0,"by":"{by}","at_unix_ms":1}}}}"#);
        scene.cannot_put(&format!("{}/cancelled", delivery(LB, &wanted)), &forged);
    }
    let refused = scene.evil.trigger(&["cancel", &wanted]);
    assert_ne!(refused.code, 0, "{refused:?}");
    scene.lb.release();
    scene.web.wait_for(&wanted, LB, "done");
}
