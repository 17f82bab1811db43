//! The modes of everything that a daemon or a command creates, under any umask: only its owner can hold an agent's lock
//! (C11).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use snapbox::cmd::cargo_bin;

use crate::daemon::{Daemon, fire, free_address, is_healthy, until};
use crate::state;

/// All that is below a directory, and the directory itself.
fn tree(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            found.extend(tree(&entry.unwrap().path()));
        }
    }
    found
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

fn check_private(root: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for path in tree(root) {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode(&path), expected, "{} is {:o}", path.display(), mode(&path));
        names.push(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
    }
    names
}

fn check(umask: &str) {
    let state = state();
    let (agent_dir, hub_dir) = (state.path().join("agent"), state.path().join("data/hub"));
    // As an administrator may have left them.
    for dir in [&agent_dir, &hub_dir] {
        fs::create_dir_all(dir).unwrap();
        fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(agent_dir.join("agent.lock"), "").unwrap();
    fs::set_permissions(agent_dir.join("agent.lock"), Permissions::from_mode(0o666)).unwrap();
    fs::write(hub_dir.join("hub.lock"), "").unwrap();
    fs::set_permissions(hub_dir.join("hub.lock"), Permissions::from_mode(0o666)).unwrap();

    let address = free_address();
    let backend = format!("hub+http://{address}");
    let hub_arguments = ["hub", "--listen", &address, "--data-dir", hub_dir.to_str().unwrap()];
    let _hub = Daemon::start_after(&format!("umask {umask}"), &hub_arguments, &agent_dir, Stdio::null());
    until("the hub is healthy", || is_healthy(&address));
    let arguments = ["agent", "--backend", &backend, "--run-cmd", "/bin/true"];
    let _agent = Daemon::start_after(&format!("umask {umask}"), &arguments, &agent_dir, Stdio::null());
    until("the agent listens", || agent_dir.join("agent.sock").exists().then_some(()));
    assert!(fire(&address, &agent_dir, &["--wait", "--timeout", "25s"]).success());

    until("the run is closed", || agent_dir.join("runs/closed").exists().then_some(()));
    let in_agent = check_private(&agent_dir);
    for name in ["agent.lock", "agent.sock", "certname", "ended", "outbox/quarantined", "runs/closed"] {
        assert!(in_agent.iter().any(|found| found == name), "{name} in {in_agent:?}");
    }
    assert!(in_agent.iter().any(|name| name.ends_with(".log")), "a run's output");
    let in_hub = check_private(&hub_dir);
    for name in ["hub.lock", "hub.sqlite", "hub.sqlite-wal", "hub.sqlite-shm"] {
        assert!(in_hub.iter().any(|found| found == name), "{name} in {in_hub:?}");
    }
    let backup = state.path().join("backup.sqlite");
    let command = format!("umask {umask} && exec \"$0\" hub backup --data-dir \"$1\" \"$2\"");
    let backed_up = Command::new("sh")
        .args(["-c", &command])
        .args([cargo_bin!("trigger").as_os_str(), hub_dir.as_os_str(), backup.as_os_str()])
        .env("TRIGGER_CONFIG", "/dev/null")
        .env("TRIGGER_REQUIRE_SIGNATURE", "false")
        .stdout(Stdio::null())
        .status();
    assert!(backed_up.unwrap().success());
    assert_eq!(mode(&backup), 0o600);
}

#[test]
fn modes_are_not_the_umask_s_when_it_takes_nothing() {
    check("000");
}

#[test]
fn modes_are_not_the_umask_s_when_it_takes_everything() {
    check("777");
}

#[test]
fn events_that_a_command_spools_are_private_too() {
    let state = state();
    let directory = state.path().join("new/state");
    let command = "umask 000 && exec \"$0\" fire x --host lb01 --backend hub+http://127.0.0.1:9";
    let fired = Command::new("sh")
        .args(["-c", command])
        .arg(cargo_bin!("trigger"))
        .env("TRIGGER_CONFIG", "/dev/null")
        .env("TRIGGER_REQUIRE_SIGNATURE", "false")
        .env("TRIGGER_STATE_DIR", &directory)
        .env("TRIGGER_CERTNAME", "web01.example.com")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(fired.unwrap().success());
    let found = check_private(&state.path().join("new"));
    assert!(found.iter().any(|name| name.ends_with(".json")), "{found:?}");
    assert!(found.iter().any(|name| name.ends_with("backend-unreachable")), "{found:?}");
}

#[test]
fn a_backup_without_permission_says_that_it_may_not_read() {
    let state = state();
    fs::set_permissions(state.path(), Permissions::from_mode(0o755)).unwrap();
    let data = state.path().join("data");
    let address = free_address();
    let arguments = ["hub", "--listen", &address, "--data-dir", data.to_str().unwrap()];
    let _hub = Daemon::start(&arguments, state.path(), Stdio::null());
    until("the hub is healthy", || is_healthy(&address));
    let program = state.path().join("trigger");
    fs::copy(cargo_bin!("trigger"), &program).unwrap();
    for mode in [0o700, 0o755] {
        fs::set_permissions(&data, Permissions::from_mode(mode)).unwrap();
        // As an ordinary user, which takes root.
        let backup = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .args(["hub", "backup", "--config", "/dev/null", "--data-dir"])
            .arg(&data)
            .arg("/tmp/never")
            .output()
            .unwrap();
        let said = String::from_utf8(backup.stderr).unwrap();
        assert_eq!(backup.status.code(), Some(1), "{said}");
        let expected =
            format!("error: cannot read the hub's database {}/hub.sqlite: Permission denied", data.display());
        assert!(said.starts_with(&expected), "{said}");
    }
}
