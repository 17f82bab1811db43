//! `puppet agent` with a real Puppet server: each way in which a run can end, and the outcome that Trigger reports.

#![allow(clippy::expect_used, reason = "the steps of scenarios are functions that tests call")]

mod environments;
mod locks;
mod survival;

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use trigger_e2e::{
    BackendKind, Fleet, Node, PuppetServer, eventually_within, is_alive, kill, never_for, opened_within,
    signal_to_end,
};

/// A Puppet run takes some seconds, or many on a busy machine, and a retry waits for up to ten.
const TIMEOUT: Duration = Duration::from_secs(240);

/// Makes a fleet of one node whose agent is running.
fn alone(certname: &str, manifest: &str) -> (Fleet, Node) {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node(certname);
    node.runs_puppet_agent(manifest, "").start_agent();
    (fleet, node)
}

fn fire(node: &Node, flags: &[&str]) -> String {
    node.fire(&[&["t", "--host", node.certname()], flags].concat()).committed()
}

/// Waits until an event has this state at this node, and returns its delivery.
fn wait_for(node: &Node, event: &str, state: &str) -> Value {
    node.wait_within(TIMEOUT, event, node.certname(), state)
}

/// Returns the output of a run of a node.
fn output(node: &Node, run: &Value) -> String {
    let run = run["run_id"].as_str().unwrap_or_else(|| panic!("no run: {run}"));
    fs::read_to_string(node.path(&format!("state/runs/{run}.log"))).expect("a run's output")
}

/// Returns the results of the runs of a node, oldest first.
fn results(node: &Node) -> Vec<Value> {
    let files = fs::read_dir(node.path("state/runs")).expect("a directory of runs");
    let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".result.json")).collect();
    names.sort_unstable();
    let read = |name: &String| fs::read_to_string(node.path("state/runs").join(name)).expect("a result");
    let form = |name| serde_json::from_str::<Value>(&read(name)).expect("a result's JSON");
    names.iter().map(|name| form(name)["body"].clone()).collect()
}

fn outcomes(node: &Node) -> Vec<String> {
    results(node).iter().map(|result| result["outcome"].as_str().unwrap_or_default().to_owned()).collect()
}

fn assert_reason(delivery: &Value, words: &str) {
    assert!(delivery["reason"].as_str().is_some_and(|reason| reason.contains(words)), "{words}: {delivery}");
}

/// Returns a resource that creates the file `started`, then waits until the file `hold` is gone.
fn slow(node: &Node) -> String {
    let (started, hold) = (node.path("started"), node.path("hold"));
    let wait = format!("touch {}; while [ -e {} ]; do sleep 0.1; done", started.display(), hold.display());
    format!("exec {{ 'slow': command => '{wait}', provider => shell, timeout => 0 }}\n")
}

/// Waits until a run is in the middle of [`slow`].
fn wait_until_started(node: &Node) {
    wait_for_file(node, "started");
}

fn wait_for_file(node: &Node, name: &str) -> String {
    eventually_within(TIMEOUT, &format!("the file {name}"), || {
        let text = fs::read_to_string(node.path(name)).map_err(|error| error.to_string())?;
        // A process that notes its id creates the file before it writes to it.
        if name == "started" || text.ends_with('\n') { Ok(text) } else { Err("it is not whole".to_owned()) }
    })
}

fn process_in(node: &Node, name: &str) -> u32 {
    wait_for_file(node, name).trim().parse().expect("a process id")
}

/// Returns the process of the run that has Puppet's lock.
fn lock_holder(node: &Node) -> u32 {
    let lock = fs::read_to_string(node.puppet_state("agent_catalog_run.lock")).expect("Puppet's lock");
    lock.trim().parse().expect("a process id")
}

