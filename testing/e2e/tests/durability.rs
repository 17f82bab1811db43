//! Crashes: whatever process dies, and whenever it dies, no event is lost that `fire` has answered for.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::process::Stdio;
use std::thread::{scope, sleep};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use trigger_e2e::{BackendKind, Fleet, Node, eventually, on_each_backend};

on_each_backend!(
    a_silent_backend_spools_and_the_agent_delivers,
    an_agent_that_does_not_answer_is_not_taken_for_none,
    without_an_agent_a_spooled_event_waits_for_the_next_fire,
    the_pause_after_a_failure_does_not_bind_an_operator,
    a_waiting_fire_publishes_its_event_once_the_backend_is_back,
    a_waiting_fire_ends_when_its_event_expires_in_the_outbox,
    killing_fire_at_any_moment_loses_no_answered_event,
    killing_the_agent_at_any_moment_loses_nothing,
    killing_the_backend_at_any_moment_loses_nothing,
);

/// Spreads moments over a range, at the same positions each time.
fn moments(count: u64, up_to: Duration) -> impl Iterator<Item = Duration> {
    (1..=count).map(move |n| up_to.mul_f64((n * 2_654_435_761 % 1_000) as f64 / 1_000.0))
}

/// Waits until each event has ended well at a node: in a run, or superseded by a later event.
fn assert_none_is_lost(origin: &Node, target: &Node, events: &[String]) {
    for event in events {
        eventually(&format!("the end of {event} at {}", target.certname()), || {
            let end = origin.delivery(event, target.certname());
            let over = ["done", "superseded"].iter().any(|state| end["state"] == *state);
            if over { Ok(()) } else { Err(format!("{end}\n{}", origin.queue())) }
        });
    }
    let runs = target.runs();
    assert!(runs.iter().all(|run| run.has_ended), "every run came to its end: {runs:?}");
}

/// Checks in the runs' own log that no two of them overlapped.
fn assert_one_at_a_time(node: &Node) {
    let text = std::fs::read_to_string(node.path("runs")).unwrap_or_default();
    let words: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(words.chunks(2).all(|pair| pair == ["start", "end"]), "one run at a time:\n{text}");
}

/// Proves C1.
fn a_silent_backend_spools_and_the_agent_delivers(kind: BackendKind) {
    let mut fleet = Fleet::on(kind);
    let (origin, lb) = (fleet.running("web01"), fleet.running("lb01"));
    fleet.backend.process().pause();
    let first = origin.fire_from_puppet(&["first", "--host", "lb01"]);
    let second = origin.fire_from_puppet(&["second", "--host", "lb01"]);
    assert!(second.took < first.took / 2, "the second does not wait too: {second:?} after {first:?}");
    for answer in [&first, &second] {
        let warning = answer.warnings();
        assert!(warning.contains("agent delivers it later") && !warning.contains("NO AGENT"), "{warning}");
    }
    let events = [first.spooled(), second.spooled()];
    let text = origin.trigger(&["fire", "third", "--host", "lb01"]);
    assert!(
        text.code == 0 && text.stdout.starts_with("Spooled ") && text.stderr.contains("warning: "),
        "{text:?}"
    );
    assert_eq!(origin.queue()["spooled"].as_array().map(Vec::len), Some(3));

    fleet.backend.process().go_on();
    assert_none_is_lost(&origin, &lb, &events);
    eventually("an empty outbox", || {
        let spooled = origin.queue()["spooled"].clone();
        if spooled == serde_json::json!([]) { Ok(()) } else { Err(spooled.to_string()) }
    });
    let (spooled, runs) = (3, lb.runs());
    assert!(runs.len() <= spooled, "published twice, run once: {runs:?}");
}

/// The backend and the agent are stopped and nobody has ended them.
fn an_agent_that_does_not_answer_is_not_taken_for_none(kind: BackendKind) {
    let mut fleet = Fleet::on(kind);
    let (mut origin, lb) = (fleet.running("web01"), fleet.running("lb01"));
    fleet.backend.kill();
    origin.agent().pause();
    let answer = origin.fire(&["first", "--host", "lb01"]);
    let warnings = answer.warnings();
    assert!(warnings.contains("its agent DOES NOT ANSWER"), "{answer:?}");
    assert!(!warnings.contains("NO AGENT"), "{answer:?}");
    let first = answer.spooled();
    let queue = origin.queue();
    assert_eq!(queue["agent_running"], false, "{queue}");
    assert!(queue["warnings"].to_string().contains("is there and does not answer"), "{queue}");

    origin.agent().go_on();
    fleet.backend.restart();
    assert_none_is_lost(&origin, &lb, &[first]);
}

