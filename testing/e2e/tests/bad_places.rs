//! Full disks, read-only directories, and run commands that misbehave.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::fs;

use trigger_e2e::{BackendKind, Fleet, Node, ReadOnly, SmallDisk, eventually, is_alive};

#[test]
fn a_full_disk_under_the_outbox_is_reported_and_the_event_is_published() {
    let mut fleet = Fleet::on(BackendKind::Hub);
    let origin = fleet.node("web01");
    let lb = fleet.running("lb01");
    let disk = SmallDisk::mount(&origin.path("state"), 256);
    origin.fire(&["first", "--host", "lb01"]).committed();
    disk.fill();
    let answer = origin.fire(&["straight", "--host", "lb01"]);
    assert!(answer.warnings().contains("the outbox cannot be written"), "{answer:?}");
    lb.wait_for(&answer.committed(), "lb01", "done");

    fleet.backend.kill();
    let error = origin.fire(&["nowhere", "--host", "lb01"]).error(4);
    assert!(error.contains("nothing could be spooled") && error.contains("fire again"), "{error}");
    disk.make_room();
    let spooled = origin.fire(&["later", "--host", "lb01"]).spooled();
    assert_eq!(origin.queue()["spooled"][0]["event_id"], spooled.as_str(), "and nothing but it");
}

#[test]
fn a_full_disk_under_an_agent_delays_runs_and_loses_none() {
    let fleet = Fleet::on(BackendKind::Hub);
    let origin = fleet.running("web01");
    let mut node = fleet.node("lb01");
    let disk = SmallDisk::mount(&node.path("state"), 512);
    node.start_agent();
    disk.fill();
    let event = origin.fire(&["t", "--host", "lb01"]).committed();
    // Either the run has no room for its record and is retried, or it has none for its result and waits for some.
    eventually("a delivery that waits for room", || {
        let delivery = origin.delivery(&event, "lb01");
        let no_room = |text: &str| text.contains("No space left");
        let is_reported = delivery["reason"].as_str().is_some_and(no_room) || no_room(&node.agent_log());
        if matches!(delivery["state"].as_str(), Some("retrying" | "running")) && is_reported {
            Ok(())
        } else {
            Err(delivery.to_string())
        }
    });
    disk.make_room();
    origin.wait_for(&event, "lb01", "done");
    // A run whose result had no room counts as interrupted, so there is one repetition.
    assert!((1..=2).contains(&node.runs().len()), "{:?}", node.runs());

    // An agent that starts on a full disk works as soon as there is room.
    node.kill_agent();
    disk.fill();
    node.launch_agent();
    eventually("an agent on a full disk", || {
        if let Some(code) = node.agent().exit() {
            assert!(code > 0 && node.agent_log().contains("No space left"), "{}", node.agent_log());
            return Ok(());
        }
        if node.queue()["agent_running"] == true { Ok(()) } else { Err(node.agent_log()) }
    });
    let meanwhile = origin.fire(&["meanwhile", "--host", "lb01"]).committed();
    disk.make_room();
    if node.agent().exit().is_some() {
        // systemd starts the agent again in the same way.
        node.launch_agent();
    }
    origin.wait_for(&meanwhile, "lb01", "done");
}

#[test]
fn a_full_disk_under_the_hub_spools_and_loses_nothing() {
    let fleet = Fleet::on_small_disk(BackendKind::Hub, 4 * 1024);
    let (origin, lb) = (fleet.running("web01"), fleet.running("lb01"));
    let disk = fleet.disk();
    let mut events = vec![origin.fire(&["before", "--host", "lb01"]).committed()];
    disk.fill();
    // SQLite may still have room in its allocated pages; after some more fires it has none.
    let spooled = eventually("a fire that the full hub does not take", || {
        let answer = origin.fire(&["full", "--host", "lb01"]);
        events.push(answer.event());
        if answer.json["state"] == "spooled" { Ok(answer) } else { Err(format!("{answer:?}")) }
    });
    assert!(!spooled.warnings().is_empty(), "{spooled:?}");
    assert_eq!(origin.queue()["quarantined"], serde_json::json!([]), "a full disk is no reason to give up");
    // An answer counts for a second.
    let body = eventually("an unhealthy hub", || match fleet.backend.health() {
        (503, body) => Ok(body),
        healthy => Err(format!("{healthy:?}")),
    });
    assert!(body["error"].as_str().is_some_and(|error| error.contains("is full")), "{body}");
    disk.make_room();
    eventually("a healthy hub", || match fleet.backend.health() {
        (200, _) => Ok(()),
        unhealthy => Err(format!("{unhealthy:?}")),
    });
    for event in events {
        eventually("its end", || {
            let end = origin.delivery(&event, lb.certname());
            let over = end["state"] == "done" || end["state"] == "superseded";
            if over { Ok(()) } else { Err(format!("{end} {}", origin.queue())) }
        });
    }
}

