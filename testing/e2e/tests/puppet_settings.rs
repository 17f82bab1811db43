//! What Puppet's own settings decide: its certname, its locks, its limits; also where Puppet is slow, noisy or silent.

#![allow(clippy::expect_used, reason = "scenarios are functions that tests call")]

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use trigger_e2e::{BackendKind, Fleet, Node, eventually, eventually_within, never_for};

/// Makes `puppet apply` this node's run command, with its name and all other settings in `puppet.conf`. `wrapper` is
/// what a site's own script does before it starts Puppet.
fn runs_apply(node: &mut Node, conf: &str, wrapper: &str) {
    for directory in ["puppet", "bin"] {
        fs::create_dir_all(node.path(directory)).expect("a directory");
    }
    let here = node.path("").display().to_string();
    let script = format!("#!/bin/sh\ncd '{here}'\n{wrapper}\nexec puppet \"$@\"\n");
    let program = node.script("bin/puppet", &script);
    puppet_conf(node, conf);
    node.manifest("");
    let words = format!("{} apply --confdir {here}puppet {here}site.pp", program.display());
    node.set("run_cmd", &format!("'{words}'"));
}

fn puppet_conf(node: &Node, conf: &str) {
    let here = node.path("puppet").display().to_string();
    let modules = trigger_e2e::module_path().display().to_string();
    let text = format!(
        "[main]\nvardir = {here}/var\npublicdir = {here}/public\ncodedir = {here}/code\nrundir = {here}/run\n\
         logdir = {here}/log\nbasemodulepath = {modules}\n{conf}\n"
    );
    node.write("puppet/puppet.conf", &text);
}

fn fire(node: &Node, flags: &[&str]) -> String {
    node.fire(&[&["t", "--host", node.certname()], flags].concat()).committed()
}

/// Waits until an event has ended at a node, and returns its delivery.
fn end(node: &Node, event: &str) -> Value {
    eventually_within(Duration::from_secs(120), &format!("the end of {event}"), || {
        let target = node.delivery(event, node.certname());
        let over = ["done", "failed"].iter().any(|state| target["state"] == *state);
        if over { Ok(target) } else { Err(format!("{target}\n{}", node.agent_log())) }
    })
}

/// Waits until the agent reports this reason why no run may start, and returns the whole sentence.
fn blocked(node: &Node, words: &str) -> String {
    eventually_within(Duration::from_secs(90), &format!("an agent that waits because of '{words}'"), || {
        if !node.path("state/agent.sock").exists() {
            return Err("no agent yet".to_owned());
        }
        let reason = node.queue()["blocked"].as_str().unwrap_or_default().to_owned();
        if reason.contains(words) { Ok(reason) } else { Err(format!("'{reason}'\n{}", node.agent_log())) }
    })
}

fn reason(delivery: &Value) -> &str {
    delivery["reason"].as_str().unwrap_or_default()
}

#[test]
fn the_certname_is_found_in_whatever_puppet_logs() {
    let fleet = Fleet::on(BackendKind::PlainHub);
    let mut node = fleet.node("noisy.example.com");
    let noise = "echo 'Warning: Setting certname = x is deprecated.'; echo '   (location: certname.rb)'; \
                 printf '\\033[0;36mDebug: certname = y\\033[0m\\n'";
    runs_apply(&mut node, "certname = noisy.example.com\nlog_level = debug", noise);
    node.unset("certname");
    let fired = node.fire(&["t", "--host", "noisy.example.com"]).committed();
    assert_eq!(node.status(&fired).expect("a status")["origin"], "noisy.example.com");
    fs::remove_dir_all(node.path("state")).expect("a state directory");
    node.start_agent();
    assert_eq!(node.queue()["certname"], "noisy.example.com");
    assert_eq!(end(&node, &fired)["outcome"], "unchanged");
}

