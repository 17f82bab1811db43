//! Bad input from people, other programs and other versions: Trigger handles it unharmed, or refuses it with an error
//! message, and loses nothing else.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::ffi::OsStr;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use trigger_e2e::{
    BackendKind, Fleet, eventually, eventually_within, on_each_backend, on_each_plain_backend, program,
};

on_each_backend!(trigger_names_survive_unharmed, a_hundred_thousand_hosts_are_fired_at);

on_each_plain_backend!(
    garbage_and_newer_versions_under_our_keys_do_no_harm,
    what_was_unreadable_and_has_gone_is_no_longer_reported,
);

/// The timeout is generous, for the slowest machine and an unoptimised program.
const HUGE_EVENT_TIMEOUT: Duration = Duration::from_secs(180);

/// Proves C8.
fn trigger_names_survive_unharmed(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let node = fleet.running("a");
    let longest = "x".repeat(255);
    let names = [
        "$(touch /tmp/owned) `id`; rm -rf / | & > <",
        "it's \"quoted\" \\n \\",
        "../a/b//c",
        "größer ☃ 名前",
        "-rf",
        "--host",
        "%s%n{}",
        "{\"v\":1}",
        " blanks around ",
        "\u{202e}backwards",
        &longest,
    ];
    let events = names.map(|name| node.fire(&["--host", "a", "--", name]).committed());
    for (event, name) in events.iter().zip(names) {
        node.wait_for(event, "a", "done");
        assert_eq!(node.status(event).expect("a status")["trigger"], name);
        let text = node.trigger(&["status", event]);
        assert_eq!(text.code, 0, "{text:?}");
    }
}

#[test]
fn names_that_cannot_be_are_refused_with_a_sentence() {
    let fleet = Fleet::on(BackendKind::Hub);
    let node = fleet.node("a");
    let too_long = "x".repeat(256);
    for name in ["", "  ", "a\nb", "a\tb", "\u{1b}[31mred", "a\u{85}b", &too_long] {
        let error = node.fire(&["--host", "a", "--", name]).error(2);
        assert!(error.contains("is not a trigger name: it may hold"), "{name:?}: {error}");
        assert!(error.len() < 600 && !error.contains(['\n', '\u{1b}']), "{error:?}");
    }
    for host in ["", "lb 01", "../etc", "a/b", "-rf", "ä", "a\nb", "a,b", &too_long] {
        let error = node.fire(&["t", &format!("--host={host}")]).error(2);
        assert!(error.contains("is not a certname: it may hold"), "{host:?}: {error}");
        assert!(error.len() < 600 && !error.contains(['\n', '\u{1b}']), "{error:?}");
    }
    let from = ["fire", "t", "--hosts-from", "-", "--output", "json"];
    let error = node.trigger_reading(&from, "a\n\nB 2\nc\n").error(2);
    assert!(error.starts_with("standard input, line 3: 'B 2' is not a certname"), "{error}");
    let error = node.trigger_reading(&from, "\n\n").error(2);
    assert!(error.contains("at least one target"), "{error}");

    let mut raw = node.command(&["fire", "t", "--output", "json", "--host"]);
    let output = raw.arg(OsStr::from_bytes(b"\xff\xfe")).output().expect("trigger");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let error: Value = serde_json::from_slice(&output.stdout).expect("an error");
    assert!(error["error"].as_str().is_some_and(|e| e.to_lowercase().contains("utf-8")), "{error}");
    let events = node.trigger(&["status", "--output", "json"]).json;
    assert_eq!(events["events"], json!([]), "nothing of it was fired");
}

/// Carries each connection to a new port on to `port`, as `ssh -L` does.
fn forwarded_to(port: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let own = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            let ends = client.try_clone().and_then(|from| Ok((from, server.try_clone()?)));
            let Ok((mut client_in, mut server_in)) = ends else { continue };
            let (mut client_out, mut server_out) = (client, server);
            std::thread::spawn(move || std::io::copy(&mut client_in, &mut server_out));
            std::thread::spawn(move || std::io::copy(&mut server_in, &mut client_out));
        }
    });
    own
}

