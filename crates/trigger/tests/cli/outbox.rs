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
    fire("second").args(["--resource", "/Stage[main]/Main/Trigger[second]"]).assert().code(0).stderr_eq(str![[r#"
warning: backend hub+http://127.0.0.1:9 did not answer a moment ago (it is asked again after 30 s); the event is safe[..]

"#]]);
    let queue = trigger(state.path()).args(["queue", "--backend", "hub+http://127.0.0.1:9"]);
    queue.assert().code(0).stdout_eq(str![[r#"

Spooled: the backend has not committed these yet
EVENT [..] FIRED [..] TRIGGER  TARGETS  BACKEND                 REASON
[..]  first    1        hub+http://127.0.0.1:9  backend hub+http://127.0.0.1:9 is unreachable: Connection refused (os error 111)
[..]  second   1        hub+http://127.0.0.1:9  it waits for its turn

"#]]);
}

#[test]
fn a_wait_ends_in_time_whatever_the_backends_do() {
    let state = state();
    // Servers that accept connections and never answer.
    let silent: Vec<std::net::TcpListener> =
        (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<String> =
        silent.iter().map(|server| server.local_addr().unwrap().to_string()).collect();
    let began = std::time::Instant::now();
    let fire = ["fire", "x", "--host", "lb01", "--wait", "--timeout", "1s", "--backend"];
    let url = format!("etcd://{}", addresses.join(","));
    trigger(state.path()).args(fire).arg(url).assert().code(1);
    // Far from the limits of three servers, and far from what a busy machine adds.
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
    drop(silent);
}

/// A `trigger` of a node that has no configuration yet, without a network: a hub may run on the default port.
fn unconfigured(state: &Path) -> snapbox::cmd::Command {
    snapbox::cmd::Command::new("/usr/bin/unshare")
        .args(["--net", "--map-root-user", "--"])
        .arg(snapbox::cmd::cargo_bin!("trigger"))
        .env_clear()
        // Without the machine's own Puppet, which would be asked for certificates.
        .env("PATH", "/nowhere")
        .env("TRIGGER_CONFIG", "/dev/null")
        .env("TRIGGER_STATE_DIR", state)
        .env("TRIGGER_CERTNAME", "web01.example.com")
}

/// Proves C1. The default backend is tried, and never kept as if it were the node's own.
#[test]
fn without_a_configuration_an_event_waits_for_the_backend_that_the_node_gets() {
    let state = state();
    unconfigured(state.path()).args(["fire", "first", "--host", "lb01"]).assert().code(0).stderr_eq(str![[r#"
warning: no backend is configured on this node, and the default did not take the event (backend hub+http://127.0.0.1:8145 [..]): it is kept in this node's outbox for the backend that the node gets configured, and published by 'trigger agent' or the next fire then

"#]]);
    let named = ["fire", "second", "--host", "lb01", "--backend", "hub"];
    unconfigured(state.path()).args(named).assert().code(0).stderr_eq(str![[r#"
warning: no URL is configured for the backend 'hub' on this node, and the default did not take the event (backend hub+http://127.0.0.1:8145 [..]): it is kept in this node's outbox for the backend that the node gets configured, and published by 'trigger agent' or the next fire then

"#]]);
    unconfigured(state.path()).args(["outbox", "list"]).assert().code(0).stderr_eq(str![""]).stdout_eq(str![
        [r#"

Spooled: the backend has not committed these yet
EVENT [..] FIRED [..] TRIGGER  TARGETS  BACKEND                              REASON
[..]  first    1        (the one this node gets configured)  backend hub+http://127.0.0.1:8145 is unreachable: [..]
[..]  second   1        (the hub this node gets configured)  backend hub+http://127.0.0.1:8145 is unreachable: [..]

"#]
    ]);
    unconfigured(state.path()).args(["outbox", "readdress", "--all"]).assert().code(3).stderr_eq(str![[r#"
error: no backend is configured on this node: give the URL with --backend, or configure one

"#]]);
    // The node gets a configuration; its next fire delivers what waits.
    trigger(state.path()).args(["fire", "third", "--host", "lb01"]).assert().code(0);
    trigger(state.path()).args(["outbox", "list", "--output", "json"]).assert().code(0).stdout_eq(str![[r#"
{"spooled":[{"event_id":"[..]","trigger":"second","backend":"hub","fired_at":"[..]","is_elsewhere":true,"targets":1,"reason":"backend hub+http://127.0.0.1:8145 is unreachable: [..]"}],"quarantined":[],"warnings":[]}

"#]]);
}

#[test]
fn an_event_for_a_backend_that_is_not_this_nodes_is_visible_and_gets_another_address() {
    let state = state();
    let event = spool(state.path(), &["--host", "lb01"]);
    let etcd = |arguments: &[&str]| {
        trigger(state.path()).env("TRIGGER_BACKEND", "etcd://127.0.0.1:9").args(arguments)
    };
    for list in [&["queue"][..], &["outbox", "list"]] {
        etcd(list).assert().code(0).stdout_eq(str![[r#"

Spooled: the backend has not committed these yet
EVENT [..] FIRED [..] TRIGGER  TARGETS  BACKEND                                   REASON
[..]  x        1        hub+http://127.0.0.1:9 (not this node's)  backend hub+http://127.0.0.1:9 is unreachable: Connection refused (os error 111)
To send events to this node's own backend: trigger outbox readdress EVENT… (or --all of those that are for a backend which is not this node's)

"#]]);
    }
    trigger(state.path()).args(["outbox", "readdress", "--all"]).assert().code(2).stderr_eq(str![[r#"
error: backend 'dummy:' delivers nothing: to remove an event, use 'trigger outbox drop'

"#]]);
    etcd(&["outbox", "readdress", "--all"]).assert().code(0).stdout_eq(str![[r#"
Readdressed 1 event to etcd://127.0.0.1:9. This node's agent, or its next fire, publishes them.

"#]]);
    etcd(&["outbox", "list", "--output", "json"]).assert().code(0).stdout_eq(str![[r#"
{"spooled":[{"event_id":"[..]","trigger":"x","backend":"etcd://127.0.0.1:9","fired_at":"[..]","is_elsewhere":false,"targets":1,"reason":"it waits for its turn"}],"quarantined":[],"warnings":[]}

"#]]);
    etcd(&["outbox", "readdress", "--all", "--output", "json"]).assert().code(0).stdout_eq(str![[r#"
{"action":"readdressed","events":[],"backend":"etcd://127.0.0.1:9","warnings":[]}

"#]]);
    let absent = "01935000-0000-7000-8000-000000000001";
    etcd(&["outbox", "drop", &event, absent]).assert().code(1).stderr_eq(str![[r#"
error: event 01935000-0000-7000-8000-000000000001 is not in this node's outbox; dropped: [..]

"#]]);
    etcd(&["outbox", "list"]).assert().code(0).stdout_eq(str![[r#"
The outbox is empty.

"#]]);
}

/// What a resource with a provider does in a run of an agent whose hub is not the default one.
#[test]
fn a_bare_kind_is_looked_up_in_the_environment_too() {
    let state = state();
    let command = trigger(state.path()).env("TRIGGER_BACKEND", "hub+http://127.0.0.1:9");
    command.args(["fire", "x", "--host", "lb01", "--backend", "hub"]).assert().code(0).stderr_eq(str![[r#"
warning: backend hub+http://127.0.0.1:9 [..]

"#]]);
    trigger(state.path()).args(["outbox", "list", "--output", "json"]).assert().stdout_eq(str![[r#"
{"spooled":[{"event_id":"[..]","trigger":"x","backend":"hub+http://127.0.0.1:9","fired_at":"[..]","is_elsewhere":true,"targets":1,"reason":"backend hub+http://127.0.0.1:9 is unreachable: Connection refused (os error 111)"}],"quarantined":[],"warnings":[]}

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
{"event_id":"[..]","trigger":"x","origin":"web01.example.com","fired_at":"[..]","resource":null,"retry_of":null,"expires_in_seconds":86400,"tags":[],"noop":false,"environment":null,"groups":["lb","web"],"targets":[],"state":"spooled","reason":"in this node's outbox: the backend has not committed it yet","suppressed_groups":[],"warnings":[]}

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
{"event_id":"[..]","trigger":"x","origin":"web01.example.com","fired_at":"[..]","resource":null,"retry_of":null,"expires_in_seconds":86400,"tags":[],"noop":false,"environment":null,"groups":["lb"],"targets":[{"certname":"a","state":"expired","outcome":null,"run_id":null,"started_at":null,"finished_at":null,"noop":null,"noop_pending":null,"really_changed":null,"reason":"quarantined on this node and never published: it expired before the backend could be reached","unverified":null,"cancellation_requested_by":null},{"certname":"b","state":"suppressed","outcome":null,"run_id":null,"started_at":null,"finished_at":null,"noop":null,"noop_pending":null,"really_changed":null,"reason":"loop: seen","unverified":null,"cancellation_requested_by":null}],"state":"expired","reason":"quarantined on this node and never published: it expired before the backend could be reached","suppressed_groups":[{"group":"web","reason":"too far"}],"warnings":[]}

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

/// An agent under another user could not use a directory that root has made by a look.
#[test]
fn what_only_looks_makes_no_state_directory() {
    let state = state();
    let missing = state.path().join("missing");
    let run = |arguments: &[&str]| trigger(&missing).args(arguments).assert();
    run(&["queue"]).code(0).stdout_eq("");
    run(&["outbox", "list"]).code(0).stdout_eq("The outbox is empty.\n");
    run(&["status", "019356b0-7c4a-7000-8000-000000000001", "--backend", "etcd://127.0.0.1:9"]).code(4);
    let event = "019356b0-7c4a-7000-8000-000000000001";
    run(&["cancel", event, "--certname", "web01", "--backend", "etcd://127.0.0.1:9"]).code(4);
    run(&["log", "--certname", "web01"]).code(1).stderr_eq(str![[r#"
error: no such run of web01 is kept here: a node keeps its last hundred runs

"#]]);
    run(&["facts"]).code(0);
    run(&["outbox", "drop", "019356b0-7c4a-7000-8000-000000000001"]).code(1).stderr_eq(str![[r#"
error: there is no state directory [..]/missing, so this node has no outbox

"#]]);
    assert!(!missing.exists());
}

/// The audit is for the journal or the configured file, and not for the terminal.
#[test]
fn a_command_audits_to_the_configured_file_and_never_to_the_terminal() {
    let state = state();
    let (config, audit) = (state.path().join("trigger.toml"), state.path().join("audit.log"));
    std::fs::write(&config, format!("[audit]\nfile = '{}'\n", audit.display())).unwrap();
    let spooled = || {
        let fire = ["fire", "x", "--host", "lb01", "--backend", "hub+http://127.0.0.1:9", "--output", "json"];
        let fired = trigger(state.path()).args(fire).assert().code(0);
        String::from_utf8_lossy(&fired.get_output().stdout).split('"').nth(3).unwrap().to_owned()
    };
    let cancel = |configuration: &str, event: &str| {
        let command = trigger(state.path()).env("TRIGGER_CONFIG", configuration);
        let cancelled =
            command.args(["cancel", event, "--backend", "hub+http://127.0.0.1:9"]).assert().code(0);
        String::from_utf8_lossy(&cancelled.get_output().stderr).into_owned()
    };
    for configuration in ["/dev/null", config.to_str().unwrap()] {
        let event = spooled();
        let printed = cancel(configuration, &event);
        assert!(printed.contains("warning: ") && !printed.contains("\"action\""), "{printed}");
        let written = std::fs::read_to_string(&audit).unwrap_or_default();
        assert_eq!(written.contains(&event), configuration != "/dev/null", "{written}");
    }
}

#[test]
fn the_queue_for_programs_names_every_field() {
    let state = state();
    trigger(state.path()).args(["queue", "--output", "json"]).assert().code(0).stdout_eq(str![[r#"
{"agent_running":false,"certname":null,"backend":null,"disconnected":null,"blocked":null,"blocked_by":null,"hold":null,"running":null,"waiting":[],"held":[],"unreadable":[],"spooled":[],"quarantined":[],"warnings":[]}

"#]]);
}
