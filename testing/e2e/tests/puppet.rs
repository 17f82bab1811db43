//! Real Puppet on both sides: a notify on one node makes Puppet run on others.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::fs;

use serde_json::{Value, json};
use trigger_e2e::{
    BackendKind, Fleet, Node, eventually, eventually_within, is_alive, on_each_backend, signal_to_end,
};

on_each_backend!(a_notify_runs_puppet_on_three_nodes);

/// Returns the event that a `puppet apply` reports as fired.
fn fired_in(output: &str) -> String {
    let id = output.split("Fired ").nth(1).and_then(|rest| rest.split(' ').next());
    id.unwrap_or_else(|| panic!("nothing was fired:\n{output}")).to_owned()
}

/// Waits until an event has ended at a node, and returns its delivery.
fn end(origin: &Node, event: &str, certname: &str) -> Value {
    eventually(&format!("the end of {event} at {certname}"), || {
        let target = origin.delivery(event, certname);
        let over = ["done", "failed"].iter().any(|state| target["state"] == *state);
        if over { Ok(target) } else { Err(target.to_string()) }
    })
}

/// Returns the output of a run of a node.
fn output(node: &Node, run: &Value) -> String {
    let run = run["run_id"].as_str().unwrap_or_else(|| panic!("no run: {run}"));
    fs::read_to_string(node.path(&format!("state/runs/{run}.log"))).expect("a run's output")
}

fn a_notify_runs_puppet_on_three_nodes(kind: BackendKind) {
    const NAME: &str = r#"größer "it's" $(touch /tmp/owned) / \\ 名前"#;
    let fleet = Fleet::on(kind);
    let origin = fleet.running("web01.example.com");
    let [changed, unchanged, failed] = ["a.example.com", "b.example.com", "c.example.com"];
    let [mut a, mut b, mut c] = [changed, unchanged, failed].map(|certname| fleet.node(certname));
    a.runs_puppet("notify { 'something to do': }").start_agent();
    b.runs_puppet("").start_agent();
    c.runs_puppet("exec { '/bin/false': }").start_agent();

    // In Puppet's single quotes a backslash and a quote are escaped.
    let title = NAME.replace('\\', r"\\").replace('\'', r"\'");
    let manifest = format!(
        "exec {{ '/bin/true': }} ~> trigger {{ '{title}': hosts => ['{changed}', '{unchanged}', '{failed}'] }}
         trigger {{ 'only declared': hosts => '{changed}' }}"
    );
    let applied = origin.puppet_apply(&manifest, &[]);
    assert_eq!(applied.code, 2, "{}", applied.output);
    assert_eq!(applied.problems(), [""; 0], "Puppet reports no warning");
    assert!(applied.output.contains("at 3 nodes"), "{}", applied.output);
    let event = fired_in(&applied.output);

    for (certname, state, outcome) in
        [(changed, "done", "changed"), (unchanged, "done", "unchanged"), (failed, "failed", "failed")]
    {
        let end = end(&origin, &event, certname);
        assert_eq!((&end["state"], &end["outcome"]), (&json!(state), &json!(outcome)), "{end}");
        assert_eq!(end["noop"], false);
    }
    let status = origin.status(&event).expect("a status");
    assert_eq!(status["trigger"], NAME);
    assert_eq!(status["origin"], origin.certname());
    let declared = origin.path("by-hand.pp").to_string_lossy().into_owned();
    let resource =
        json!({ "path": format!("/Stage[main]/Main/Trigger[{NAME}]"), "file": declared, "line": 1 });
    assert_eq!(status["resource"], resource);
    // A node asks why it ran itself; why others did, an operator.
    let why = a.trigger(&["why", changed]).stdout;
    assert!(why.contains("the root: fired in a Puppet run that Trigger did not start"), "{why}");
    assert!(why.contains("by-hand.pp, line 1)"), "{why}");
    let events = origin.trigger(&["status", "--output", "json"]).json["events"].clone();
    assert_eq!(events.as_array().map(Vec::len), Some(1), "one event for one refresh: {events}");
    assert!(origin.runs().is_empty());
}

