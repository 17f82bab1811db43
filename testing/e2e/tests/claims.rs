//! One agent for each certname: second agents, copied directories, restarted machines, and claims that are taken over
//! or given up.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::time::Duration;

use trigger_e2e::{
    BackendKind, Fleet, Node, eventually, eventually_within, never_for, on_each_backend,
    on_each_plain_backend,
};

on_each_backend!(
    a_second_live_claimant_runs_nothing_and_names_the_first,
    a_copy_of_a_live_agents_state_directory_is_no_heir,
    what_is_fired_without_a_claim_is_delivered_all_the_same,
    a_killed_agent_continues_its_own_claim_at_once_but_no_copy_does,
    after_a_power_cut_an_agent_waits_for_it_might_be_a_copy,
    a_stopped_agent_gives_its_claim_up,
    an_agent_that_outlived_its_backend_is_succeeded_at_once_after_a_reboot,
    an_agent_that_leaves_a_run_behind_keeps_its_claim,
);

on_each_plain_backend!(an_agent_whose_claim_is_taken_starts_nothing_more_and_forgets_what_waits);

/// The key of the registration of the certname `a`.
const RECORD: &str = "/puppet_trigger/events/nodes/a";
/// A time before the next renewal of a claim that was renewed just now.
const BEFORE_ANY_RENEWAL: Duration = Duration::from_secs(30);

/// Returns the reason why the agent may not start runs, once it reports one that contains `what`.
fn refusal(node: &Node, what: &str) -> String {
    eventually("an agent that may run nothing", || {
        if !node.path("state/agent.sock").exists() {
            return Err("no agent yet".to_owned());
        }
        let blocked = node.queue()["blocked"].clone();
        let known = blocked.as_str().filter(|reason| reason.contains(what));
        known.map(str::to_owned).ok_or_else(|| blocked.to_string())
    })
}

fn never_runs(node: &Node) {
    never_for(Duration::from_millis(500), "it ran", || node.runs().pop().map(|run| format!("{run:?}")));
}

/// Proves C11.
fn a_second_live_claimant_runs_nothing_and_names_the_first(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let first = fleet.running("a");
    let mut second = fleet.node_in("clone", "a");
    second.launch_agent();
    let blocked = refusal(&second, "claimed by another agent");
    let first_directory = first.path("state").to_string_lossy().into_owned();
    assert!(blocked.contains(&first_directory), "it names the other: {blocked}");
    // The second agent is known to be alive when it reports its activity.
    let event = second.fire(&["t", "--host", "a"]).committed();
    second.wait_for(&event, "a", "done");
    let blocked = refusal(&second, "another live agent");
    assert!(blocked.contains(&first_directory) && blocked.contains("stop one of the two"), "{blocked}");
    assert_eq!(first.runs().len(), 1);
    never_runs(&second);
}

fn a_copy_of_a_live_agents_state_directory_is_no_heir(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let first = fleet.running("a");
    let mut second = fleet.node_in("clone", "a");
    second.copy_state_of(&first);
    second.launch_agent();
    refusal(&second, "after 180 s of silence");
    let event = second.fire(&["t", "--host", "a"]).committed();
    first.wait_for(&event, "a", "done");
    assert_eq!((first.runs().len(), second.runs().len()), (1, 0));
}

fn what_is_fired_without_a_claim_is_delivered_all_the_same(kind: BackendKind) {
    let mut fleet = Fleet::on(kind);
    let _first = fleet.running("a");
    let lb = fleet.running("lb");
    let mut second = fleet.node_in("clone", "a");
    second.launch_agent();
    refusal(&second, "claimed by another");
    fleet.backend.kill();
    let event = second.fire(&["t", "--host", "lb"]).spooled();
    fleet.backend.restart();
    lb.wait_for(&event, "lb", "done");
}

fn a_killed_agent_continues_its_own_claim_at_once_but_no_copy_does(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let mut first = fleet.running("a");
    first.kill_agent();
    let mut copy = fleet.node_in("clone", "a");
    copy.copy_state_of(&first);
    copy.launch_agent();
    refusal(&copy, "after 180 s of silence");
    let event = copy.fire(&["t", "--host", "a"]).committed();
    // This is long before the lease ends.
    first.start_agent();
    first.wait_for(&event, "a", "done");
    assert_eq!((first.runs().len(), copy.runs().len()), (1, 0));
    assert!(!first.agent_log().contains("nothing is run"), "{}", first.agent_log());
}