/// Proves C9.
#[test]
fn while_puppet_does_not_answer_no_run_starts_and_it_is_asked_on() {
    let fleet = Fleet::on(BackendKind::PlainHub);
    let mut node = fleet.node("silent.example.com");
    let wrapper = "if [ \"$1\" = config ] && [ -e broken ]; then echo 'cannot load such file' >&2; exit 1; fi\n\
                   while [ \"$1\" = config ] && [ -e slow ]; do sleep 0.1; done";
    runs_apply(&mut node, "certname = silent.example.com", wrapper);
    let made = node.path("made-by-puppet");
    node.manifest(&format!("file {{ '{}': content => 'x' }}", made.display()));
    node.write("broken", "");
    fs::create_dir_all(node.path("puppet/var/state")).expect("Puppet's state directory");
    let lock = node.write("puppet/var/state/agent_disabled.lock", r#"{"disabled_message":"the disks"}"#);
    node.launch_agent();
    let event = fire(&node, &[]);
    let held = node.wait_for(&event, node.certname(), "held");
    assert!(reason(&held).contains("cannot load such file"), "{held}");
    assert!(reason(&held).contains("asked again"), "{held}");

    // The operator's order is found as soon as Puppet answers.
    fs::remove_file(node.path("broken")).expect("a broken Puppet");
    blocked(&node, "Puppet is disabled on this node: the disks");
    fs::remove_file(lock).expect("a lock");
    assert_eq!(end(&node, &event)["outcome"], "changed");
    fs::remove_file(&made).expect("what the run made");

    // The configuration changes while Puppet is slow: the old answer is no permission.
    node.write("slow", "");
    puppet_conf(&node, "certname = silent.example.com\n# changed");
    let event = fire(&node, &[]);
    let waits = blocked(&node, "puppet.conf has changed");
    eventually("a delivery that nobody has to do anything for", || {
        let delivery = node.delivery(&event, node.certname());
        let is_so = delivery["state"] == "pending" && reason(&delivery) == waits;
        if is_so { Ok(()) } else { Err(delivery.to_string()) }
    });
    assert_eq!(node.queue()["waiting"][0]["reason"], waits.as_str(), "{}", node.queue());
    assert_eq!(node.queue()["held"], json!([]), "{}", node.queue());
    never_for(Duration::from_secs(2), "a run", || made.exists().then(|| "it ran".to_owned()));

    // Nor is the cache of an earlier agent.
    node.kill_agent();
    node.launch_agent();
    blocked(&node, "puppet.conf has changed");
    never_for(Duration::from_secs(2), "a run", || made.exists().then(|| "it ran".to_owned()));
    fs::remove_file(node.path("slow")).expect("a slow Puppet");
    assert_eq!(end(&node, &event)["outcome"], "changed");
}

/// A stand-in for `puppet agent`, whose settings and report are under the test's control.
const FAKE_AGENT: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
case "$1" in
config)
  if [ -e after ] && [ "$(cat after)" -gt 0 ]; then
    echo $(($(cat after) - 1)) >after; echo 'not now' >&2; exit 1
  fi
  for name in agent_catalog_run_lockfile agent_disabled_lockfile config logdest skip_tags tags; do
    case $name in config|*file) echo "$name = $PWD/$name";; *) echo "$name = ";; esac
  done
  echo "certname = fake.example.com"
  echo "lastrunreport = $PWD/$(cat report)";;
agent)
  while [ "$1" != --job-id ]; do shift; done
  echo moved >report; echo 2 >after
  printf 'job_id: %s\nstatus: changed\ntransaction_completed: true\nnoop: false\nnoop_pending: false\n' "$2" >moved
  exit 2;;
esac
"#;

/// Proves C9.
#[test]
fn after_a_run_puppet_is_asked_until_it_says_where_the_report_is() {
    let fleet = Fleet::on(BackendKind::PlainHub);
    let mut node = fleet.node("fake.example.com");
    let program = node.script("puppet", FAKE_AGENT);
    node.write("report", "first");
    node.set("run_cmd", &format!("'{} agent'", program.display())).start_agent();
    let done = end(&node, &fire(&node, &[]));
    assert_eq!((&done["state"], &done["outcome"]), (&json!("done"), &json!("changed")), "{done}");
    assert_eq!(fs::read_to_string(node.path("after")).expect("a count").trim(), "0", "it was asked on");
}