/// Proves C9.
#[test]
fn a_run_is_unchanged_changed_or_failed_as_its_report_says() {
    let (_fleet, node) = alone("outcomes.example.test", "");
    let unchanged = wait_for(&node, &fire(&node, &[]), "done");
    assert_eq!(unchanged["outcome"], "unchanged", "{unchanged}");

    node.served("notify { 'something to do': }");
    let changed = wait_for(&node, &fire(&node, &[]), "done");
    assert_eq!((&changed["outcome"], &changed["noop"]), (&json!("changed"), &json!(false)), "{changed}");
    let report = fs::read_to_string(node.puppet_state("last_run_report.yaml")).expect("a report");
    assert!(report.contains(&format!("\njob_id: {}\n", changed["run_id"].as_str().expect("a run"))));
    assert!(report.contains(&format!("\nenvironment: {}\n", node.environment())), "the node's own");

    node.served("exec { '/bin/false': }");
    let failed = wait_for(&node, &fire(&node, &[]), "failed");
    assert_eq!(failed["outcome"], "failed", "{failed}");
    assert_reason(&failed, "resources failed: Exec[/bin/false]: change from 'notrun' to ['0'] failed: ");
}

#[test]
fn what_does_not_compile_is_tried_again_and_no_old_catalog_is_applied_instead() {
    let (_fleet, node) = alone("compile.example.test", "");
    let file = node.path("made-by-puppet");
    let manifest = |content: &str| format!("file {{ '{}': content => '{content}' }}", file.display());
    node.served(&manifest("old"));
    wait_for(&node, &fire(&node, &[]), "done");
    fs::remove_file(&file).expect("what the first catalog made");

    node.served("fail('this cannot be compiled')");
    let event = fire(&node, &[]);
    let retrying = wait_for(&node, &event, "retrying");
    assert_reason(&retrying, "this cannot be compiled");
    assert!(node.queue()["waiting"][0]["retry_at"].is_string(), "{}", node.queue());
    assert!(!file.exists(), "the cached catalog was applied");

    node.served(&manifest("new"));
    let done = wait_for(&node, &event, "done");
    assert_eq!(done["outcome"], "changed", "{done}");
    assert_eq!(fs::read_to_string(&file).expect("the file"), "new");
    assert!(outcomes(&node).iter().any(|outcome| outcome == "not_run"), "{:?}", outcomes(&node));
}

#[test]
fn a_catalog_that_was_applied_in_part_failed_and_is_not_applied_again() {
    const TYPE: &str = "Puppet::Type.newtype(:kaput) { ensurable; newparam(:name, namevar: true) }";
    // A provider whose gem is missing fails in this way: Puppet does not take it for a resource's failure.
    const PROVIDER: &str = "Puppet::Type.type(:kaput).provide(:ruby) do
      def exists?; false; end
      def create; raise(LoadError, 'cannot load such file -- kaput'); end
    end";
    let (_fleet, node) = alone("kaput.example.test", "");
    node.served_file("modules/kaput/lib/puppet/type/kaput.rb", TYPE);
    node.served_file("modules/kaput/lib/puppet/provider/kaput/ruby.rb", PROVIDER);
    let file = node.path("made-by-puppet");
    node.served(&format!(
        "file {{ '{}': content => 'x' }} -> kaput {{ 'x': ensure => present }} -> notify {{ 'never': }}",
        file.display()
    ));
    let failed = wait_for(&node, &fire(&node, &[]), "failed");
    assert_eq!(failed["outcome"], "failed", "{failed}");
    assert_reason(&failed, "the catalog was not applied to its end: ");
    assert_reason(&failed, "cannot load such file -- kaput");
    assert!(file.exists() && !output(&node, &failed).contains("never"), "half of it was applied");
    assert_eq!(outcomes(&node), ["failed"], "{:?}", results(&node));
}