#[test]
fn a_hub_that_starts_on_a_full_disk_serves_what_it_has() {
    let mut fleet = Fleet::on_small_disk(BackendKind::Hub, 4 * 1024);
    let origin = fleet.node("web01");
    let event = origin.fire(&["before", "--host", "lb01"]).committed();
    for is_filled_before_the_stop in [true, false] {
        if is_filled_before_the_stop {
            fleet.disk().fill();
        }
        assert_eq!(fleet.backend.stop(), 0);
        if !is_filled_before_the_stop {
            fleet.disk().fill();
        }
        fleet.backend.restart_unhealthy();
        origin.wait_for(&event, "lb01", "pending");
        assert_eq!(fleet.backend.health().0, 503);
        fleet.disk().make_room();
        eventually("a healthy hub", || match fleet.backend.health() {
            (200, _) => Ok(()),
            unhealthy => Err(format!("{unhealthy:?}")),
        });
        origin.fire(&["after", "--host", "lb01"]).committed();
    }
}

#[test]
fn a_state_directory_that_cannot_be_written_is_reported() {
    let mut fleet = Fleet::on(BackendKind::Hub);
    let mut origin = fleet.node("web01");
    let lb = fleet.running("lb01");
    // The directory is tested as on a first start, and with everything that a used one holds.
    for is_used in [false, true] {
        if is_used {
            origin.fire(&["first", "--host", "lb01"]).committed();
        }
        let read_only = ReadOnly::make(&origin.path("state"));
        let answer = origin.fire(&["t", "--host", "lb01"]);
        assert!(answer.warnings().contains("Read-only file system"), "{answer:?}");
        lb.wait_for(&answer.committed(), "lb01", "done");
        origin.launch_agent();
        assert_eq!(origin.agent().wait(), 1);
        assert!(origin.agent_log().contains("Read-only file system"), "{}", origin.agent_log());
        drop(read_only);
    }
    let read_only = ReadOnly::make(&origin.path("state"));
    fleet.backend.kill();
    let error = origin.fire(&["nowhere", "--host", "lb01"]).error(4);
    assert!(error.contains("nothing could be spooled"), "{error}");
    drop(read_only);
}

#[test]
fn a_run_command_that_does_not_exist_is_retried_and_visible() {
    let fleet = Fleet::on(BackendKind::Hub);
    let origin = fleet.running("origin");
    let mut node = fleet.node("a");
    let good = fs::read_to_string(node.config()).expect("a configuration");
    node.set("run_cmd", "'/nonexistent/converge now'").start_agent();
    let event = origin.fire(&["t", "--host", "a"]).committed();
    let retrying = origin.wait_for(&event, "a", "retrying");
    let reason = retrying["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("cannot start '/nonexistent/converge'"), "{reason}");
    let queue = node.queue();
    assert_eq!(queue["waiting"][0]["event_id"], event.as_str());
    assert!(queue["waiting"][0]["retry_at"].is_string(), "{queue}");
    assert_eq!(queue["waiting"][0]["reason"], reason);
    // Once its configuration is repaired, the run starts at once.
    node.write("trigger.toml", &good);
    node.agent().hang_up();
    origin.wait_for(&event, "a", "done");
    assert_eq!(node.runs().len(), 1);
}

#[test]
fn a_run_that_never_ends_is_ended_with_all_its_processes() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("a");
    // The child ignores SIGTERM, and its parent would wait for it without end.
    let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\n\
        sh -c 'trap \"\" TERM; while :; do sleep 0.1; done' & echo \"$$ $!\" >pids; wait; wait\n";
    let endless = node.script("endless.sh", script);
    node.set("run_cmd", &format!("'{}'", endless.display())).set("run_timeout", "'1s'").start_agent();
    let event = node.fire(&["t", "--host", "a"]).committed();
    let end = node.wait_for(&event, "a", "failed");
    assert_eq!(end["outcome"], "timed_out");
    assert!(end["reason"].as_str().is_some_and(|reason| reason.contains("1s")), "{end}");
    let pids = fs::read_to_string(node.path("pids")).expect("pids");
    let pids: Vec<u32> = pids.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect();
    assert_eq!(pids.len(), 2);
    eventually("the end of the whole group", || match pids.iter().find(|pid| is_alive(**pid)) {
        Some(pid) => Err(format!("{pid} lives")),
        None => Ok(()),
    });
}

#[test]
fn a_run_that_prints_a_gigabyte_is_bounded_and_ends_well() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("a");
    let script =
        "#!/bin/sh\nyes 'a line of a run that says far too much' | head -c 1073741824; echo; echo the end\n";
    let loud = node.script("loud.sh", script);
    node.set("run_cmd", &format!("'{}'", loud.display())).start_agent();
    let event = node.fire(&["t", "--host", "a"]).committed();
    let end = node.wait_for(&event, "a", "done");
    let log = output(&node, end["run_id"].as_str().expect("a run"));
    assert!(log.len() < 5 * 1024 * 1024, "{}", log.len());
    assert!(log.trim_end().ends_with("the end"), "the newest output is kept");
    assert!(log.contains("bytes of output were dropped here"), "and what is gone is said");
}

fn output(node: &Node, run_id: &str) -> String {
    fs::read_to_string(node.path(&format!("state/runs/{run_id}.log"))).expect("a run's output")
}
