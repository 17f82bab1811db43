//! What people and programs see of the command line: help, errors and JSON, as snapshots.
//!
//! `SNAPSHOTS=overwrite cargo test -p trigger --test cli` writes them again.

#![allow(clippy::unwrap_used, reason = "a test says what it expects")]

use std::path::Path;

use snapbox::cmd::{Command, cargo_bin};
use snapbox::data::Inline;
use snapbox::{assert_data_eq, file, str};

/// A `trigger` with no configuration but this state directory.
fn trigger(state: &Path) -> Command {
    Command::new(cargo_bin!("trigger"))
        .env_clear()
        .env("TRIGGER_CONFIG", "/dev/null")
        .env("TRIGGER_STATE_DIR", state)
        .env("TRIGGER_CERTNAME", "web01.example.com")
        .env("TRIGGER_BACKEND", "dummy:")
}

fn state() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn help(subcommand: &[&str]) -> String {
    let output = Command::new(cargo_bin!("trigger")).args(subcommand).arg("--help").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_reference_is_what_the_program_says() {
    let mut page = String::from(
        "# Command line reference\n\nWhat `trigger --help` and its subcommands print. Written by \
         `SNAPSHOTS=overwrite cargo test -p trigger --test cli`.\n",
    );
    let commands: [&[&str]; 8] =
        [&[], &["fire"], &["status"], &["queue"], &["why"], &["agent"], &["hub"], &["hub", "backup"]];
    for command in commands {
        let title = [&["trigger"], command].concat().join(" ");
        page.push_str(&format!("\n## {title}\n\n```text\n{}\n```\n", help(command).trim_end()));
    }
    assert_data_eq!(page, file!["../../../docs/cli.md"].raw());
}

fn fails(arguments: &[&str], code: i32, stderr: Inline) {
    let state = state();
    trigger(state.path()).args(arguments).assert().code(code).stdout_eq(str![""]).stderr_eq(stderr);
}

#[test]
fn the_error_for_a_bad_certname_says_what_is_allowed() {
    fails(
        &["fire", "x", "--host", "lb 01"],
        2,
        str![[r#"
error: 'lb 01' is not a certname: it may hold lower-case letters, digits, '.', '_' and '-', starts with none of '.' and '-', and has at most 255 characters

"#]],
    );
}

#[test]
fn an_event_needs_a_target() {
    fails(
        &["fire", "x"],
        2,
        str![[r#"
error: an event needs at least one target: name a host or a group

"#]],
    );
}

#[test]
fn a_trigger_name_has_one_line() {
    fails(
        &["fire", "a\nb", "--host", "lb01"],
        2,
        str![[r#"
error: 'a/nb' is not a trigger name: it may hold any printable characters, not only blanks and no line breaks or other control characters, and has at most 255 bytes

"#]],
    );
}

#[test]
fn a_huge_value_is_not_repeated_in_full() {
    // A command line holds at most 128 KiB in one word.
    fails(
        &["fire", "x", "--host", "lb01", "--tag", &"T".repeat(100_000)],
        2,
        str![[r#"
error: 'TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTT…' is not a tag: it may hold lower-case letters, digits, '_', and after the first character ':', '.' and '-', and has at most 255 characters

"#]],
    );
}

#[test]
fn tags_beyond_the_most_are_refused() {
    let tags: Vec<String> = (0..65).map(|n| format!("--tag=t{n}")).collect();
    let arguments: Vec<&str> =
        ["fire", "x", "--host", "lb01"].into_iter().chain(tags.iter().map(String::as_str)).collect();
    fails(
        &arguments,
        2,
        str![[r#"
error: 65 tags are too many for one event: at most 64; leave them out to run everything

"#]],
    );
}

#[test]
fn an_events_life_has_bounds() {
    fails(
        &["fire", "x", "--host", "lb01", "--expires-in", "8d"],
        2,
        str![[r#"
error: an event cannot expire in 691200 s: from 1 s to 7 days (604800 s)

"#]],
    );
}

#[test]
fn the_error_for_a_bad_backend_says_what_is_allowed() {
    fails(
        &["fire", "x", "--host", "lb01", "--backend", "http://h"],
        3,
        str![[r#"
error: 'http://h' selects no backend: give hub+http://HOST:PORT, etcd://HOST:PORT[,HOST:PORT…] or dummy:

"#]],
    );
}

#[test]
fn a_url_is_refused_before_anything_is_stored() {
    let state = state();
    let fire = |backend: &str| {
        trigger(state.path()).args(["fire", "x", "--host", "lb01", "--backend", backend]).assert().code(3)
    };
    fire("hub+http://::1:8145").stderr_eq(str![[r#"
error: 'hub+http://::1:8145' has a bad address '::1:8145': an IPv6 address stands in brackets, as in [::1]:8145

"#]]);
    fire("etcds://a:2379").stderr_eq(str![[r#"
error: 'etcds://a:2379' needs TLS, which this version does not speak yet: use hub+http:// or etcd:// on loopback

"#]]);
    let queue = trigger(state.path()).args(["queue", "--output", "json"]).output().unwrap();
    let queue = String::from_utf8(queue.stdout).unwrap();
    assert!(queue.contains("\"spooled\":[]"), "{queue}");
}

#[test]
fn a_backend_that_only_takes_events_serves_no_agent() {
    let state = state();
    trigger(state.path()).args(["agent"]).assert().code(3).stderr_eq(str![[r#"
error: backend 'dummy:' only takes events: an agent needs one that delivers them, such as hub+http:// or etcd://

"#]]);
}

#[test]
fn the_hub_stays_on_loopback_until_it_speaks_tls() {
    let state = state();
    let data = state.path().join("hub");
    trigger(state.path())
        .args(["hub", "--listen", "0.0.0.0:8145", "--data-dir"])
        .arg(&data)
        .assert()
        .code(3)
        .stderr_eq(str![[r#"
error: [..]0.0.0.0:8145[..]

"#]]);
}

#[test]
fn a_misspelt_setting_is_named_with_the_one_that_was_meant() {
    let state = state();
    let config = state.path().join("trigger.toml");
    std::fs::write(&config, "backend = 'dummy:'\nrun_command = 'true'\n").unwrap();
    trigger(state.path())
        .args(["fire", "x", "--host", "lb01", "--config"])
        .arg(&config)
        .assert()
        .code(3)
        .stderr_eq(str![[r#"
error: [..]/trigger.toml: line 2: unknown key 'run_command'; did you mean 'run_cmd'?

"#]]);
}

#[test]
fn firing_says_how_to_follow() {
    let state = state();
    trigger(state.path())
        .args(["fire", "refresh load balancers", "--host", "lb01", "--host", "lb02", "--group", "lb"])
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
Fired [..] at 2 nodes and 1 group. Follow it: trigger status [..]

"#]])
        .stderr_eq(str![""]);
}

#[test]
fn firing_for_programs_is_one_document() {
    let state = state();
    trigger(state.path())
        .args(["fire", "it's \"quoted\" $(x) größe", "--hosts-from", "-", "--output", "json"])
        .stdin("lb02\n\nlb01\nlb02\n")
        .assert()
        .code(0)
        .stdout_eq(str![[r#"
{"event_id":"[..]","trigger":"it's /"quoted/" $(x) größe","state":"committed","revision":0,"targets":[{"certname":"lb01","state":"committed"},{"certname":"lb02","state":"committed"}],"groups":[],"suppressed_groups":[],"warnings":[]}

"#]]);
}

#[test]
fn errors_for_programs_are_fields_too() {
    let state = state();
    let bad_line = str![[r#"
{"error":"standard input, line 2: 'b c' is not a certname: it may hold lower-case letters, digits, '.', '_' and '-', starts with none of '.' and '-', and has at most 255 characters","warnings":[]}

"#]];
    trigger(state.path())
        .args(["fire", "x", "--hosts-from", "-", "--output", "json"])
        .stdin("a\nb c\n")
        .assert()
        .code(2)
        .stdout_eq(bad_line)
        .stderr_eq(str![""]);
    trigger(state.path())
        .args(["fire", "x", "--ttl", "0", "--output", "json"])
        .assert()
        .code(2)
        .stdout_eq(str![[r#"
{"error":"invalid value '0' for '--ttl <HOPS>': 0 is not in 1..=64","warnings":[]}

"#]])
        .stderr_eq(str![""]);
}

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
    fire("second").assert().code(0).stderr_eq(str![[r#"
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
{"event_id":"[..]","trigger":"x","origin":"web01.example.com","fired_at":"[..]","expires_in_seconds":86400,"tags":[],"noop":false,"groups":["lb","web"],"targets":[],"state":"spooled","reason":"in this node's outbox: the backend has not committed it yet","suppressed_groups":[],"warnings":[]}

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
    let text = text.trim_end().strip_suffix('}').map(|text| format!("{text},{suppressed}}}")).unwrap();
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
{"event_id":"[..]","trigger":"x","origin":"web01.example.com","fired_at":"[..]","expires_in_seconds":86400,"tags":[],"noop":false,"groups":["lb"],"targets":[{"certname":"a","state":"expired","outcome":null,"run_id":null,"started_at":null,"finished_at":null,"noop":null,"reason":"quarantined on this node and never published: it expired before the backend could be reached"},{"certname":"b","state":"suppressed","outcome":null,"run_id":null,"started_at":null,"finished_at":null,"noop":null,"reason":"loop: seen"}],"state":"expired","reason":"quarantined on this node and never published: it expired before the backend could be reached","suppressed_groups":[{"group":"web","reason":"too far"}],"warnings":[]}

"#]]);
}

#[test]
fn waiting_for_a_write_only_backend_is_refused_before_firing() {
    let state = state();
    trigger(state.path())
        .args(["fire", "x", "--host", "lb01", "--wait"])
        .assert()
        .code(2)
        .stdout_eq(str![""])
        .stderr_eq(str![[r#"
error: backend 'dummy:' is write-only: --wait cannot work, and nothing was fired

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
fn errors_of_why_say_what_is_missing() {
    fails(
        &["why", "Lb01"],
        2,
        str![[r#"
error: 'Lb01' is not a certname: it may hold lower-case letters, digits, '.', '_' and '-', starts with none of '.' and '-', and has at most 255 characters; an event is named by its whole id, in lower case

"#]],
    );
    fails(
        &["why", "lb01", "--run=latest"],
        2,
        str![[r#"
error: 'latest' is neither a number of runs to go back (0 is the latest) nor a run's whole id

"#]],
    );
    fails(
        &["why", "lb01"],
        2,
        str![[r#"
error: backend 'dummy:' is write-only: it cannot report events

"#]],
    );
    fails(
        &["why", "lb01", "--backend", "hub+http://127.0.0.1:9"],
        4,
        str![[r#"
error: backend hub+http://127.0.0.1:9 is unreachable: Connection refused (os error 111)

"#]],
    );
}

#[test]
fn only_why_prints_graphs() {
    fails(
        &["status", "--output", "dot"],
        2,
        str![[r#"
error: invalid value 'dot' for '--output <FORMAT>'
  [possible values: text, json]

For more information, try '--help'.

"#]],
    );
}

#[test]
fn the_queue_for_programs_names_every_field() {
    let state = state();
    trigger(state.path()).args(["queue", "--output", "json"]).assert().code(0).stdout_eq(str![[r#"
{"agent_running":false,"certname":null,"backend":null,"disconnected":null,"blocked":null,"running":null,"waiting":[],"held":[],"unreadable":[],"spooled":[],"quarantined":[],"warnings":[]}

"#]]);
}
