//! Errors of the command line and of the configuration.

use snapbox::data::Inline;
use snapbox::str;

use crate::{state, trigger};

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
error: 65 tags are too many for one event: at most 64; without tags, the whole catalog is applied

"#]],
    );
}

#[test]
fn an_events_life_has_bounds() {
    fails(
        &["fire", "x", "--host", "lb01", "--expires-in", "8d"],
        2,
        str![[r#"
error: an event cannot expire in 8d: from 1s to 7d

"#]],
    );
}

#[test]
fn the_error_for_a_bad_backend_says_what_is_allowed() {
    fails(
        &["fire", "x", "--host", "lb01", "--backend", "http://h"],
        3,
        str![[r#"
error: 'http://h' selects no backend: give hub+http://localhost:PORT, hub+https://HOST:PORT, etcd://HOST:PORT[,HOST:PORT…], etcds://HOST:PORT[,HOST:PORT…] or dummy:

"#]],
    );
}

#[test]
fn a_backend_that_only_takes_events_serves_no_agent() {
    let state = state();
    trigger(state.path()).args(["agent"]).assert().code(3).stderr_eq(str![[r#"
error: backend 'dummy:' only takes events: an agent needs one that delivers them, such as hub+http://, hub+https://, etcd:// or etcds://

"#]]);
}

#[test]
fn the_hub_stays_on_loopback_without_tls() {
    let state = state();
    let data = state.path().join("hub");
    trigger(state.path())
        .args(["hub", "--tls=false", "--listen", "0.0.0.0:8145", "--data-dir"])
        .arg(&data)
        .assert()
        .code(3)
        .stderr_eq(str![[r#"
error: refusing to listen on 0.0.0.0:8145 without TLS, since other machines reach that address: leave out 'tls = false', or listen on loopback, such as 127.0.0.1:8145

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

#[test]
fn errors_of_why_say_what_is_missing() {
    fails(
        &["why", "Lb 01"],
        2,
        str![[r#"
error: 'Lb 01' is not a certname: it may hold lower-case letters, digits, '.', '_' and '-', starts with none of '.' and '-', and has at most 255 characters; an event is named by its whole id

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
fn a_url_is_refused_before_anything_is_stored() {
    let state = state();
    let fire = |backend: &str| {
        trigger(state.path()).args(["fire", "x", "--host", "lb01", "--backend", backend]).assert().code(3)
    };
    fire("hub+http://::1:8145").stderr_eq(str![[r#"
error: 'hub+http://::1:8145' has a bad address '::1:8145': an IPv6 address stands in brackets, as in [::1]:8145

"#]]);
    fire("hub+http://a:8145").stderr_eq(str![[r#"
error: 'hub+http://a:8145' would speak to another machine in the clear, which works on loopback only: use hub+https://a:8145

"#]]);
    let queue = trigger(state.path()).args(["queue", "--output", "json"]).output().unwrap();
    let queue = String::from_utf8(queue.stdout).unwrap();
    assert!(queue.contains("\"spooled\":[]"), "{queue}");
}

#[test]
fn a_directory_without_an_owner_cannot_be_renamed_and_one_that_has_the_name_need_not() {
    let state = state();
    trigger(state.path()).arg("rename").assert().code(1).stdout_eq(str![""]).stderr_eq(str![[r#"
error: the state directory [..] belongs to no certname yet: an agent takes it at its start

"#]]);
    std::fs::write(state.path().join("certname"), "web01.example.com\n").unwrap();
    trigger(state.path()).arg("rename").assert().code(0).stderr_eq(str![""]).stdout_eq(str![[r#"
[..] belongs to web01.example.com already.

"#]]);
    std::fs::write(state.path().join("certname"), "two words\n").unwrap();
    trigger(state.path()).arg("rename").assert().code(1).stdout_eq(str![""]).stderr_eq(str![[r#"
error: cannot read [..]/certname: 'two words' is not a certname: it may hold lower-case letters, digits, '.', '_' and '-', starts with none of '.' and '-', and has at most 255 characters

"#]]);
}

#[test]
fn a_node_whose_certificate_is_not_signed_yet_spools_and_is_told_what_to_do() {
    let state = state();
    let config = state.path().join("trigger.toml");
    let ssl = state.path().join("ssl");
    let table = ["certificate", "key", "ca"].map(|file| format!("{file} = '{}'\n", ssl.join(file).display()));
    std::fs::write(&config, format!("[tls]\n{}", table.concat())).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let backend = format!("hub+https://{}", listener.local_addr().unwrap());
    trigger(state.path())
        .args(["fire", "x", "--host", "lb01", "--backend", &backend, "--config"])
        .arg(&config)
        .assert()
        .success()
        .stderr_eq(str![[r#"
...
[..]cannot read the certificate [..]/ssl/certificate: No such file or directory (os error 2); this node has no signed certificate yet: run `puppet ssl bootstrap` here, and sign its request on the CA with `puppetserver ca sign`[..]
...
"#]]);
}

#[test]
fn a_run_is_named_by_its_whole_id_or_its_node() {
    fails(
        &["log", "01a2074c bc2e"],
        2,
        str![[r#"
error: '01a2074c bc2e' is not a certname: it may hold lower-case letters, digits, '.', '_' and '-', starts with none of '.' and '-', and has at most 255 characters; a run is named by its whole id

"#]],
    );
    fails(
        &["log", "lb01", "--run", "last"],
        2,
        str![[r#"
error: 'last' is neither a number of runs to go back (0 is the latest) nor a run's whole id

"#]],
    );
}

#[test]
fn a_hold_has_a_node_a_time_and_a_reason() {
    let hold = |rest: &[&str], stderr: Inline| fails(&[&["hold", "lb01"], rest].concat(), 2, stderr);
    hold(
        &["--for", "8d", "--reason", "disks"],
        str![[r#"
error: --for takes a second at least and 7d at most: hold the node again where it is to be held for longer

"#]],
    );
    hold(
        &["--for", "0s", "--reason", "disks"],
        str![[r#"
error: --for takes a second at least and 7d at most: hold the node again where it is to be held for longer

"#]],
    );
    hold(
        &["--for", "1h", "--reason", " "],
        str![[r#"
error: --reason is empty: say why, for those who wonder why nothing runs

"#]],
    );
    fails(
        &["hold", "--for", "1h", "--reason", "disks"],
        2,
        str![[r#"
error: name a node, or a group with --group

"#]],
    );
    fails(
        &["release", "lb 01"],
        2,
        str![[r#"
error: 'lb 01' is not a certname: it may hold lower-case letters, digits, '.', '_' and '-', starts with none of '.' and '-', and has at most 255 characters

"#]],
    );
}

#[test]
fn what_is_cancelled_is_an_event_and_where_is_a_certname() {
    fails(
        &["cancel", "e1"],
        2,
        str![[r#"
error: invalid value 'e1' for '<EVENT>': 'e1' is not an event id: it is a UUID in lower case with its four dashes

For more information, try '--help'.

"#]],
    );
    fails(
        &["cancel", "019ac0de-7c4a-7000-8000-000000000001", "--target", "lb 01"],
        2,
        str![[r#"
error: 'lb 01' is not a certname: it may hold lower-case letters, digits, '.', '_' and '-', starts with none of '.' and '-', and has at most 255 characters

"#]],
    );
}