/// `logdest` redirects Puppet's messages from their default place.
#[test]
fn what_comes_before_a_catalog_keeps_it_from_running_and_what_comes_after_does_not() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("pre-and-post.example.test");
    node.runs_puppet_agent(&slow(&node), "");
    let log = node.path("puppet.log");
    // The words of Puppet at a signal, printed by another program, are no signal.
    const WORDS: &str =
        "#!/bin/sh\nprintf 'maintenance flag is set\nExiting\nNotice: Caught TERM; exiting\n'; exit 1\n";
    let script = node.script("failing", WORDS);
    let failing = |command: &str| format!("logdest = {}\n{command} = {}", log.display(), script.display());
    node.puppet_conf(PuppetServer::shared().port(), &failing("prerun_command"));
    node.start_agent();
    let event = fire(&node, &[]);
    let retrying = wait_for(&node, &event, "retrying");
    assert_reason(&retrying, "no catalog was applied: Could not run command from prerun_command");
    assert!(fs::read_to_string(&log).expect("Puppet's log").contains("prerun_command"), "theirs as well");
    assert_reason(&retrying, "maintenance flag is set");
    assert!(!node.path("started").exists());
    eventually_within(TIMEOUT, "a second attempt", || {
        let outcomes = outcomes(&node);
        if outcomes.len() > 1 { Ok(()) } else { Err(format!("{outcomes:?}")) }
    });
    node.puppet_conf(PuppetServer::shared().port(), &failing("postrun_command"));
    let done = wait_for(&node, &event, "done");
    assert_eq!(done["outcome"], "changed", "{done}");
    assert!(
        outcomes(&node).iter().filter(|outcome| *outcome != "not_run").eq(["changed"]),
        "{:?}",
        outcomes(&node)
    );
    assert_reason(&done, "the catalog was applied, but Puppet ended with exit code 1: ");
    assert_reason(&done, "postrun_command");

    // Puppet resets its exit code 0 for a stopped run if this command fails.
    let before = outcomes(&node).len();
    fs::remove_file(node.path("started")).expect("a mark of the run");
    node.hold();
    let event = fire(&node, &[]);
    wait_until_started(&node);
    signal_to_end(lock_holder(&node));
    eventually_within(TIMEOUT, "the end of that run", || {
        let outcomes = outcomes(&node);
        if outcomes.len() > before { Ok(()) } else { Err(format!("{outcomes:?}")) }
    });
    node.release();
    wait_for(&node, &event, "done");
    assert_eq!(outcomes(&node)[before..], ["interrupted", "changed"], "{:?}", results(&node));
    assert_eq!(results(&node)[before]["reason"], "ended by SIGTERM");
}

/// Proves C9.
#[test]
fn an_operators_options_take_no_job_id_away() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("options.example.test");
    node.runs_puppet_agent(
        "notify { 'x': }",
        "-t --job-id 7 --job-id=8 --no-onetime --daemonize --no-noop --no-report",
    );
    node.start_agent();
    let noop = wait_for(&node, &fire(&node, &["--noop"]), "done");
    assert_eq!(noop["noop"], true, "{noop}");
    let done = wait_for(&node, &fire(&node, &[]), "done");
    assert_eq!((&done["outcome"], &done["noop"]), (&json!("changed"), &json!(false)), "{done}");
}

#[test]
fn a_server_that_cannot_be_reached_is_waited_for() {
    let (_fleet, node) = alone("unreachable.example.test", "");
    // The certificate comes first: without one Puppet does not request a catalog.
    assert_eq!(node.puppet_agent(&["-t"]).code, 0);
    node.puppet_conf(1, "");
    let event = fire(&node, &[]);
    let retrying = wait_for(&node, &event, "retrying");
    assert_reason(&retrying, "no catalog was applied: ");
    assert_reason(&retrying, "Connection refused");
    assert_reason(&retrying, "check that the Puppet server runs");
    node.puppet_conf(PuppetServer::shared().port(), "");
    let done = wait_for(&node, &event, "done");
    assert_eq!(done["outcome"], "unchanged", "{done}");
}

#[test]
fn a_certificate_that_is_not_signed_is_named_with_what_to_do() {
    let (_fleet, node) = alone("unsigned.example.test", "");
    let event = fire(&node, &[]);
    let retrying = wait_for(&node, &event, "retrying");
    assert_reason(&retrying, "Puppet did not run: this node's certificate is not signed yet: ");
    assert_reason(&retrying, "'puppetserver ca sign --certname unsigned.example.test'");
    assert_eq!(outcomes(&node)[..1], ["not_run"]);
}

