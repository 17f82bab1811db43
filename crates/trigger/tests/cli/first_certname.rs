//! The first start of an agent or a hub on a node where only Puppet knows the certname and the certificates.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use crate::daemon::{Daemon, free_address, until};
use crate::state;

/// A Puppet that counts its questions and fails as long as there is no file `mended`.
fn fake_puppet(dir: &Path) -> String {
    let program = dir.join("puppet");
    let script = format!(
        "#!/bin/sh\ncd {}\necho asked >>questions\n\
         [ -e mended ] || {{ echo 'cannot load such file -- puppet' >&2; exit 1; }}\n\
         for name in agent_catalog_run_lockfile agent_disabled_lockfile lastrunreport config logdest tags skip_tags; do\n\
         echo \"$name = $PWD/$name\"\ndone\necho 'certname = web01.example.com'\n",
        dir.display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program.display().to_string()
}

fn agent(dir: &Path, run_cmd: &str, backend: &str) -> Daemon {
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    let arguments = ["agent", "--backend", backend, "--run-cmd", run_cmd];
    // No PATH has the machine's own Puppet.
    let setting = "unset TRIGGER_CERTNAME && export PATH=/nowhere";
    Daemon::start_after(setting, &arguments, &dir.join("state"), Stdio::from(log))
}

fn log(dir: &Path) -> String {
    fs::read_to_string(dir.join("log")).unwrap()
}

fn questions(dir: &Path) -> usize {
    fs::read_to_string(dir.join("questions")).unwrap_or_default().lines().count()
}

fn count(dir: &Path, words: &str) -> usize {
    log(dir).matches(words).count()
}

#[test]
fn an_agent_whose_puppet_fails_stays_and_asks_on() {
    let dir = state();
    let backend = format!("hub+http://{}", free_address());
    let mut agent = agent(dir.path(), &format!("{} agent", fake_puppet(dir.path())), &backend);
    until("it is asked again", || (questions(dir.path()) >= 2).then_some(()));
    let warning = "this node has no certname yet";
    assert_eq!(count(dir.path(), warning), 1, "{}", log(dir.path()));
    let shown = log(dir.path());
    assert!(shown.contains("cannot load such file -- puppet") && shown.contains("set certname"), "{shown}");

    // A reload reads the configuration again, which may have a certname now.
    agent.signal(rustix::process::Signal::HUP);
    until("it warns again", || (count(dir.path(), warning) == 2).then_some(()));
    fs::write(dir.path().join("mended"), "").unwrap();
    until("it starts", || (count(dir.path(), "the agent is ready") == 1).then_some(()));
    assert!(log(dir.path()).contains("web01.example.com"), "{}", log(dir.path()));
    assert!(agent.stop().success());
}

#[test]
fn what_can_never_work_ends_the_agent_at_once() {
    let dir = state();
    let puppet = format!("{} agent", fake_puppet(dir.path()));
    let mut refused = agent(dir.path(), &puppet, "dummy:");
    assert_eq!(refused.ended().code(), Some(3), "{}", log(dir.path()));
    assert_eq!(questions(dir.path()), 0, "Puppet is not asked");
    let mut nameless = agent(dir.path(), "/bin/true", &format!("hub+http://{}", free_address()));
    assert_eq!(nameless.ended().code(), Some(3), "{}", log(dir.path()));
    assert!(log(dir.path()).contains("no certname is configured"), "{}", log(dir.path()));
}

/// A hub with TLS whose Puppet runs this script.
fn hub(dir: &Path, script: &str) -> Daemon {
    let program = dir.join("puppet");
    fs::write(&program, format!("#!/bin/sh\ncd {}\necho asked >>questions\n{script}\n", dir.display()))
        .unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let config = dir.join("trigger.toml");
    fs::write(&config, format!("run_cmd = '{} agent'\n", program.display())).unwrap();
    let data = dir.join("state/hub");
    let [config, data] = [&config, &data].map(|path| path.to_str().unwrap());
    fs::create_dir_all(dir.join("state")).unwrap();
    let log = fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
    let arguments = ["hub", "--tls", "--config", config, "--listen", &free_address(), "--data-dir", data];
    Daemon::start(&arguments, &dir.join("state"), Stdio::from(log))
}

#[test]
fn a_hub_waits_for_a_slow_puppet_and_can_be_stopped_meanwhile() {
    let dir = state();
    let mut hub = hub(dir.path(), "while [ -d . ]; do sleep 0.1; done");
    until("it says so", || (count(dir.path(), "waiting for Puppet's settings") == 1).then_some(()));
    assert!(hub.stop().success(), "{}", log(dir.path()));
    assert_eq!(questions(dir.path()), 1);
}

#[test]
fn a_hub_whose_puppet_fails_ends_at_once_and_says_why() {
    let dir = state();
    let mut hub = hub(dir.path(), "echo 'cannot load such file -- puppet' >&2; exit 1");
    assert_eq!(hub.ended().code(), Some(3), "{}", log(dir.path()));
    assert!(log(dir.path()).contains("cannot load such file -- puppet"), "{}", log(dir.path()));
    assert_eq!(questions(dir.path()), 1);
}