/// Proves C1. An operator mends the setting, and the event is still there.
#[test]
fn an_event_is_kept_where_the_hub_does_not_know_the_name_it_is_addressed_by() {
    let fleet = Fleet::on(BackendKind::PlainHub);
    let node = fleet.node("a");
    let port = forwarded_to(fleet.backend.port());
    let url = format!("hub+http://127.0.0.1:{port}");
    let answer = node.fire(&["t", "--host", "a", "--backend", &url]);
    assert_eq!(answer.json["state"], "spooled", "{answer:?}");
    let warnings = answer.json["warnings"].to_string();
    assert!(warnings.contains(&format!("--allowed-host 127.0.0.1:{port}")), "{warnings}");
    assert!(warnings.contains("403 Forbidden") && warnings.contains("allowed_hosts"), "{warnings}");
    let queue = node.queue();
    assert_eq!(queue["quarantined"], json!([]), "{queue}");
    assert_eq!(queue["spooled"][0]["backend"], url, "{queue}");
    let error = node.trigger(&["status", "--backend", &url, "--output", "json"]).error(4);
    assert!(error.contains("allowed_hosts"), "{error}");
}

#[test]
fn a_megabyte_of_tags_is_refused_and_all_that_are_allowed_are_kept() {
    let fleet = Fleet::on(BackendKind::Hub);
    let node = fleet.running("a");
    let tags =
        |count: usize| (0..count).map(|n| format!("--tag={}{n:05}", "t".repeat(200))).collect::<Vec<_>>();
    let fire = |tags: &[String]| {
        let words: Vec<&str> = tags.iter().map(String::as_str).chain(["t", "--host", "a"]).collect();
        node.fire(&words)
    };
    let error = fire(&tags(5_000)).error(2);
    assert!(error.contains("5000 tags are too many for one event: at most 64"), "{error}");
    let error = fire(&[format!("--tag={}", "t".repeat(100_000))]).error(2);
    assert!(error.contains("is not a tag") && error.len() < 600, "{}", error.len());
    let event = fire(&tags(64)).committed();
    node.wait_for(&event, "a", "done");
    let kept = node.status(&event).expect("a status")["tags"].clone();
    assert_eq!(kept.as_array().map(Vec::len), Some(64), "{kept}");
}

fn a_hundred_thousand_hosts_are_fired_at(kind: BackendKind) {
    const MANY: usize = 100_000;
    let fleet = Fleet::on(kind);
    let last = format!("n{:06}.example.com", MANY - 1);
    let node = fleet.running(&last);
    let hosts: String = (0..MANY).map(|n| format!("n{n:06}.example.com\n")).collect();
    let from = ["fire", "t", "--hosts-from", "-", "--output", "json"];

    let error = node.trigger_reading(&from, &format!("{hosts}one-more.example.com\n")).error(2);
    assert!(error.contains("100001 hosts are too many for one event: at most 100000"), "{error}");
    let answer = node.trigger_reading(&from, &hosts);
    assert!(answer.took < HUGE_EVENT_TIMEOUT, "{:?}", answer.took);
    let event = answer.json["event_id"].as_str().unwrap_or_else(|| panic!("{}", answer.stderr)).to_owned();
    // The event is as durable as any other: if publishing takes long, the agent continues with it.
    eventually_within(HUGE_EVENT_TIMEOUT, "the run at the last of them", || match node.runs().len() {
        0 => Err(node.queue()["spooled"].to_string()),
        _ => Ok(()),
    });
    // The event's status is long, so it is read once, when the outcome is stored.
    let outcome = format!("/puppet_trigger/events/outcomes/{event}/{last}");
    eventually_within(HUGE_EVENT_TIMEOUT, "the outcome of the last of them", || {
        fleet.backend.get(&outcome).ok_or_else(String::new)
    });
    let targets = node.status(&event).expect("a status")["targets"].clone();
    let targets = targets.as_array().expect("targets");
    assert_eq!(targets.len(), MANY);
    let states: Vec<&Value> = [0, MANY - 2, MANY - 1].map(|n| &targets[n]["state"]).to_vec();
    assert_eq!(states, ["pending", "pending", "done"]);
}