fn after_a_power_cut_an_agent_waits_for_it_might_be_a_copy(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let mut node = fleet.running("a");
    let event = {
        node.kill_agent();
        node.restart_machine();
        node.launch_agent();
        node.fire(&["t", "--host", "a"]).committed()
    };
    let blocked = refusal(&node, "of this directory before a restart of the machine");
    assert!(blocked.contains("after 180 s of silence, in 1"), "{blocked}");
    never_runs(&node);
    let waiting = node.delivery(&event, "a");
    assert_eq!(waiting["state"], "pending");
    let reason = waiting["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("after 180 s of silence, in 1"), "what it waits for, and until when: {reason}");
    eventually("a line in its log", || {
        let log = node.agent_log();
        if log.contains(r#"nothing is run yet reason="a is claimed by"#) { Ok(()) } else { Err(log) }
    });
}

fn a_stopped_agent_gives_its_claim_up(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let mut first = fleet.running("a");
    let event = first.fire(&["t", "--host", "a"]).committed();
    first.wait_for(&event, "a", "done");
    eventually("an agent that was stopped when all was reported", || {
        first.agent().terminate();
        assert_eq!(first.agent().wait(), 0);
        let record = fleet.backend.get(RECORD).expect("a registration");
        if record.contains("\"released\":true") {
            return Ok(());
        }
        // The outcome was stored, but the run's record was not closed yet.
        first.start_agent();
        Err(record)
    });
    let waiting = first.fire(&["t", "--host", "a"]).committed();
    assert_eq!(first.delivery(&waiting, "a")["reason"], "its agent was stopped");

    let mut copy = fleet.node_in("clone", "a");
    copy.copy_state_of(&first);
    copy.restart_machine();
    copy.start_agent();
    copy.wait_for(&waiting, "a", "done");
    first.launch_agent();
    let copied = copy.path("state").to_string_lossy().into_owned();
    assert!(refusal(&first, "claimed by another").contains(&copied));
    let next = first.fire(&["t", "--host", "a"]).committed();
    first.wait_for(&next, "a", "done");
    assert_eq!((first.runs().len(), copy.runs().len()), (1, 2));
}

/// Proves C11.
fn an_agent_that_outlived_its_backend_is_succeeded_at_once_after_a_reboot(kind: BackendKind) {
    let mut fleet = Fleet::on(kind);
    let mut node = fleet.running("a");
    // The backend is stopped first, twice: the second agent has written nothing when it is stopped.
    fleet.backend.kill();
    for _ in 0..2 {
        node.agent().terminate();
        assert_eq!(node.agent().wait(), 0);
        node.restart_machine();
        node.launch_agent();
        let disconnected = eventually("an agent that reports why it is not connected", || {
            if !node.path("state/agent.sock").exists() {
                return Err("no agent yet".to_owned());
            }
            let queue = node.queue();
            let why = queue["disconnected"].as_str().filter(|why| why.contains("Connection refused"));
            why.map(str::to_owned).ok_or_else(|| queue.to_string())
        });
        assert!(disconnected.contains("is unreachable"), "{disconnected}");
    }
    // A copy of the directory has the note, too.
    let mut copy = fleet.node_in("clone", "a");
    copy.copy_state_of(&node);
    fleet.backend.restart();
    eventually_within(BEFORE_ANY_RENEWAL, "an agent that holds its claim", || {
        let queue = node.queue();
        if queue["blocked"].is_null() && queue["disconnected"].is_null() {
            Ok(())
        } else {
            Err(queue.to_string())
        }
    });
    copy.launch_agent();
    refusal(&copy, "claimed by another agent");
    let event = copy.fire(&["t", "--host", "a"]).committed();
    node.wait_for(&event, "a", "done");
    assert_eq!((node.runs().len(), copy.runs().len()), (1, 0));
}

fn an_agent_that_leaves_a_run_behind_keeps_its_claim(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let mut first = fleet.running("a");
    first.hold();
    let event = first.fire(&["t", "--host", "a"]).committed();
    first.wait_for(&event, "a", "running");
    first.agent().terminate();
    assert_eq!(first.agent().wait(), 0);
    let mut copy = fleet.node_in("clone", "a");
    copy.launch_agent();
    refusal(&copy, "after 180 s of silence");
    first.release();
    first.start_agent();
    first.wait_for(&event, "a", "done");
    assert_eq!((first.runs().len(), copy.runs().len()), (1, 0));
}

/// Proves C11.
fn an_agent_whose_claim_is_taken_starts_nothing_more_and_forgets_what_waits(kind: BackendKind) {
    let fleet = Fleet::on(kind);
    let mut node = fleet.running("a");
    node.hold();
    let running = node.fire(&["t", "--host", "a"]).committed();
    node.wait_for(&running, "a", "running");
    let waiting = node.fire(&["t", "--host", "a"]).committed();
    eventually("a delivery that waits", || {
        let queue = node.queue();
        if queue["waiting"][0]["event_id"] == waiting { Ok(()) } else { Err(queue.to_string()) }
    });
    let pid = node.agent().pid();

    let record = fleet.backend.get(RECORD).expect("a registration");
    let mut record: serde_json::Value = serde_json::from_str(&record).expect("JSON");
    record["body"]["instance"] = "another".into();
    record["body"]["lock"] = "another".into();
    record["body"]["location"] = "elsewhere, pid 1, /var/lib/trigger".into();
    record["body"]["running"] = serde_json::Value::Null;
    fleet.backend.put(RECORD, &record.to_string());
    eventually_within(BEFORE_ANY_RENEWAL, "an agent that knows", || {
        let queue = node.queue();
        let blocked = queue["blocked"].as_str().unwrap_or_default();
        let is_known = blocked.contains("another agent (elsewhere") && queue["waiting"][0].is_null();
        if is_known { Ok(()) } else { Err(queue.to_string()) }
    });
    assert_eq!(node.agent().pid(), pid);
    // The other agent ends the delivery that was pending here.
    let outcome = format!("/puppet_trigger/events/outcomes/{waiting}/a");
    fleet.backend.put(&outcome, r#"{"v":1,"body":{"state":"suppressed","reason":"elsewhere"}}"#);
    node.release();
    node.wait_for(&running, "a", "done");
    let event = node.fire(&["t", "--host", "a"]).committed();
    never_for(Duration::from_millis(500), "it ran", || node.runs().get(1).map(|run| format!("{run:?}")));
    assert_eq!(node.delivery(&event, "a")["state"], "pending");
    // The other agent stops.
    record["body"]["released"] = true.into();
    fleet.backend.put(RECORD, &record.to_string());
    node.wait_for(&event, "a", "done");
    assert_eq!(node.delivery(&waiting, "a")["reason"], "elsewhere");
    assert_eq!(node.runs().len(), 2, "{:?}", node.runs());
}
