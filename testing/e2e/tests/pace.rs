//! The rate limit on runs: it delays them, reports the delay, survives a restart, and loses nothing.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::time::Duration;

use serde_json::Value;
use trigger_e2e::{BackendKind, Fleet, Node, eventually, eventually_within, on_each_backend};

on_each_backend!(a_run_above_the_limit_waits_and_says_so_across_restarts);

/// Returns the reports of a delayed delivery by `status` and `queue`, once the node's record has it.
fn delay(node: &Node, event: &str) -> (String, String) {
    eventually("a delay that shows", || {
        let (status, queue) = (node.delivery(event, "a"), node.queue());
        let reasons = (status["reason"].as_str(), queue["waiting"][0]["reason"].as_str());
        match reasons {
            (Some(status_says), Some(queue_says)) if status["state"] == "pending" => {
                Ok((status_says.to_owned(), queue_says.to_owned()))
            }
            _ => Err(format!("{status} {queue}")),
        }
    })
}

fn a_run_above_the_limit_waits_and_says_so_across_restarts(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let mut node = fleet.node("a");
    let metrics = format!("'{}'", node.path("trigger.prom").display());
    node.set("runs_per_minute", "1").set("metrics_file", &metrics).start_agent();
    let first = node.fire(&["first", "--host", "a"]).committed();
    node.wait_for(&first, "a", "done");
    let second = node.fire(&["second", "--host", "a"]).committed();
    let (by_status, by_queue) = delay(&node, &second);
    let sentence = "1 run started within a minute (runs_per_minute); the next may start at ";
    assert!(by_status.starts_with(sentence), "{by_status}");
    assert_eq!(by_status, by_queue);
    eventually("a delay that is counted", || {
        let text = std::fs::read_to_string(node.path("trigger.prom")).unwrap_or_default();
        let is_counted = text.lines().any(|line| line == "trigger_agent_rate_limit_delays_total 1");
        if is_counted { Ok(()) } else { Err(text) }
    });

    node.kill_agent();
    node.start_agent();
    let third = node.fire(&["third", "--host", "a"]).committed();
    let (after_restart, _) = delay(&node, &third);
    assert!(after_restart.starts_with(sentence), "a restart makes no room for more runs: {after_restart}");
    let logged = node.agent_log().lines().filter(|line| line.contains("runs are delayed")).count();
    assert_eq!(logged, 2, "once by each agent: {}", node.agent_log());

    let patience = Duration::from_secs(150);
    eventually_within(patience, "the end of both", || {
        let ends: Vec<Value> = [&second, &third].map(|event| node.delivery(event, "a")).into();
        if ends.iter().all(|end| end["state"] == "done") { Ok(()) } else { Err(format!("{ends:?}")) }
    });
    let runs = node.runs();
    assert_eq!(runs.len(), 2, "delayed events share a run: {runs:?}");
    let apart = started_at_ms(&node, &runs[1].run_id) - started_at_ms(&node, &runs[0].run_id);
    assert!(apart > 59_000, "{apart} ms");
}

/// Returns the start in the run's record, which its agent wrote when it had decided to run.
fn started_at_ms(node: &Node, run_id: &str) -> u64 {
    eventually("a record that is closed", || {
        let path = node.path(&format!("state/runs/{run_id}.ended.json"));
        let text = std::fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let record: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        record["body"]["started_at_unix_ms"].as_u64().ok_or(text)
    })
}