/// Proves C8.
fn garbage_and_newer_versions_under_our_keys_do_no_harm(kind: BackendKind) {
    const PREFIX: &str = "/puppet_trigger/events";
    let fleet = Fleet::on(kind);
    let id = |n: u32| format!("019356b0-7c4a-7000-8000-{n:012}");
    let delivery = |n: u32| format!("{PREFIX}/deliveries/a/{}", id(n));
    let garbage = |n: u32| {
        [
            (delivery(n), "garbage \u{1f4a9}".to_owned()),
            (format!("{PREFIX}/deliveries/a/not-an-id-{n}"), "{}".to_owned()),
            (delivery(n + 1), r#"{"v":1,"body":{"part":0}}"#.to_owned()),
            (delivery(n + 2), r#"{"v":1,"body":{"part":0}}"#.to_owned()),
            (format!("{PREFIX}/events/{}/parts/0", id(n + 2)), "x".repeat(100_000)),
            (format!("{PREFIX}/events/{}/members/0", id(n)), "[]".to_owned()),
            (format!("{PREFIX}/nodes/b{n}"), "null".to_owned()),
            (format!("{PREFIX}/nodes/UPPER{n}"), "null".to_owned()),
            (format!("{PREFIX}/nonsense/{n}"), "?".to_owned()),
        ]
    };
    let newer = |n: u32| {
        [
            (delivery(n), r#"{"v":99,"whatever":true}"#.to_owned()),
            (format!("{PREFIX}/events/{}/parts/0", id(n + 1)), r#"{"v":99,"new":[]}"#.to_owned()),
            (delivery(n + 1), r#"{"v":1,"body":{"part":0}}"#.to_owned()),
        ]
    };
    let put =
        |entries: &[(String, String)]| entries.iter().for_each(|(key, value)| fleet.backend.put(key, value));
    // Some of the garbage is there before the agent starts, some arrives while it watches.
    put(&garbage(10));
    put(&newer(20));
    let mut node = fleet.running("a");
    put(&garbage(30));
    put(&newer(40));
    let event = node.fire(&["t", "--host", "a"]).committed();
    node.wait_for(&event, "a", "done");

    let expected_held: Vec<String> = [20, 21, 40, 41].map(id).to_vec();
    let complete = |node: &trigger_e2e::Node| {
        eventually("all of it in the queue", || {
            let queue = node.queue();
            let list = |what: &str| queue[what].as_array().cloned().unwrap_or_default();
            let mut held: Vec<String> =
                list("held").iter().filter_map(|held| held["event_id"].as_str().map(str::to_owned)).collect();
            held.sort();
            let whole = held == expected_held && list("unreadable").len() == 8;
            if whole { Ok(queue) } else { Err(queue.to_string()) }
        })
    };
    let queue = complete(&node);
    let reason = queue["held"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("version 99") && reason.contains("update trigger on this node"), "{reason}");
    let text = node.trigger(&["queue"]).stdout;
    assert!(text.contains("\nHeld\n") && text.contains("\nUnreadable: "), "{text}");
    let status = node.trigger(&["status", "--output", "json"]);
    assert!(status.stdout.contains(&event), "{status:?}");

    // After a restart the agent reads all of it at once, and still deletes nothing.
    node.kill_agent();
    node.start_agent();
    complete(&node);
    for (key, value) in garbage(10).iter().chain(&newer(20)).chain(&newer(40)) {
        assert_eq!(fleet.backend.get(key).as_ref(), Some(value), "{key}");
    }
    assert_eq!(node.runs().len(), 1, "{:?}", node.runs());
}

fn what_was_unreadable_and_has_gone_is_no_longer_reported(kind: BackendKind) {
    let mut fleet = Fleet::on(kind);
    let key = |n: u32| format!("/puppet_trigger/events/deliveries/a/019356b0-7c4a-7000-8000-{n:012}");
    fleet.backend.put(&key(1), "garbage");
    fleet.backend.put(&key(2), "garbage");
    let node = fleet.running("a");
    let unreadable = |count: usize| {
        eventually(&format!("{count} unreadable deliveries"), || {
            let queue = node.queue();
            let list = queue["unreadable"].as_array().cloned().unwrap_or_default();
            if list.len() == count { Ok(list) } else { Err(queue.to_string()) }
        })
    };
    unreadable(2);
    fleet.backend.delete(&key(1));
    // The agents read all of it again.
    fleet.backend.kill();
    fleet.backend.restart();
    assert_eq!(unreadable(1)[0]["key"], key(2).as_str());
}

/// Proves C1.
#[test]
fn a_corrupt_outbox_file_is_quarantined_and_blocks_no_other() {
    let mut fleet = Fleet::on(BackendKind::Hub);
    let mut origin = fleet.node("web01");
    let lb = fleet.running("lb01");
    fleet.backend.kill();
    let event = origin.fire(&["t", "--host", "lb01"]).spooled();
    let outbox = origin.path("state/outbox");
    let whole = fs::read_to_string(outbox.join(format!("{event}.json"))).expect("a spooled event");
    // The other versions are older and newer than the good one, truncated, replaced, from the future, and not text at
    // all.
    let newer = whole.replacen("\"v\":1", "\"v\":99", 1);
    let wrong = whole.replace("\"lb01\"", "\"LB 01\"");
    let bad: [(&str, &[u8]); 5] = [
        ("00000000-0000-7000-8000-000000000001.json", &whole.as_bytes()[..whole.len() / 2]),
        ("00000000-0000-7000-8000-000000000002.json", b"\xff\x00garbage"),
        ("00000000-0000-7000-8000-000000000003.json", b""),
        ("00000000-0000-7000-8000-000000000004.json", newer.as_bytes()),
        ("ffffffff-0000-7000-8000-000000000005.json", wrong.as_bytes()),
    ];
    for (name, bytes) in bad {
        fs::write(outbox.join(name), bytes).expect("a bad file in the outbox");
    }
    assert_eq!(origin.queue()["spooled"].as_array().map(Vec::len), Some(6));

    fleet.backend.restart();
    origin.start_agent();
    origin.wait_for(&event, lb.certname(), "done");
    let aside = eventually("five files quarantined", || {
        let queue = origin.queue();
        let whole = queue["quarantined"].as_array().is_some_and(|aside| aside.len() == 5);
        if whole && queue["spooled"] == json!([]) {
            Ok(queue["quarantined"].clone())
        } else {
            Err(queue.to_string())
        }
    });
    for (name, bytes) in bad {
        let kept = outbox.join("quarantined").join(name);
        assert_eq!(fs::read(&kept).expect("a file quarantined"), bytes, "nothing is changed or deleted");
        let listed = aside
            .as_array()
            .into_iter()
            .flatten()
            .find(|listed| listed["file"] == kept.to_string_lossy().as_ref());
        assert!(
            listed.is_some_and(|listed| !listed["reason"].as_str().unwrap_or_default().is_empty()),
            "{aside}"
        );
    }
    let text = origin.trigger(&["queue"]).stdout;
    assert!(text.contains("Quarantined"), "{text}");
}

#[test]
fn an_unknown_key_in_the_configuration_is_named_with_the_nearest() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("a");
    node.set("run_comand", "'x'");
    for command in [&["fire", "t", "--host", "a"][..], &["agent"], &["queue"], &["status"]] {
        let answer = node.trigger(command);
        assert_eq!(answer.code, 3, "{answer:?}");
        assert!(answer.stderr.contains("unknown key 'run_comand'; did you mean 'run_cmd'?"), "{answer:?}");
        assert!(answer.stderr.contains("trigger.toml"), "{answer:?}");
    }
    let error = node.fire(&["t", "--host", "a"]).error(3);
    assert!(error.contains("did you mean 'run_cmd'?"), "{error}");
}

#[test]
fn a_second_hub_on_a_port_says_that_it_is_in_use() {
    let fleet = Fleet::on(BackendKind::Hub);
    let listen = format!("127.0.0.1:{}", fleet.backend.port());
    let hub = |listen: &str, directory: &str| {
        let mut command = Command::new(program());
        command.args(["hub", "--config", "/dev/null", "--tls=false", "--listen", listen, "--data-dir"]);
        let output = command.arg(fleet.path().join(directory)).output().expect("trigger");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = hub(&listen, "another");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&listen) && said.to_lowercase().contains("in use"), "{said}");
    // Two hubs must not share their data, and a hub without TLS must not listen on every address.
    let (code, said) = hub("127.0.0.1:0", "backend/data");
    assert!(code == Some(1) && said.contains("backend/data"), "{said}");
    let (code, said) = hub("0.0.0.0:0", "open");
    assert!(code == Some(3) && said.contains("0.0.0.0:0"), "{said}");
}