#[test]
fn noop_fires_nothing_and_a_noop_event_changes_nothing() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("a.example.com");
    let file = node.path("made-by-puppet");
    node.runs_puppet(&format!("file {{ '{}': content => 'x' }}", file.display())).start_agent();
    let manifest = "notify { 'change': } ~> trigger { 't': hosts => 'a.example.com' }";
    let applied = node.puppet_apply(manifest, &["--noop"]);
    assert_eq!(applied.code, 0, "{}", applied.output);
    assert!(applied.output.contains("Would have triggered 'refresh'"), "{}", applied.output);
    assert_eq!(node.trigger(&["status", "--output", "json"]).json["events"], json!([]));

    let event = node.fire(&["t", "--noop", "--host", "a.example.com"]).committed();
    let noop = end(&node, &event, "a.example.com");
    assert_eq!((&noop["state"], &noop["noop"]), (&json!("done"), &json!(true)), "{noop}");
    assert!(!file.exists() && output(&node, &noop).contains("noop"), "{}", output(&node, &noop));
    // The two events take two runs, and only the real one changes anything.
    let noop = node.fire(&["t", "--noop", "--host", "a.example.com"]).committed();
    let real = node.fire(&["t", "--host", "a.example.com"]).committed();
    let (noop, real) = (end(&node, &noop, "a.example.com"), end(&node, &real, "a.example.com"));
    assert_ne!(noop["run_id"], real["run_id"]);
    assert_eq!((&noop["noop"], &real["noop"]), (&json!(true), &json!(false)));
    assert_eq!(real["outcome"], "changed");
    assert_eq!(fs::read_to_string(&file).expect("the file"), "x");
}

#[test]
fn a_manifest_that_does_not_compile_is_tried_again() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("a.example.com");
    node.runs_puppet("this is no manifest {").start_agent();
    let event = node.fire(&["t", "--host", "a.example.com"]).committed();
    let retrying = node.wait_for(&event, "a.example.com", "retrying");
    assert!(
        retrying["reason"].as_str().is_some_and(|reason| reason.contains("see 'trigger log ")),
        "{retrying}"
    );
    node.manifest("");
    let end = end(&node, &event, "a.example.com");
    assert_eq!(end["outcome"], "unchanged");
}

/// `logdest` redirects Puppet's messages from the place where they would report the signal by default.
#[test]
fn an_apply_that_is_stopped_is_repeated_once() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("a.example.com");
    let log = node.path("puppet.log");
    fs::create_dir_all(node.path("confdir")).expect("Puppet's configuration directory");
    node.write("confdir/puppet.conf", &format!("[user]\nlogdest = {}\n", log.display()));
    let (pid, hold) = (node.path("pid"), node.path("hold"));
    let wait = format!(
        "echo $puppet >{0}.new && mv {0}.new {0}; while [ -e {1} ]; do sleep 0.1; done",
        pid.display(),
        hold.display()
    );
    node.runs_puppet(&format!(
        "$puppet = inline_template('<%= Process.pid %>')
         exec {{ 'slow': command => \"{wait}\", provider => shell, timeout => 0 }}"
    ));
    node.hold();
    node.start_agent();
    let event = node.fire(&["t", "--host", "a.example.com"]).committed();
    let puppet = eventually("a run in the middle of its catalog", || {
        let text = fs::read_to_string(&pid).map_err(|error| error.to_string())?;
        text.trim().parse::<u32>().map_err(|error| error.to_string())
    });
    // Puppet handles the signal when its exec has ended.
    signal_to_end(puppet);
    node.release();
    eventually("the end of that run", || {
        let log = node.agent_log();
        if log.contains(r#"run ended outcome=interrupted reason="ended by SIGTERM"#) {
            Ok(())
        } else {
            Err(log)
        }
    });
    assert_eq!(end(&node, &event, "a.example.com")["outcome"], "changed");
    assert!(fs::read_to_string(&log).expect("Puppet's own log").contains("SIGTERM"), "theirs as well");
}

#[test]
fn an_apply_that_takes_too_long_ends_with_what_it_started() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("a.example.com");
    // Puppet, asked to end, continues to its next step. Its output is no longer read, which would end it.
    let here = node.path("");
    let stuck = format!(
        "cd {}; exec 2>/dev/null; echo $$ >stuck; trap : TERM; sleep 600; sleep 600 & echo $! >next; while :; do wait; done",
        here.display()
    );
    node.runs_puppet(&format!("exec {{ 'stuck': command => '{stuck}', provider => shell, timeout => 0 }}"));
    node.set("run_timeout", "'15s'").start_agent();
    let event = node.fire(&["t", "--host", "a.example.com"]).committed();
    let failed = end(&node, &event, "a.example.com");
    assert_eq!((&failed["state"], &failed["outcome"]), (&json!("failed"), &json!("timed_out")), "{failed}");
    for process in ["stuck", "next"] {
        let id = fs::read_to_string(node.path(process)).unwrap_or_else(|error| panic!("{process}: {error}"));
        assert!(!is_alive(id.trim().parse().expect("a process id")), "{process} is still alive");
    }
    let log = node.agent_log();
    assert!(
        log.contains("the run did not end on TERM"),
        "its supervisor's words are in the agent's log: {log}"
    );
    node.manifest("");
    let next = node.fire(&["t", "--host", "a.example.com"]).committed();
    assert_eq!(end(&node, &next, "a.example.com")["outcome"], "unchanged");
}