fn without_an_agent_a_spooled_event_waits_for_the_next_fire(kind: BackendKind) {
    let mut fleet = Fleet::on(kind);
    let (origin, lb) = (fleet.node("web01"), fleet.running("lb01"));
    fleet.backend.kill();
    let answer = origin.fire(&["first", "--host", "lb01"]);
    assert!(answer.warnings().contains("NO AGENT IS RUNNING HERE"), "{answer:?}");
    let first = answer.spooled();
    assert_eq!(origin.delivery(&first, "lb01")["state"], "spooled", "its own node knows of it");
    fleet.backend.restart();
    lb.wait_until_connected();

    // For half a minute no Puppet run tries the backend; then the next fire does, and publishes the first event too.
    let second = origin.fire_from_puppet(&["second", "--host", "lb01"]).spooled();
    let note = std::fs::File::options().append(true).open(origin.path("state/backend-unreachable"));
    let half_a_minute_ago = SystemTime::now() - Duration::from_secs(31);
    note.and_then(|note| note.set_modified(half_a_minute_ago)).expect("a note that grows old");
    let third = origin.fire_from_puppet(&["third", "--host", "lb01"]).committed();
    assert_none_is_lost(&origin, &lb, &[first, second, third]);
    assert_eq!(origin.queue()["spooled"], serde_json::json!([]));
}

fn the_pause_after_a_failure_does_not_bind_an_operator(kind: BackendKind) {
    let mut fleet = Fleet::on(kind);
    let (alone, with_agent, lb) = (fleet.node("web01"), fleet.running("web02"), fleet.running("lb01"));
    for origin in [&alone, &with_agent] {
        fleet.backend.process().pause();
        let first = origin.fire(&["first", "--host", "lb01"]).spooled();
        fleet.backend.process().go_on();
        lb.wait_until_connected();
        let second = origin.fire(&["second", "--host", "lb01"]).committed();
        assert_none_is_lost(origin, &lb, &[first, second]);
    }
}

/// Proves C1.
fn a_waiting_fire_publishes_its_event_once_the_backend_is_back(kind: BackendKind) {
    let mut fleet = Fleet::on(kind);
    let (alone, with_agent, lb) = (fleet.node("web01"), fleet.running("web02"), fleet.running("lb01"));
    for origin in [&alone, &with_agent] {
        fleet.backend.kill();
        // An earlier event of this outbox is published with it.
        let earlier = origin.fire(&["earlier", "--host", "lb01"]).spooled();
        let answer = scope(|scope| {
            let wait = scope.spawn(|| origin.fire(&["t", "--wait", "--timeout", "60s", "--host", "lb01"]));
            eventually("a spooled event", || {
                let spooled = origin.queue()["spooled"].clone();
                if spooled[1].is_object() { Ok(()) } else { Err(spooled.to_string()) }
            });
            // It is in the outbox before it is offered, so one more failure has to be noted.
            let failure = origin.path("state/backend-unreachable");
            std::fs::remove_file(&failure).expect("the note of the earlier event's failure");
            eventually("an attempt that has failed", || {
                if failure.exists() { Ok(()) } else { Err(origin.queue().to_string()) }
            });
            fleet.backend.restart();
            wait.join().expect("a fire that has waited")
        });
        assert_eq!(answer.json["timed_out"], false, "{answer:?}");
        assert_eq!(answer.json["targets"][0]["state"], "done", "{answer:?}");
        assert!(
            answer.warnings().contains("offered to the backend again while this command waits"),
            "{answer:?}"
        );
        assert_none_is_lost(origin, &lb, &[earlier, answer.committed()]);
        assert_eq!(origin.queue()["spooled"], serde_json::json!([]));
    }
}

/// A waiting fire does not go on for an event that no backend will ever take.
fn a_waiting_fire_ends_when_its_event_expires_in_the_outbox(kind: BackendKind) {
    let mut fleet = Fleet::on(kind);
    let origin = fleet.node("web01");
    fleet.backend.kill();
    let mut command = origin.command(&["fire", "t", "--host", "lb01", "--wait", "--output", "json"]);
    let child = command.stdout(Stdio::piped()).spawn().expect("trigger to start");
    let spooled = eventually("a spooled event", || {
        let spooled = origin.queue()["spooled"].clone();
        spooled[0]["event_id"].as_str().map(str::to_owned).ok_or_else(|| spooled.to_string())
    });
    let file = origin.path("state/outbox").join(format!("{spooled}.json"));
    let mut event: Value =
        serde_json::from_str(&std::fs::read_to_string(&file).expect("the spooled event")).expect("JSON");
    event["body"]["event"]["fired_at_unix_ms"] = 0.into();
    let changed = origin.write("changed.json", &event.to_string());
    std::fs::rename(changed, &file).expect("an event that has expired");
    let output = child.wait_with_output().expect("its answer");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let error = answer["error"].as_str().unwrap_or_default();
    assert!(error.contains("it expired before the backend could be reached"), "{answer}");
    assert_eq!(output.status.code(), Some(1), "{answer}");
}