/// Proves C9.
#[test]
fn an_outcome_says_what_noop_left_pending_and_what_really_changed() {
    let fleet = Fleet::on(BackendKind::PlainHub);
    let mut node = fleet.node("noop.example.com");
    runs_apply(&mut node, "certname = noop.example.com", "");
    node.start_agent();
    let file = |name: &str, more: &str| {
        format!("file {{ '{}': content => 'x'{more} }}\n", node.path(name).display())
    };
    let facts = |delivery: &Value| {
        let fields = ["outcome", "noop", "noop_pending", "really_changed"];
        Value::from(fields.map(|field| delivery[field].clone()).to_vec())
    };
    let text = |event: &str| node.trigger(&["status", event]).stdout;

    // A converged node, and a real event over a resource that Puppet may not change.
    let converged = end(&node, &fire(&node, &["--noop"]));
    assert_eq!(facts(&converged), json!(["unchanged", true, false, false]), "{converged}");
    node.manifest(&file("own-noop", ", noop => true"));
    let event = fire(&node, &[]);
    let pending = end(&node, &event);
    assert_eq!(facts(&pending), json!(["unchanged", false, true, false]), "{pending}");
    assert!(reason(&pending).contains("changes are pending"), "{pending}");
    assert!(text(&event).contains("unchanged (changes pending)"), "{}", text(&event));
    assert!(!node.path("own-noop").exists());

    // A noop run with drift, and one that changes something all the same.
    node.manifest(&file("drift", ""));
    let event = fire(&node, &["--noop"]);
    let drift = end(&node, &event);
    assert_eq!(facts(&drift), json!(["unchanged", true, true, false]), "{drift}");
    assert!(text(&event).contains("unchanged (noop, changes pending)"), "{}", text(&event));
    node.manifest(&format!("{}{}", file("drift", ""), file("real", ", noop => false")));
    let event = fire(&node, &["--noop"]);
    let real = end(&node, &event);
    assert_eq!(facts(&real), json!(["changed", true, true, true]), "{real}");
    assert!(reason(&real).contains("noop => false were changed"), "{real}");
    assert!(text(&event).contains("changed (noop, really changed"), "{}", text(&event));
    assert!(node.path("real").exists() && !node.path("drift").exists());

    // A run that changes all that it should.
    let changed = end(&node, &fire(&node, &[]));
    assert_eq!(facts(&changed), json!(["changed", false, false, true]), "{changed}");
    let why = node.trigger(&["why", "noop.example.com", "--output", "json"]).json;
    assert_eq!(facts(&why["runs"][0]), facts(&changed), "{why}");
}