/// Proves C9.
#[test]
fn a_run_that_another_process_started_is_waited_for_and_does_not_count() {
    let (_fleet, node) = alone("busy.example.test", "");
    node.served(&slow(&node));
    node.hold();
    let mut foreign = node.start_puppet_agent(&["-t"]);
    wait_until_started(&node);
    let file = node.path("made-by-puppet");
    node.served(&format!("file {{ '{}': content => 'new' }}", file.display()));
    let event = fire(&node, &[]);
    let running = wait_for(&node, &event, "running");
    eventually_within(TIMEOUT, "a run that waits for the lock", || {
        let said = output(&node, &running);
        if said.contains("Another puppet instance is already running") { Ok(()) } else { Err(said) }
    });
    assert!(foreign.exit().is_none(), "the other run goes on");
    node.release();
    let done = wait_for(&node, &event, "done");
    assert_eq!((&done["outcome"], &done["run_id"]), (&json!("changed"), &running["run_id"]), "{done}");
    assert_eq!(fs::read_to_string(&file).expect("the file"), "new", "its catalog is from after the event");
}

#[test]
fn a_run_that_is_locked_out_too_long_is_tried_again() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("locked-out.example.test");
    node.runs_puppet_agent("", "--maxwaitforlock 1").start_agent();
    node.served(&slow(&node));
    node.hold();
    let _foreign = node.start_puppet_agent(&["-t"]);
    wait_until_started(&node);
    let holder = lock_holder(&node);
    let event = fire(&node, &[]);
    let retrying = wait_for(&node, &event, "retrying");
    assert_reason(&retrying, "the maxwaitforlock timeout has been exceeded");
    let lock = node.puppet_state("agent_catalog_run.lock");
    assert_reason(&retrying, &format!("the lock {} of process {holder} (", lock.display()));
    node.release();
    let done = wait_for(&node, &event, "done");
    assert_eq!(done["outcome"], "changed", "{done}");
}

#[test]
fn while_puppet_is_disabled_a_delivery_is_held_with_its_message() {
    const WHY: &str = r#"changing "the" disks & Bär's back on Monday"#;
    let (_fleet, node) = alone("disabled.example.test", "");
    assert_eq!(node.puppet_agent(&["--disable", WHY]).code, 0);
    let event = fire(&node, &[]);
    let held = wait_for(&node, &event, "held");
    assert_eq!(held["reason"], format!("Puppet is disabled on this node: {WHY}"));
    let queue = node.queue();
    assert_eq!(queue["held"][0]["event_id"], event.as_str(), "{queue}");
    assert_eq!(queue["held"][0]["reason"], held["reason"], "{queue}");
    assert!(results(&node).is_empty(), "nothing ran");
    let a_while = Duration::from_secs(5);
    let looks = opened_within(a_while, &node.puppet_state("agent_disabled.lock"));
    assert!((1..=6).contains(&looks), "{looks} looks within {a_while:?}");
    assert_eq!(node.puppet_agent(&["--enable"]).code, 0);
    let done = wait_for(&node, &event, "done");
    assert_eq!(done["outcome"], "unchanged", "{done}");
}

/// Runs lines of shell before Puppet, as the wrappers of some sites do.
fn before_puppet(node: &mut Node, lines: &str) {
    fs::create_dir_all(node.path("bin")).expect("a directory for a program");
    let script = format!("#!/bin/sh\ncd '{}'\n{lines}\nexec puppet \"$@\"\n", node.path("").display());
    let program = node.script("bin/puppet", &script);
    let command = format!("{} agent --confdir {}", program.display(), node.path("puppet").display());
    node.set("run_cmd", &format!("'{command}'"));
}

#[test]
fn puppet_that_is_disabled_while_its_run_starts_makes_the_delivery_held() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("raced.example.test");
    node.runs_puppet_agent("", "");
    let disable = r#"case "$*" in *--onetime*) [ -e raced ] || puppet agent --confdir puppet --disable 'in between'; touch raced;; esac"#;
    before_puppet(&mut node, disable);
    node.start_agent();
    let event = fire(&node, &[]);
    let held = wait_for(&node, &event, "held");
    assert_eq!(held["reason"], "Puppet is disabled on this node: in between");
    let run = results(&node).pop().expect("a run that was tried");
    assert_eq!(run["outcome"], "not_run");
    assert_reason(&run, "administratively disabled");
    assert!(node.queue()["waiting"][0]["retry_at"].is_null(), "no blind retry: {}", node.queue());
    assert_eq!(node.puppet_agent(&["--enable"]).code, 0);
    wait_for(&node, &event, "done");
    assert_eq!(outcomes(&node), ["not_run", "unchanged"]);
}