#[test]
fn what_never_compiles_is_tried_until_it_expires() {
    /// The milliseconds left of the event's life, including the clock tolerance, when its agent starts.
    const LEFT: u64 = 45_000;
    const TOLERANCE: u64 = 5 * 60 * 1000;
    // Only a hub that knows no clients lets the event be made older than it is.
    let fleet = Fleet::on(BackendKind::PlainHub);
    let mut node = fleet.node("a.example.com");
    node.runs_puppet("this is no manifest {");
    let event = node.fire(&["t", "--host", "a.example.com", "--expires-in", "1m"]).committed();
    let key = format!("/puppet_trigger/events/events/{event}/parts/0");
    let mut part: Value = serde_json::from_str(&fleet.backend.get(&key).expect("the event")).expect("JSON");
    let fired_at = part["body"]["event"]["fired_at_unix_ms"].as_u64().expect("milliseconds");
    part["body"]["event"]["fired_at_unix_ms"] = (fired_at - 60_000 - TOLERANCE + LEFT).into();
    fleet.backend.put(&key, &part.to_string());
    node.start_agent();
    node.wait_for(&event, "a.example.com", "retrying");
    let expired = eventually_within(std::time::Duration::from_secs(120), "the end of the event", || {
        let target = node.delivery(&event, "a.example.com");
        if target["state"] == "expired" { Ok(target) } else { Err(target.to_string()) }
    });
    assert!(expired["outcome"].is_null(), "no run covered it: {expired}");
    assert!(node.queue()["waiting"].as_array().is_some_and(Vec::is_empty), "{}", node.queue());
}

#[test]
fn a_tagged_run_keeps_its_notifies_and_puppet_says_where_a_loop_is_cut() {
    let fleet = Fleet::on(BackendKind::Hub);
    let origin = fleet.running("origin.example.com");
    let (mut a, mut b) = (fleet.node("a.example.com"), fleet.node("b.example.com"));
    // Each direction has a trigger of its own; each run changes something each time.
    a.runs_puppet(
        "notify { 'tagged': tag => 'web', notify => Trigger['to b'] }
         notify { 'not tagged': }
         trigger { 'to b': hosts => 'b.example.com' }",
    );
    b.runs_puppet("notify { 'change': } ~> trigger { 'to a': hosts => 'a.example.com' }");
    a.start_agent();
    b.start_agent();
    let root = origin.fire(&["to a", "--tag", "web", "--host", "a.example.com"]).committed();

    let first = end(&origin, &root, "a.example.com");
    let said = output(&a, &first);
    assert!(!said.contains("not tagged"), "only what has the tag: {said}");
    let at_b = fired_in(&said);
    let second = end(&a, &at_b, "b.example.com");
    let said = output(&b, &second);
    assert!(said.contains("Warning: ") && said.contains("not fired at a.example.com: loop"), "{said}");
    assert_eq!((&first["outcome"], &second["outcome"]), (&json!("changed"), &json!("changed")));

    let part = fleet.backend.get(&format!("/puppet_trigger/events/events/{at_b}/parts/0")).expect("an event");
    let part: Value = serde_json::from_str(&part).expect("its JSON");
    let event = &part["body"]["event"];
    let hops = json!([{ "trigger": "to a", "certname": "a.example.com" }]);
    assert_eq!(event["lineage"], json!([{ "root": root, "hops": hops }]));
    assert_eq!(event["origin"], "a.example.com");
    let operator = fleet.operator();
    let events = operator.trigger(&["status", "--output", "json"]).json["events"].clone();
    assert_eq!(events.as_array().map(Vec::len), Some(3), "{events}");
    assert_eq!(events[0]["targets"][0]["state"], "suppressed");

    let why = operator.trigger(&["why", "b.example.com", "--output", "json"]).json;
    let (at_b, at_a) = (&why["runs"][0], &why["runs"][1]);
    assert_eq!((&at_b["run_id"], &at_a["run_id"]), (&second["run_id"], &first["run_id"]), "{why}");
    assert_eq!((&at_b["tags"], &at_a["tags"]), (&json!([]), &json!(["web"])));
    assert_eq!(at_b["fired"][0]["suppressed"][0]["certname"], "a.example.com", "{why}");
}

