//! A node that was taken over, at a real etcd with TLS and without roles: it may write every key, as a compromised etcd
//! itself could (C13). It hides and delays. It makes no node run what was not fired, and no false outcome is shown as true.

#![allow(clippy::expect_used, reason = "a test fails where its scenery cannot be built")]

use std::time::Duration;

use trigger_e2e::{Authority, BackendKind, Crl, Fleet, Node, Ssl, eventually, never_for};

const PREFIX: &str = "/puppet_trigger/events";
const EVIL: &str = "evil.example.com";
const LB: &str = "lb01.example.com";
const DB: &str = "db01.example.com";
const WEB: &str = "web01.example.com";
const TO_PART_0: &str = r#"{"v":1,"body":{"part":0}}"#;

/// An etcd with nodes that require signatures, and the certificate of one that was taken over.
struct Scene {
    fleet: Fleet,
    lb: Node,
    web: Node,
    evil: Node,
}

impl Scene {
    fn new() -> Self {
        let fleet = Fleet::on(BackendKind::Etcd);
        let (lb, web, evil) = (member(&fleet, LB), member(&fleet, WEB), member(&fleet, EVIL));
        Self { fleet, lb, web, evil }
    }

    fn etcdctl(&self, arguments: &[&str]) -> String {
        let said = self.fleet.backend.etcdctl_as(&self.evil.ssl(), arguments);
        said.unwrap_or_else(|error| panic!("etcdctl {arguments:?}: {error}"))
    }

    fn put(&self, key: &str, value: &str) {
        self.etcdctl(&["put", "--", key, value]);
    }

    fn delete(&self, key: &str) {
        self.etcdctl(&["del", "--", key]);
    }

    fn get(&self, key: &str) -> String {
        let value = self.etcdctl(&["get", "--print-value-only", "--", key]);
        value.trim_end_matches('\n').to_owned()
    }

    /// Waits until there is a value.
    fn appears(&self, key: &str) -> String {
        eventually(&format!("{key} in the backend"), || match self.get(key) {
            text if text.is_empty() => Err(text),
            text => Ok(text),
        })
    }

    /// Fires an event of another node, which ends.
    fn genuine(&self, hosts: &[&str]) -> String {
        let named: Vec<&str> = hosts.iter().flat_map(|host| ["--host", host]).collect();
        let event = self.web.fire(&[&["refresh"], &named[..]].concat()).committed();
        hosts.iter().for_each(|host| drop(self.web.wait_for(&event, host, "done")));
        event
    }
}