/// Proves C9.
#[test]
fn a_report_of_another_run_or_none_is_never_taken_for_an_outcome() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("stale.example.test");
    node.runs_puppet_agent("notify { 'x': }", "");
    // The wrapper reports success, and leaves the previous run's report in place.
    before_puppet(&mut node, r#"case "$*" in *--onetime*) exit 2;; esac"#);
    assert_eq!(node.puppet_agent(&["-t", "--job-id", "019356b0-7c4a-7000-8000-000000000001"]).code, 2);
    node.start_agent();
    let stale = wait_for(&node, &fire(&node, &[]), "failed");
    assert_eq!(stale["outcome"], "unknown", "{stale}");
    assert_reason(&stale, "last_run_report.yaml is another run's");

    let report = node.puppet_state("last_run_report.yaml");
    fs::remove_file(&report).expect("a report to remove");
    let missing = wait_for(&node, &fire(&node, &[]), "failed");
    assert_reason(&missing, "exit code 2, but there is no report in");
    fs::create_dir(&report).expect("what cannot be read as a file");
    let unreadable = wait_for(&node, &fire(&node, &[]), "failed");
    assert_reason(&unreadable, "its report cannot be read");
}

#[test]
fn a_run_that_takes_too_long_ends_with_all_that_it_started_but_daemons() {
    let fleet = Fleet::on(BackendKind::Hub);
    let mut node = fleet.node("timeout.example.test");
    node.runs_puppet_agent("", "");
    let here = node.path("");
    let daemon = format!(
        "cd {}; setsid sh -c \"echo \\$\\$ >daemon; exec sleep 600\" >daemon.log 2>&1 </dev/null &",
        here.display()
    );
    // Puppet, asked to end, continues to its next step. Its output is no longer read, which would end it.
    let stuck = format!(
        "cd {}; exec 2>/dev/null; echo $$ >stuck; trap : TERM; sleep 600; sleep 600 & echo $! >next; while :; do wait; done",
        here.display()
    );
    node.served(&format!(
        "exec {{ 'daemon': command => '{daemon}', provider => shell }}\n\
         -> exec {{ 'stuck': command => '{stuck}', provider => shell, timeout => 0 }}"
    ));
    node.set("run_timeout", "'40s'").start_agent();
    let event = fire(&node, &[]);
    let (daemon, stuck) = (process_in(&node, "daemon"), process_in(&node, "stuck"));
    let failed = wait_for(&node, &event, "failed");
    assert_eq!(failed["outcome"], "timed_out", "{failed}");
    assert_reason(&failed, "ended after 40s, the run timeout");
    assert!(!is_alive(stuck), "an exec of the run is still alive");
    assert!(!is_alive(process_in(&node, "next")), "a process that it started after SIGTERM is still alive");
    assert!(is_alive(daemon), "a daemon that left the run goes on");
    kill(daemon);
    assert!(!node.puppet_state("agent_catalog_run.lock").exists(), "Puppet has removed its lock");
    node.served("");
    wait_for(&node, &fire(&node, &[]), "done");
}

#[test]
fn a_run_that_is_stopped_or_killed_is_repeated_once() {
    let (_fleet, node) = alone("stopped.example.test", "");
    node.served(&slow(&node));
    for end in [signal_to_end as fn(u32), kill] {
        let before = outcomes(&node).len();
        node.hold();
        let event = fire(&node, &[]);
        wait_until_started(&node);
        let run = lock_holder(&node);
        end(run);
        eventually_within(TIMEOUT, "the end of the run", || {
            if is_alive(run) { Err("it lives".to_owned()) } else { Ok(()) }
        });
        node.release();
        let done = wait_for(&node, &event, "done");
        assert_eq!(done["outcome"], "changed", "{done}");
        assert_eq!(outcomes(&node)[before..], ["interrupted", "changed"], "{:?}", results(&node));
        fs::remove_file(node.path("started")).expect("a mark of the run");
    }
}