#[test]
fn a_backend_that_is_away_fails_no_puppet_run() {
    let mut fleet = Fleet::on(BackendKind::Hub);
    let mut origin = fleet.node("web01.example.com");
    let lb = fleet.running("lb01.example.com");
    fleet.backend.kill();
    let manifest = "notify { 'change': } ~> trigger { 't': hosts => 'lb01.example.com' }";
    let applied = origin.puppet_apply(manifest, &[]);
    assert_eq!(applied.code, 2, "{}", applied.output);
    let problems = applied.problems().join("\n");
    assert!(problems.contains("NO AGENT IS RUNNING HERE") && !problems.contains("Error"), "{problems}");
    fleet.backend.restart();
    origin.start_agent();
    assert_eq!(lb.wait_for_runs(1).len(), 1);
}

#[test]
fn while_puppet_is_disabled_an_event_is_held_with_puppets_own_message() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("a.example.com");
    node.runs_puppet("").start_agent();
    fs::create_dir_all(node.path("vardir/state")).expect("Puppet's state directory");
    let lock = node.write("vardir/state/agent_disabled.lock", r#"{"disabled_message":"changing the disks"}"#);
    let event = node.fire(&["t", "--host", "a.example.com"]).committed();
    let held = node.wait_for(&event, "a.example.com", "held");
    assert!(held["reason"].as_str().is_some_and(|reason| reason.contains("changing the disks")), "{held}");
    let queue = node.queue();
    assert_eq!(queue["held"][0]["event_id"], event.as_str());
    assert_eq!(queue["held"][0]["trigger"], "t");
    assert_eq!(queue["waiting"], serde_json::json!([]), "a held event is listed once");
    fs::remove_file(lock).expect("a lock to remove");
    assert_eq!(end(&node, &event, "a.example.com")["outcome"], "unchanged");

    // An operator moves Puppet's state: the agent sees that puppet.conf has changed, and queries the new path.
    let moved = node.write("moved.lock", r#"{"disabled_message":"still changing the disks"}"#);
    fs::create_dir_all(node.path("confdir")).expect("Puppet's configuration directory");
    node.write("confdir/puppet.conf", &format!("[main]\nagent_disabled_lockfile = {}\n", moved.display()));
    eventually("an agent that reads the new path", || {
        let blocked = node.queue()["blocked"].to_string();
        if blocked.contains("still changing the disks") { Ok(()) } else { Err(blocked) }
    });
}

#[test]
fn other_data_fire_until_an_event_has_been_fired_for_them() {
    let fleet = Fleet::on(BackendKind::Hub);
    let target = fleet.running("lb01.example.com");
    let mut origin = fleet.node("web01.example.com");
    let apply = |origin: &Node, data: &str| {
        let manifest = format!("trigger {{ 't': hosts => 'lb01.example.com', on_change => {data} }}");
        origin.puppet_apply(&manifest, &[])
    };
    let first = apply(&origin, "{ 'name' => 'web01', 'ports' => [80] }");
    assert_eq!((first.code, first.problems()), (2, vec![]), "{}", first.output);
    end(&target, &fired_in(&first.output), "lb01.example.com");
    let second = apply(&origin, "{ 'ports' => [80], 'name' => 'web01' }");
    assert_eq!(second.code, 0, "{}", second.output);

    // The program refuses a run command that does not run, and fires nothing.
    origin.set("run_cmd", "'puppet agent --enable'");
    let failed = apply(&origin, "{ 'name' => 'web01', 'ports' => [443] }");
    assert_eq!(failed.code, 4, "{}", failed.output);
    origin.set("run_cmd", "'/bin/true'");
    let third = apply(&origin, "{ 'name' => 'web01', 'ports' => [443] }");
    assert_eq!(third.code, 2, "{}", third.output);
    end(&target, &fired_in(&third.output), "lb01.example.com");
    assert_eq!(target.runs().len(), 2);

    // What Puppet's fact shows of the node that ran. Its latest run is closed when its outcome is stored.
    let facts = target.trigger(&["facts"]).json;
    assert_eq!(facts["agent"], json!({ "connected": true, "holds_claim": true, "blocked": null }), "{facts}");
    let cause = &facts["last_run"]["causes"][0];
    assert_eq!((&cause["trigger"], &cause["origin"]), (&json!("t"), &json!("web01.example.com")), "{facts}");
}