/// Returns the names of the events that a node has been sent so far.
fn triggers(origin: &Node, target: &str) -> Vec<String> {
    let events = origin.trigger(&["status", "--output", "json"]).json["events"].clone();
    let events = events.as_array().cloned().unwrap_or_default();
    let sent = events.iter().filter(|event| event["targets"][0]["certname"] == target);
    sent.map(|event| event["trigger"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Proves C9.
#[test]
fn a_limit_on_tags_in_puppet_conf_drops_no_notify_and_is_mentioned() {
    let fleet = Fleet::on(BackendKind::PlainHub);
    let next = fleet.running("next.example.com");
    let mut node = fleet.node("limited.example.com");
    runs_apply(&mut node, "certname = limited.example.com\n[user]\ntags = web", "");
    node.manifest(
        "notify { 'selected': tag => 'web', notify => Trigger['onward'] }\n\
         notify { 'not selected': }\n\
         trigger { 'onward': hosts => 'next.example.com' }\n",
    );
    node.start_agent();
    let output = |run: &Value| {
        let run = run["run_id"].as_str().expect("a run");
        fs::read_to_string(node.path(&format!("state/runs/{run}.log"))).expect("its output")
    };
    let done = end(&node, &fire(&node, &[]));
    assert_eq!(done["outcome"], "changed", "{done}");
    assert_eq!(reason(&done), "the run was limited by tags = web in puppet.conf");
    assert!(!output(&done).contains("not selected"), "the operator's limit holds: {}", output(&done));
    assert_eq!(triggers(&next, "next.example.com"), ["onward"]);

    // An event's own tags take the place of those, and are no limit beyond what the event asks for.
    let tagged = end(&node, &fire(&node, &["--tag", "nothing"]));
    assert_eq!((&tagged["outcome"], reason(&tagged)), (&json!("unchanged"), ""), "{tagged}");

    puppet_conf(&node, "certname = limited.example.com\n[user]\nskip_tags = web");
    let skipped = end(&node, &fire(&node, &[]));
    assert_eq!(reason(&skipped), "the run was limited by skip_tags = web in puppet.conf");
    assert!(output(&skipped).contains("not selected"), "{}", output(&skipped));
    assert_eq!(triggers(&next, "next.example.com").len(), 1, "Puppet drops this notify");
}

#[test]
fn a_new_certname_in_puppet_conf_holds_the_node_until_it_is_moved_over() {
    let fleet = Fleet::on(BackendKind::PlainHub);
    let other = fleet.running("other.example.com");
    let mut node = fleet.node("old.example.com");
    runs_apply(&mut node, "certname = old.example.com", "");
    node.unset("certname");
    node.start_agent();
    assert_eq!(end(&node, &fire(&node, &[]))["state"], "done");

    // In the middle of the agent's life.
    puppet_conf(&node, "certname = new.example.com");
    let sentence = blocked(&node, "new.example.com");
    assert!(sentence.contains("belongs to old.example.com"), "{sentence}");
    assert!(sentence.contains("trigger rename"), "{sentence}");
    let to_old = fire(&node, &[]);
    let held = other.wait_for(&to_old, "old.example.com", "held");
    assert!(reason(&held).contains("new.example.com"), "{held}");
    let to_new = other.fire(&["t", "--host", "new.example.com"]).committed();

    // At a start, which does not end the agent.
    node.agent().hang_up();
    eventually("an agent that has started again", || {
        let log = node.agent_log();
        if log.matches("is ready").count() >= 2 { Ok(()) } else { Err(log) }
    });
    blocked(&node, "trigger rename");
    assert!(node.agent().exit().is_none(), "it lives");
    let fired = node.fire(&["t", "--host", "other.example.com"]);
    let warnings = fired.json["warnings"].to_string();
    assert!(warnings.contains("trigger rename"), "the command line says so too: {warnings}");
    assert_eq!(other.delivery(&to_new, "new.example.com")["state"], "pending");

    let pid = node.agent().pid();
    let renamed = node.trigger(&["rename", "--output", "json"]);
    assert_eq!(renamed.code, 0, "{renamed:?}");
    let names = [&renamed.json["from"], &renamed.json["to"]];
    assert_eq!(names, ["old.example.com", "new.example.com"]);
    assert_eq!(renamed.json["left"], json!([to_old]), "{renamed:?}");
    other.wait_for(&to_new, "new.example.com", "done");
    assert_eq!(node.agent().pid(), pid, "it was not restarted by another");
    assert_eq!(node.queue()["certname"], "new.example.com");
    let left = other.delivery(&to_old, "old.example.com");
    assert_eq!(
        (&left["state"], reason(&left)),
        (&json!("pending"), "its agent was stopped"),
        "it stays: {left}"
    );
    let why = other.trigger(&["why", "new.example.com", "--run", "1", "--output", "json"]);
    assert_ne!(why.code, 0, "the earlier runs are the old name's: {why:?}");
    assert_eq!(other.trigger(&["why", "old.example.com"]).code, 0);
    let again = node.trigger(&["rename"]);
    assert!(again.code == 0 && again.stdout.contains("belongs to new.example.com already"), "{again:?}");
}

/// Proves C11.
#[test]
fn a_configured_certname_that_changes_holds_the_node_and_a_copy_claims_nothing() {
    let fleet = Fleet::on(BackendKind::PlainHub);
    let other = fleet.running("other");
    let mut node = fleet.running("a");
    let before = other.fire(&["t", "--host", "a"]).committed();
    other.wait_for(&before, "a", "done");

    // The configuration of a running agent is refused; after a restart the agent stays up and runs nothing.
    node.kill_agent();
    node.set("certname", "'b'");
    node.launch_agent();
    let sentence = blocked(&node, "the configured certname is b");
    assert!(sentence.contains("belongs to a") && sentence.contains("trigger rename"), "{sentence}");
    assert!(node.agent().exit().is_none(), "it lives");
    // A clone whose configuration has its own name already does not act for the original.
    let mut clone = fleet.node_in("clone", "c");
    clone.copy_state_of(&node);
    clone.launch_agent();
    blocked(&clone, "the configured certname is c");
    let record = "/puppet_trigger/events/nodes/a";
    let registered = fleet.backend.get(record).expect("the registration of a");
    never_for(Duration::from_secs(2), "a claim", || {
        let now = fleet.backend.get(record);
        (now.as_ref() != Some(&registered)).then(|| format!("{now:?}"))
    });

    // What it has spooled moves along, under the name that it was fired by.
    let to_b = other.fire(&["t", "--host", "b"]).committed();
    node.kill_agent();
    let offline = node.trigger(&["rename"]);
    assert!(
        offline.code == 0 && offline.stdout.contains("belongs to b now; it belonged to a"),
        "{offline:?}"
    );
    node.start_agent();
    other.wait_for(&to_b, "b", "done");
    assert_eq!(node.runs().len(), 2, "what ended under the old name does not run again");
    let renamed = clone.trigger(&["rename"]);
    assert_eq!(renamed.code, 0, "{renamed:?}");
    clone.wait_until_connected();
    let to_c = other.fire(&["t", "--host", "c"]).committed();
    other.wait_for(&to_c, "c", "done");
}

#[test]
fn a_node_is_not_moved_over_in_the_middle_of_a_run() {
    let mut fleet = Fleet::on(BackendKind::PlainHub);
    let other = fleet.running("other");
    let mut node = fleet.running("a");
    node.hold();
    let event = other.fire(&["t", "--host", "a"]).committed();
    node.wait_for_runs(1);
    node.set("certname", "'b'");
    for offline in [false, true] {
        if offline {
            node.kill_agent();
        }
        let refused = node.trigger(&["rename"]);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.stderr.contains("a run is in progress"), "{refused:?}");
    }
    // The next agent ends that run under the name that it was started for.
    node.launch_agent();
    blocked(&node, "the configured certname is b");
    node.release();
    other.wait_for(&event, "a", "done");
    eventually("a node that may be moved over", || {
        let renamed = node.trigger(&["rename"]);
        if renamed.code == 0 { Ok(()) } else { Err(format!("{renamed:?}")) }
    });
    node.wait_until_connected();

    // Events in the outbox keep the origin that they were fired under.
    fleet.backend.kill();
    let spooled = node.fire(&["t", "--host", "other"]);
    assert_eq!(spooled.json["state"], "spooled", "{spooled:?}");
    node.kill_agent();
    node.set("certname", "'c'");
    assert_eq!(node.trigger(&["rename"]).code, 0);
    fleet.backend.restart();
    node.start_agent();
    let event = spooled.json["event_id"].as_str().expect("an event");
    other.wait_for(event, "other", "done");
    assert_eq!(other.status(event).expect("a status")["origin"], "b");
}