fn member(fleet: &Fleet, certname: &str) -> Node {
    let mut node = fleet.node(certname);
    node.set("require_signature", "true").start_agent();
    node
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

fn history(certname: &str) -> String {
    format!("{PREFIX}/run-history/{certname}")
}

/// An id like that of an event, of which nothing is stored yet.
fn new_id(like: &str, n: usize) -> String {
    // In the form of earlier versions, which anyone could make.
    format!("{}7{}{n:012x}", &like[..14], &like[15..24])
}

/// A stored value without its signature.
fn unsigned(text: &str) -> String {
    format!("{}}}", text.split_once(",\"sig\"").expect("a signature").0)
}

/// Proves C13.
#[test]
fn it_forges_moves_and_alters_no_event() {
    let mut scene = Scene::new();
    let mut db = scene.fleet.node(DB);
    db.set("groups", "['db']").start_agent();
    let original = scene.genuine(&[LB]);
    let text = scene.get(&part(&original));
    assert!(text.contains("\"cert\""), "signed with a certificate: {text}");

    // Moved to a node that the event does not name; and to a group of that node, where the event names no group.
    scene.put(&delivery(DB, &original), TO_PART_0);
    let ungrouped = scene.genuine(&[LB]);
    scene.put(&format!("{PREFIX}/group-deliveries/db/{ungrouped}"), TO_PART_0);
    // Copied, altered, and in the name of another node with the attacker's own signature and certificate.
    let plant = |event: &str, text: &str| {
        scene.put(&part(event), text);
        scene.put(&delivery(LB, event), TO_PART_0);
    };
    let own = scene.evil.fire(&["attack", "--host", EVIL]).committed();
    scene.evil.wait_for(&own, EVIL, "done");
    let signed_by_itself = scene.get(&part(&own));
    let forgeries = [
        text.clone(),
        text.replace(&original, &new_id(&original, 1)),
        text.replace(&original, &new_id(&original, 2)).replace("refresh", "destroy"),
        signed_by_itself
            .replace(&own, &new_id(&original, 3))
            .replace(&format!("\"{EVIL}\""), &format!("\"{WEB}\"")),
        signed_by_itself.replace(&own, &new_id(&original, 4)).replace(EVIL, WEB),
        unsigned(&text.replace(&original, &new_id(&original, 5))),
    ];
    for (n, forgery) in forgeries.iter().enumerate() {
        plant(&new_id(&original, n), forgery);
    }
    // An altered event in the place of the original, which its target has not seen yet.
    scene.lb.kill_agent();
    let waiting = scene.web.fire(&["refresh", "--host", LB]).committed();
    let altered = scene.get(&part(&waiting)).replace("refresh", "destroy");
    scene.put(&part(&waiting), &altered);
    scene.lb.start_agent();

    let marker = scene.web.fire(&["marker", "--host", LB, "--host", DB]).committed();
    scene.web.wait_for(&marker, LB, "done");
    scene.web.wait_for(&marker, DB, "done");
    assert_eq!((scene.lb.runs().len(), db.runs().len()), (3, 1), "the originals and the marker");
    for event in [original, ungrouped] {
        let moved = scene.web.wait_for(&event, DB, "refused");
        let why = moved["reason"].as_str().unwrap_or_default();
        assert!(why.contains("does not name this target"), "{moved}");
    }
}

/// Proves C1 and C13: it knows the id of an event that its origin has spooled, and nothing stops it at an etcd from
/// writing there. The event runs all the same once it is published.
#[test]
fn what_it_stores_under_the_id_of_an_event_before_it_is_published_loses_no_event() {
    let mut scene = Scene::new();
    let event = scene.web.fire(&["refresh", "--host", LB, "--backend", "etcd://127.0.0.1:9"]).spooled();
    let own = scene.evil.fire(&["attack", "--host", EVIL]).committed();
    scene.evil.wait_for(&own, EVIL, "done");
    scene.put(&part(&event), &scene.get(&part(&own)).replace(&own, &event));
    scene.put(&delivery(LB, &event), TO_PART_0);
    eventually("a forgery that is refused", || match scene.get(&outcome(LB, &event)).as_str() {
        text if text.contains("refused") => Ok(()),
        text => Err(text.to_owned()),
    });
    // Where the agent has the event in its hands at this moment, the command says so.
    eventually("the event has another address", || {
        let answer = scene.web.trigger(&["outbox", "readdress", &event]);
        if answer.code == 0 { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    scene.web.kill_agent();
    scene.web.start_agent();
    scene.web.wait_for(&event, LB, "done");
    assert_eq!(scene.lb.runs().len(), 1);
}

/// Proves C13.
#[test]
fn it_stores_no_certificate_by_which_it_is_another_node() {
    let scene = Scene::new();
    let own = scene.evil.fire(&["attack", "--host", EVIL]).committed();
    scene.evil.wait_for(&own, EVIL, "done");
    let text = scene.get(&part(&own));
    // Its own certificate, under the name of another node.
    let listed =
        scene.etcdctl(&["get", "--prefix", "--keys-only", "--", &format!("{PREFIX}/certificates/{EVIL}/")]);
    let certificate = listed.trim();
    scene.put(&certificate.replace(EVIL, WEB), &scene.get(certificate));
    let event = new_id(&own, 1);
    scene.put(&part(&event), &text.replace(&own, &event).replace(EVIL, WEB));
    scene.put(&delivery(LB, &event), TO_PART_0);
    // The genuine certificates, away or spoilt: what they have signed waits, and runs once they are back.
    scene.genuine(&[LB]);
    assert_eq!(scene.lb.runs().len(), 1);
}

/// Proves C13.
#[test]
fn it_writes_no_outcome_that_is_shown_as_true() {
    let mut scene = Scene::new();
    let done = scene.genuine(&[LB]);
    scene.lb.kill_agent();
    let event = scene.web.fire(&["second", "--host", LB]).committed();
    let own = scene.evil.fire(&["attack", "--host", EVIL]).committed();
    scene.evil.wait_for(&own, EVIL, "done");
    let key = outcome(LB, &event);
    for forged in [
        scene.get(&outcome(LB, &done)),
        scene.get(&outcome(EVIL, &own)),
        scene.get(&outcome(EVIL, &own)).replace(EVIL, LB),
        unsigned(&scene.get(&outcome(LB, &done))),
    ] {
        scene.put(&key, &forged);
        let status = scene.web.status(&event).expect("a status");
        assert_eq!(status["targets"][0]["state"], "pending", "{forged}: {status}");
        assert!(status["warnings"].to_string().contains(&key), "{forged}: {status}");
        assert!(status["targets"][0]["unverified"].is_string(), "{forged}: {status}");
    }
    scene.lb.start_agent();
    let ended = scene.web.wait_for(&event, LB, "done");
    assert!(ended["unverified"].is_null(), "{ended}");
    assert_eq!(scene.lb.runs().len(), 2);
}

/// Proves C13.
#[test]
fn what_it_puts_back_runs_nothing_also_after_a_restart() {
    let mut scene = Scene::new();
    let event = scene.genuine(&[LB]);
    let (end, waits) = (outcome(LB, &event), delivery(LB, &event));
    let is_gone = || {
        eventually("a delivery that has ended", || match scene.get(&waits).as_str() {
            "" => Ok(()),
            text => Err(text.to_owned()),
        })
    };
    is_gone();
    scene.delete(&end);
    scene.put(&waits, TO_PART_0);
    is_gone();
    scene.lb.kill_agent();
    scene.delete(&end);
    scene.put(&waits, TO_PART_0);
    scene.lb.start_agent();
    scene.web.wait_for(&event, LB, "done");
    assert_eq!(scene.lb.runs().len(), 1);
}

/// Nothing stops it: a signature does not say that it is the newest. It is seen until the node's next run, and makes no
/// node run.
#[test]
fn an_older_run_history_that_it_puts_back_runs_nothing_and_lasts_until_the_next_run() {
    let scene = Scene::new();
    let first = scene.genuine(&[LB]);
    let older = eventually("the first run in the history", || match scene.get(&history(LB)) {
        text if text.contains(&first) => Ok(text),
        text => Err(text),
    });
    let second = scene.genuine(&[LB]);
    eventually("the second run in the history", || match scene.get(&history(LB)) {
        text if text.contains(&second) => Ok(()),
        text => Err(text),
    });
    scene.put(&history(LB), &older);
    let why = scene.web.trigger(&["why", &first, "--output", "json"]);
    assert_eq!(why.code, 0, "an older history of the node counts as its own: {why:?}");
    assert_eq!(scene.lb.runs().len(), 2);
    let third = scene.genuine(&[LB]);
    eventually("the node's own history again", || match scene.get(&history(LB)) {
        text if text.contains(&second) && text.contains(&third) => Ok(()),
        text => Err(text),
    });
    assert_eq!(scene.lb.runs().len(), 3);
}

/// Nothing stops it: a backend can always be silent. The origin sees that the event does not end.
#[test]
fn a_delivery_that_it_deletes_is_seen_at_the_origin() {
    let mut scene = Scene::new();
    scene.lb.kill_agent();
    let event = scene.web.fire(&["refresh", "--host", LB]).committed();
    scene.delete(&delivery(LB, &event));
    scene.lb.start_agent();
    let marker = scene.web.fire(&["marker", "--host", LB]).committed();
    scene.web.wait_for(&marker, LB, "done");
    assert_eq!(scene.lb.runs().len(), 1);
    let pending = scene.web.delivery(&event, LB);
    assert_eq!(pending["state"], "pending", "{pending}");
    let latest = scene.web.trigger(&["status"]);
    assert!(latest.stdout.contains("pending"), "{latest:?}");
}

/// A registration is not signed: what is spoilt delays, and is mended by the agent itself.
#[test]
fn a_registration_that_it_spoils_is_written_again_and_loses_no_event() {
    let scene = Scene::new();
    let registration = format!("{PREFIX}/nodes/{LB}");
    for spoil in ["", "garbage", r#"{"v":99,"body":{}}"#] {
        if spoil.is_empty() {
            scene.delete(&registration);
        } else {
            scene.put(&registration, spoil);
        }
        let event = scene.web.fire(&["refresh", "--host", LB]).committed();
        if spoil.contains("99") {
            // A newer version that holds the certname: its lease is waited for.
            assert_ne!(scene.web.delivery(&event, LB)["state"], "refused");
            scene.delete(&registration);
        }
        scene.web.wait_for(&event, LB, "done");
    }
    assert_eq!(scene.lb.runs().len(), 3);
}

/// Proves C13: output is sealed to the process that asked, and shown only if its node has signed it for that request.
#[test]
fn it_reads_no_output_of_a_run_and_forges_none() {
    const OPS: &str = "ops01.example.com";
    const SECRET: &str = "the password is hunter2";
    let mut scene = Scene::new();
    let ops = member(&scene.fleet, OPS);
    let command = scene.lb.script("tell.sh", &format!("#!/bin/sh\necho {SECRET}\n"));
    scene.lb.set("run_cmd", &format!("'{}'", command.display()));
    scene.lb.set("log", &format!("{{ readers = ['{OPS}'] }}"));
    scene.lb.kill_agent();
    scene.lb.start_agent();
    scene.genuine(&[LB]);
    let request = |reader: &str| format!("{PREFIX}/log-requests/{LB}/{reader}");
    let answer = |reader: &str| format!("{PREFIX}/log-answers/{reader}/{LB}");
    let refused = scene.evil.trigger(&["log", LB]);
    assert!(
        refused.code == 1 && refused.stderr.contains("may not read the output of runs here"),
        "{refused:?}"
    );

    // The request of a reader, made while the node is away.
    scene.lb.kill_agent();
    let (genuine, read) = std::thread::scope(|threads| {
        let reading = threads.spawn(|| ops.trigger(&["log", LB, "--timeout", "60s"]));
        let genuine = scene.appears(&request(OPS));
        // Under its own name, with its own name in it, and altered to its own key, none is what a reader has signed.
        scene.put(&request(EVIL), &genuine);
        scene.lb.start_agent();
        (genuine, reading.join().expect("an answer"))
    });
    assert!(read.code == 0 && read.stdout.contains(SECRET), "{read:?}");
    assert_eq!(scene.get(&answer(EVIL)), "");
    scene.lb.wait_for_log("a request for the output of a run does not count");
    let altered = genuine.replace("\"key\":\"", "\"key\":\"AAAA");
    assert_ne!(altered, genuine);
    scene.put(&request(OPS), &altered);
    // The genuine one again: it is answered, to a key that is gone.
    scene.delete(&request(OPS));
    scene.put(&request(OPS), &genuine);
    let sealed = scene.appears(&answer(OPS));
    assert!(!sealed.contains("password") && !sealed.contains("hunter2"), "{sealed}");

    // While the node is away, an answer to an earlier request, one without a signature, and one of its own.
    scene.lb.kill_agent();
    let read = std::thread::scope(|threads| {
        let reading = threads.spawn(|| ops.trigger(&["log", LB, "--timeout", "6s"]));
        let asked = eventually("another request", || match scene.get(&request(OPS)) {
            text if text.is_empty() || text == genuine => Err(text),
            text => Ok(text),
        });
        let key = |text: &str| {
            let (_, rest) = text.split_once("\"key\":\"").expect("a key");
            rest.split_once('"').expect("its end").0.to_owned()
        };
        scene.put(&answer(OPS), &sealed);
        let to_this = sealed.replace(&key(&genuine), &key(&asked));
        assert_ne!(to_this, sealed);
        scene.put(&answer(OPS), &to_this);
        scene.put(&answer(OPS), &unsigned(&to_this));
        reading.join().expect("an answer")
    });
    assert_eq!(read.code, 1, "{read:?}");
    assert!(read.stderr.contains("has not answered within 6s"), "{read:?}");
    assert!(
        read.stderr.contains(&format!("what is stored under {} does not count", answer(OPS))),
        "{read:?}"
    );
    assert_eq!(read.stdout, "", "{read:?}");
}

/// etcd reads the revocation list that it is given for each new connection, and never closes an open one. So what a
/// revoked node can still write there does not count either.
#[test]
fn a_node_that_is_revoked_cannot_connect_again_and_what_it_has_signed_is_refused() {
    let mut fleet = Fleet::on(BackendKind::Etcd);
    let list = fleet.backend.ssl().crl().display().to_string();
    fleet.backend.restart_with(&["--client-crl-file".to_owned(), list]);
    let (lb, evil) = (member(&fleet, LB), member(&fleet, EVIL));
    let ssl: Ssl = evil.ssl();
    let may_connect = || fleet.backend.etcdctl_as(&ssl, &["get", "/"]);
    assert!(may_connect().is_ok(), "{:?}", may_connect());
    let lists = Authority::puppet().crl(&Crl { revoked: vec![&ssl], number: 2, ..Crl::default() });
    fleet.backend.ssl().set_crl(&lists);
    lb.ssl().set_crl(&lists);
    lb.wait_for_log("this node's certificates were read again");
    assert!(may_connect().is_err());
    // Over the connection that its agent still has.
    let event = evil.fire(&["attack", "--host", LB]).event();
    let refused = lb.wait_for(&event, LB, "refused");
    assert!(refused["reason"].as_str().is_some_and(|why| why.contains("revoked")), "{refused}");
    never_for(Duration::from_millis(200), "a run for a revoked node", || {
        (!lb.runs().is_empty()).then(|| format!("{:?}", lb.runs()))
    });
}

/// Proves C13: it asks for the end of another node's event, forged, in its own name, and with what it has copied.
#[test]
fn it_cancels_no_event_of_another_node() {
    let scene = Scene::new();
    scene.lb.hold();
    let first = scene.web.fire(&["refresh", "--host", LB]).committed();
    scene.web.wait_for(&first, LB, "running");
    let [genuine, wanted] = [(); 2].map(|()| scene.web.fire(&["refresh", "--host", LB]).committed());
    let cancelled = scene.web.trigger(&["cancel", &genuine]);
    assert_eq!(cancelled.code, 0, "{cancelled:?}");
    scene.web.wait_for(&genuine, LB, "cancelled");

    // Signed by the origin, for another event of its own: nothing is left of it but what the attacker has copied before.
    let other = scene.web.fire(&["refresh", "--host", DB]).committed();
    assert_eq!(scene.web.trigger(&["cancel", &other, "--timeout", "100ms"]).code, 0);
    let copied = scene.get(&cancellation(DB, &other));
    assert!(copied.contains("\"cert\""), "{copied}");
    let own = scene.evil.fire(&["attack", "--host", LB]).committed();
    assert_eq!(scene.evil.trigger(&["cancel", &own, "--timeout", "100ms"]).code, 0);
    let forged = format!(r#"{{"v":1,"body":{{"part":0,"by":"{WEB}","at_unix_ms":1}}}}"#);
    let attempts = [copied.clone(), forged, unsigned(&copied), copied.replace(&other, &wanted)];
    for attempt in &attempts {
        scene.put(&cancellation(LB, &wanted), attempt);
    }
    // With its own name and signature, past the objections of its own program.
    let refused = scene.evil.trigger(&["cancel", &wanted, "--timeout", "1s"]);
    assert_eq!(refused.code, 0, "{refused:?}");
    scene.lb.wait_for_log("a cancellation does not count");
    scene.lb.release();
    scene.web.wait_for(&wanted, LB, "done");

    // Put back, it ends what it was for alone, which has ended.
    scene.put(&cancellation(LB, &wanted), &copied);
    let marker = scene.web.fire(&["marker", "--host", LB]).committed();
    scene.web.wait_for(&marker, LB, "done");
}

fn cancellation(certname: &str, event: &str) -> String {
    format!("{}/cancelled", delivery(certname, event))
}

/// Proves C13: it holds a node by no forgery, no copy and no order of the past, and releases none.
#[test]
fn it_neither_holds_nor_releases_a_node() {
    let scene = Scene::new();
    let order = |words: &[&str]| {
        let done = scene.lb.trigger(&[words, &["--output", "json"]].concat());
        assert_eq!(done.code, 0, "{done:?}");
        scene.get(&held(LB))
    };
    let for_an_hour = ["hold", LB, "--for", "1h", "--reason", "disks"];
    let old_hold = order(&for_an_hour);
    assert!(old_hold.contains("\"cert\""), "signed with a certificate: {old_hold}");
    let old_release = order(&["release", LB]);

    // Put back, copied to another node, altered, unsigned, and in its own name.
    let number = old_hold.split("\"number\":").nth(1).and_then(|rest| rest.split(',').next());
    let number = number.expect("a number");
    let newer = old_hold.replace(number, &format!("9{number}"));
    scene.put(&held(WEB), &old_hold);
    for forgery in [&old_hold, &newer, &unsigned(&newer)] {
        scene.put(&held(LB), forgery);
        let marker = scene.web.fire(&["marker", "--host", LB, "--host", WEB]).committed();
        scene.web.wait_for(&marker, LB, "done");
        scene.web.wait_for(&marker, WEB, "done");
    }
    scene.lb.wait_for_log("an old order that was put back");
    let own = scene.evil.trigger(&["hold", LB, "--for", "1h", "--reason", "evil"]);
    assert_eq!(own.code, 1, "{own:?}");
    assert!(own.stdout.contains("refused"), "{own:?}");

    // A hold lasts though its order is gone, or an old release is in its place.
    order(&for_an_hour);
    scene.delete(&held(LB));
    scene.put(&held(LB), &old_release);
    let own = scene.evil.trigger(&["release", LB]);
    assert_eq!(own.code, 1, "{own:?}");
    let waiting = scene.web.fire(&["refresh", "--host", LB]).committed();
    scene.web.wait_for(&waiting, LB, "held");
    let runs = scene.lb.runs().len();
    never_for(Duration::from_secs(3), "a run of a held node", || {
        let all = scene.lb.runs();
        (all.len() > runs).then(|| format!("{all:?}"))
    });
    // The node takes the next order that counts.
    order(&["release", LB]);
    scene.web.wait_for(&waiting, LB, "done");
}

fn held(certname: &str) -> String {
    format!("{PREFIX}/holds/{certname}")
}
