//! The metrics file of an agent: its counters, and its report of the loop guard.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

use trigger_e2e::{BackendKind, Fleet, Node, eventually, on_each_backend};

on_each_backend!(the_metrics_file_counts_what_happened);

/// Waits until the node's metrics file has all of these lines.
fn wait_for_lines(node: &Node, lines: &[&str]) {
    eventually("figures in the metrics file", || {
        let text = fs::read_to_string(node.path("trigger.prom")).unwrap_or_default();
        let missing: Vec<&&str> = lines.iter().filter(|line| !text.lines().any(|l| l == **line)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} are missing in\n{text}")) }
    });
}

fn the_metrics_file_counts_what_happened(kind: BackendKind) {
    let mut fleet = Fleet::on(kind);
    let mut a = fleet.node("a");
    let path = format!("'{}'", a.path("trigger.prom").display());
    a.set("metrics_file", &path).set("groups", "['all']").start_agent();
    wait_for_lines(
        &a,
        &[
            "# TYPE trigger_agent_build_info gauge",
            "# TYPE trigger_agent_runs_total counter",
            "trigger_agent_runs_total{outcome=\"changed\"} 0",
            "trigger_agent_backend_connected 1",
            "trigger_agent_claim_held 1",
            "trigger_agent_deliveries{state=\"running\"} 0",
            "trigger_agent_last_run_end_timestamp_seconds 0",
        ],
    );
    let mode = fs::metadata(a.path("trigger.prom")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);

    // The fires of two runs are suppressed: by the pair, by the hops, and by the member's own check.
    let fires = "trigger fire again --host a; trigger fire short --ttl 1 --host a --host b; trigger fire again --group all";
    a.write("then", &format!("{{ {fires}; }} >>fired 2>&1\n"));
    let event = a.fire(&["again", "--host", "a"]).committed();
    a.wait_for(&event, "a", "done");
    a.write("then", "exit 3\n");
    let failing = a.fire(&["failing", "--host", "a"]).committed();
    a.wait_for(&failing, "a", "failed");
    let said = fs::read_to_string(a.path("fired")).expect("what the fires said");
    assert!(said.contains("warning: not fired at a: loop: 'again' already made a run"), "{said}");
    for line in [
        r#"trigger="again" target="a" reason="loop: 'again' already made a run in this chain"#,
        r#"trigger="short" target="b" reason="loop guard: the chain has 1 hop and"#,
        r#"state=suppressed reason="loop: 'again' already made a run in this chain"#,
    ] {
        a.wait_for_log(line);
    }
    a.hold();
    a.fire(&["running", "--host", "a"]).committed();
    a.wait_for_runs(3);
    let waiting = a.fire(&["waiting", "--host", "a"]).committed();
    wait_for_lines(
        &a,
        &[
            "trigger_agent_events_fired_total{result=\"committed\"} 7",
            "trigger_agent_targets_suppressed_total{rule=\"pair\"} 1",
            "trigger_agent_targets_suppressed_total{rule=\"hops\"} 2",
            "trigger_agent_targets_suppressed_total{rule=\"fires\"} 0",
            "trigger_agent_targets_suppressed_total{rule=\"member\"} 1",
            "trigger_agent_deliveries_ended_total{state=\"done\"} 1",
            "trigger_agent_deliveries_ended_total{state=\"failed\"} 1",
            "trigger_agent_deliveries_ended_total{state=\"suppressed\"} 1",
            "trigger_agent_runs_total{outcome=\"changed\"} 1",
            "trigger_agent_runs_total{outcome=\"failed\"} 1",
            "trigger_agent_run_duration_seconds_count 2",
            "trigger_agent_rate_limit_delays_total 0",
            "trigger_agent_deliveries{state=\"running\"} 1",
            "trigger_agent_deliveries{state=\"waiting\"} 1",
            "trigger_agent_outbox_spooled 0",
        ],
    );
    assert_eq!(a.delivery(&waiting, "a")["state"], "pending");

    fleet.backend.kill();
    let spooled = a.fire(&["spooled", "--host", "a"]).spooled();
    wait_for_lines(
        &a,
        &[
            "trigger_agent_events_fired_total{result=\"spooled\"} 1",
            "trigger_agent_outbox_spooled 1",
            "trigger_agent_backend_connected 0",
        ],
    );

    // Another agent's counters begin at zero; the end of the latest run is known all the same.
    a.kill_agent();
    let killed_at = SystemTime::now();
    a.launch_agent();
    eventually("a file of the next agent", || {
        let changed_at = fs::metadata(a.path("trigger.prom")).and_then(|file| file.modified());
        if changed_at.is_ok_and(|at| at > killed_at) { Ok(()) } else { Err(spooled.clone()) }
    });
    wait_for_lines(&a, &["trigger_agent_runs_total{outcome=\"changed\"} 0", "trigger_agent_claim_held 0"]);
    let text = fs::read_to_string(a.path("trigger.prom")).expect("a file");
    assert!(!text.contains("trigger_agent_last_run_end_timestamp_seconds 0"), "{text}");
}
