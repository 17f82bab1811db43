//! Events that the backend does not have.

use std::path::Path;

use snapbox::str;

use crate::{state, trigger};

#[test]
fn an_unreachable_backend_spools_loudly_where_no_agent_runs() {
    let state = state();
    let fire = |name: &str| {
        trigger(state.path()).args(["fire", name, "--host", "lb01", "--backend", "hub+http://127.0.0.1:9"])
    };
    fire("first").assert().code(0).stdout_eq(str![[r#"
Spooled [..] at 1 node. Follow it: trigger status [..]

"#]]).stderr_eq(str![[r#"
warning: backend [..]127.0.0.1:9[..]; the event is safe in this node's outbox, but NO AGENT IS RUNNING HERE to deliver it: it waits for the next fire that reaches the backend, or for 'trigger agent'

"#]]);
    // Puppet's fires pause after a failure.
    fire("second").env("TRIGGER_FIRED_BY", "puppet").assert().code(0).stderr_eq(str![[r#"
warning: backend hub+http://127.0.0.1:9 did not answer a moment ago (it is asked again after 30 s); the event is safe[..]

"#]]);
    trigger(state.path()).args(["queue"]).assert().code(0).stdout_eq(str![[r#"

Spooled: the backend has not committed these yet
EVENT                                 TRIGGER  TARGETS  BACKEND
[..]  first    1        hub+http://127.0.0.1:9
[..]  second   1        hub+http://127.0.0.1:9

"#]]);
}

/// Fires at an unreachable backend and returns the event's id.
fn spool(state: &Path, arguments: &[&str]) -> String {
    let fire = trigger(state).args(["fire", "x", "--backend", "hub+http://127.0.0.1:9", "--output", "json"]);
    let said = fire.args(arguments).assert().code(0).get_output().stdout.clone();
    let document: serde_json::Value = serde_json::from_slice(&said).unwrap();
    document["event_id"].as_str().unwrap().to_owned()
}

fn status(state: &Path, event: &str, format: &str) -> snapbox::cmd::OutputAssert {
    trigger(state)
        .args(["status", event, "--backend", "hub+http://127.0.0.1:9", "--output", format])
        .assert()
        .code(0)
}

#[test]
fn an_event_for_a_group_is_known_where_it_is_spooled() {
    let state = state();
    let event = spool(state.path(), &["--group", "lb", "--group", "web"]);
    status(state.path(), &event, "text").stderr_eq(str![""]).stdout_eq(str![[r#"
Event    [..]
Trigger  x
Fired    [..]Z on web01.example.com
State    spooled, in this node's outbox: the backend has not committed it yet
Groups   lb, web: spooled

"#]]);
    status(state.path(), &event, "json").stdout_eq(str![[r#"
{"event_id":"[..]","trigger":"x","origin":"web01.example.com","fired_at":"[..]","resource":null,"expires_in_seconds":86400,"tags":[],"noop":false,"groups":["lb","web"],"targets":[],"state":"spooled","reason":"in this node's outbox: the backend has not committed it yet","suppressed_groups":[],"warnings":[]}

"#]]);
}

#[test]
fn a_quarantined_event_shows_its_reason_and_its_suppressed_targets() {
    let state = state();
    let event = spool(state.path(), &["--group", "lb", "--host", "a", "--host", "b"]);
    let outbox = state.path().join("outbox");
    let file = outbox.join(format!("{event}.json"));
    // As a run would have fired it.
    let text = std::fs::read_to_string(&file).unwrap();
    let suppressed = r#""suppressed":{"b":"loop: seen"},"suppressed_groups":{"web":"too far"}"#;
    let text = text.trim_end().strip_suffix("}}").map(|text| format!("{text},{suppressed}}}}}")).unwrap();
    let aside = outbox.join("quarantined").join(format!("{event}.json"));
    std::fs::write(&aside, text).unwrap();
    std::fs::remove_file(file).unwrap();
    let reason = aside.with_extension("json.reason");
    std::fs::write(&reason, "the backend refuses it\n").unwrap();
    status(state.path(), &event, "text").stderr_eq(str![""]).stdout_eq(str![[r#"
Event    [..]
Trigger  x
Fired    [..]Z on web01.example.com
State    refused, quarantined on this node and never published: the backend refuses it
Groups   lb: refused
         web: suppressed, too far
Targets  1 refused, 1 suppressed

CERTNAME  STATE       OUTCOME  STARTED  TOOK  REASON
a         refused
b         suppressed                          loop: seen

"#]]);
    std::fs::write(&reason, "it expired before the backend could be reached\n").unwrap();
    status(state.path(), &event, "json").stdout_eq(str![[r#"
{"event_id":"[..]","trigger":"x","origin":"web01.example.com","fired_at":"[..]","resource":null,"expires_in_seconds":86400,"tags":[],"noop":false,"groups":["lb"],"targets":[{"certname":"a","state":"expired","outcome":null,"run_id":null,"started_at":null,"finished_at":null,"noop":null,"reason":"quarantined on this node and never published: it expired before the backend could be reached"},{"certname":"b","state":"suppressed","outcome":null,"run_id":null,"started_at":null,"finished_at":null,"noop":null,"reason":"loop: seen"}],"state":"expired","reason":"quarantined on this node and never published: it expired before the backend could be reached","suppressed_groups":[{"group":"web","reason":"too far"}],"warnings":[]}

"#]]);
}

/// Proves C1.
#[test]
fn without_an_outbox_and_without_a_backend_fire_fails() {
    let state = state();
    // A file in place of the state directory, so that not even root can spool.
    let file = state.path().join("file");
    std::fs::write(&file, "").unwrap();
    trigger(&file)
        .args(["fire", "x", "--host", "lb01", "--backend", "hub+http://127.0.0.1:9", "--output", "json"])
        .assert()
        .code(4)
        .stdout_eq(str![[r#"
{"error":"backend [..] nothing could be spooled[..]","warnings":["nothing can be spooled here: [..]"]}

"#]]);
}

#[test]
fn the_queue_for_programs_names_every_field() {
    let state = state();
    trigger(state.path()).args(["queue", "--output", "json"]).assert().code(0).stdout_eq(str![[r#"
{"agent_running":false,"certname":null,"backend":null,"disconnected":null,"blocked":null,"running":null,"waiting":[],"held":[],"unreadable":[],"spooled":[],"quarantined":[],"warnings":[]}

"#]]);
}