/// Proves C1.
fn killing_fire_at_any_moment_loses_no_answered_event(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let lb = fleet.running("lb01");
    for mut origin in [fleet.node("without-agent"), fleet.running("with-agent")] {
        let mut longest = origin.fire(&["usual", "--host", "lb01"]).took * 2;
        let (mut answered, mut fired) = (Vec::new(), 0);
        // The first fire may have found a machine with less to do than the others.
        while answered.is_empty() {
            for moment in moments(40, longest) {
                let mut command = origin.command(&["fire", "t", "--host", "lb01", "--output", "json"]);
                let mut child = command.stdout(Stdio::piped()).spawn().expect("trigger to start");
                sleep(moment);
                child.kill().expect("a fire to kill");
                let output = child.wait_with_output().expect("its answer");
                if let Ok(answer) = serde_json::from_slice::<Value>(&output.stdout) {
                    answered.push(answer["event_id"].as_str().expect("an event").to_owned());
                }
                fired += 1;
            }
            longest *= 2;
        }
        assert!(answered.len() < fired, "some were killed before they answered: {answered:?}");
        // The next fire publishes the events that a killed one left in the outbox; an agent does so by itself.
        answered.push(origin.fire(&["last", "--host", "lb01"]).committed());
        assert_none_is_lost(&origin, &lb, &answered);
        if origin.certname() == "without-agent" {
            origin.start_agent();
        }
    }
    assert_one_at_a_time(&lb);
}

/// Proves C4.
fn killing_the_agent_at_any_moment_loses_nothing(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let (origin, mut lb) = (fleet.running("web01"), fleet.running("lb01"));
    let mut events = Vec::new();
    for moment in moments(12, Duration::from_millis(300)) {
        for _ in 0..4 {
            events.push(origin.fire(&["burst", "--host", "lb01"]).committed());
        }
        sleep(moment);
        lb.kill_agent();
        lb.launch_agent();
    }
    assert_none_is_lost(&origin, &lb, &events);
    assert_one_at_a_time(&lb);
    assert!(lb.runs().len() <= events.len(), "{:?}", lb.runs());
}

/// Proves C1.
fn killing_the_backend_at_any_moment_loses_nothing(kind: BackendKind) {
    let mut fleet = Fleet::on(kind);
    let (origin, lb) = (fleet.running("web01"), fleet.running("lb01"));
    let events = scope(|scope| {
        let fires = scope.spawn(|| {
            (0..60).map(|_| origin.fire(&["burst", "--host", "lb01"]).event()).collect::<Vec<String>>()
        });
        for moment in moments(4, Duration::from_millis(800)) {
            sleep(moment);
            fleet.backend.kill();
            fleet.backend.restart();
        }
        fires.join().expect("all fires answered")
    });
    assert_none_is_lost(&origin, &lb, &events);
    assert_one_at_a_time(&lb);
    // The fleet still works.
    let last = origin.fire(&["last", "--host", "lb01"]).event();
    origin.wait_for(&last, "lb01", "done");
}

#[test]
fn a_dead_backend_holds_up_no_event_for_another() {
    let mut fleet = Fleet::on(BackendKind::Hub);
    let (mut origin, lb) = (fleet.node("web01"), fleet.running("lb01"));
    // A manifest with `provider => etcd` leaves this behind on a node whose etcd is permanently gone.
    let gone = origin.fire(&["gone", "--host", "lb01", "--backend", "etcd://127.0.0.1:1"]).spooled();
    fleet.backend.kill();
    let event = origin.fire(&["t", "--host", "lb01"]).spooled();
    fleet.backend.restart();
    origin.start_agent();
    origin.wait_for(&event, lb.certname(), "done");
    eventually("only the other in the outbox", || {
        let queue = origin.queue();
        let ids: Vec<&str> = queue["spooled"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|s| s["event_id"].as_str())
            .collect();
        if ids == [gone.as_str()] { Ok(()) } else { Err(queue.to_string()) }
    });
}

#[test]
fn a_hub_restored_from_a_backup_gets_the_lost_outcomes_again() {
    let mut fleet = Fleet::on(BackendKind::Hub);
    let origin = fleet.running("web01");
    let mut node = fleet.node("lb01");
    let event = origin.fire(&["t", "--host", "lb01"]).committed();
    let (data, backup) = (fleet.backend.data_dir(), fleet.directory("backup").join("hub.sqlite"));
    std::fs::create_dir_all(backup.parent().expect("a directory")).expect("a directory for the backup");
    let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let made =
        origin.trigger(&["hub", "backup", "--data-dir", &text(&data), &text(&backup), "--output", "json"]);
    assert_eq!(made.json["file"], text(&backup), "{made:?}");
    assert_eq!(made.code, 0, "{made:?}");
    node.start_agent();
    let run = origin.wait_for(&event, "lb01", "done")["run_id"].clone();

    // The hub loses the run, and has the delivery again.
    fleet.backend.kill();
    std::fs::copy(&backup, data.join("hub.sqlite")).expect("a restored hub");
    fleet.backend.restart();
    assert_eq!(origin.wait_for(&event, "lb01", "done")["run_id"], run, "the same outcome, not another run");
    assert_eq!(node.runs().len(), 1);
}