#[test]
fn a_noop_run_changes_nothing_and_says_so_whatever_asked_for_it() {
    let (_fleet, node) = alone("noop.example.test", "");
    let file = node.path("made-by-puppet");
    node.served(&format!("file {{ '{}': content => 'x' }}", file.display()));
    let asked = wait_for(&node, &fire(&node, &["--noop"]), "done");
    assert_eq!((&asked["noop"], &asked["reason"]), (&json!(true), &Value::Null), "{asked}");
    assert_eq!((&asked["noop_pending"], &asked["really_changed"]), (&json!(true), &json!(false)), "{asked}");
    assert!(output(&node, &asked).contains("(noop)"), "{}", output(&node, &asked));

    node.puppet_conf(PuppetServer::shared().port(), "noop = true");
    let own = wait_for(&node, &fire(&node, &[]), "done");
    assert_eq!(own["noop"], true, "{own}");
    assert_reason(&own, "this node's own settings made it a noop run");
    assert!(!file.exists(), "a noop run changed something");
}

#[test]
fn tags_of_puppet_conf_limit_a_run_of_the_agent_but_drop_no_notify() {
    let (_fleet, node) = alone("limited.example.test", "");
    node.served(
        "notify { 'selected': tag => 'web', notify => Trigger['t'] }
         notify { 'not selected': }
         trigger { 't': hosts => 'next.example.test' }",
    );
    node.puppet_conf(PuppetServer::shared().port(), "tags = web");
    let limited = wait_for(&node, &fire(&node, &[]), "done");
    assert_reason(&limited, "the run was limited by tags = web in puppet.conf");
    let said = output(&node, &limited);
    assert!(said.contains("Fired ") && !said.contains("not selected"), "{said}");
}

#[test]
fn a_notify_in_an_agents_run_goes_on_to_the_next_node_and_puppet_says_where_a_loop_is_cut() {
    let fleet = Fleet::on(BackendKind::Etcd);
    let origin = fleet.running("origin.example.test");
    let (mut a, mut b) = (fleet.node("chain-a.example.test"), fleet.node("chain-b.example.test"));
    // Each direction has a trigger of its own; each run changes something each time.
    a.runs_puppet_agent(
        "notify { 'tagged': tag => 'web', notify => Trigger['to b'] }
         notify { 'not selected': }
         trigger { 'to b': hosts => 'chain-b.example.test' }",
        "",
    );
    b.runs_puppet_agent("notify { 'change': } ~> trigger { 'to a': hosts => 'chain-a.example.test' }", "");
    a.start_agent();
    b.start_agent();
    let root = origin.fire(&["to a", "--tag", "web", "--host", a.certname()]).committed();
    let first = origin.wait_within(TIMEOUT, &root, a.certname(), "done");
    let said = output(&a, &first);
    assert!(!said.contains("not selected"), "only what has the tag: {said}");
    let synced = a.path("puppet/var/lib/puppet/type/trigger.rb");
    assert!(synced.exists(), "the type came from the server");

    let at_b = said.split("Fired ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or(&said);
    let second = origin.wait_within(TIMEOUT, at_b, b.certname(), "done");
    assert_eq!((&first["outcome"], &second["outcome"]), (&json!("changed"), &json!("changed")));
    let part = fleet.backend.get(&format!("/puppet_trigger/events/events/{at_b}/parts/0")).expect("an event");
    let part: Value = serde_json::from_str(&part).expect("its JSON");
    let event = &part["body"]["event"];
    let hops = json!([{ "trigger": "to a", "certname": a.certname() }]);
    assert_eq!(event["lineage"], json!([{ "root": root, "hops": hops }]));
    let said = output(&b, &second);
    assert!(said.contains("Warning: ") && said.contains("not fired at chain-a.example.test: loop"), "{said}");
}
