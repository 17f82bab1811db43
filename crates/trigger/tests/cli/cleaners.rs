//! Directories and files of a running agent that something else removes, such as a cleaner of temporary files.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use crate::daemon::{Daemon, fire, free_address, is_healthy, until};
use crate::state;

/// Removes a directory, although its owner may write to it meanwhile.
fn remove(directory: &Path) {
    until("the directory is removed", || match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => None,
        removed => {
            removed.unwrap();
            Some(())
        }
    });
}

#[test]
fn what_was_removed_comes_back_and_events_are_delivered() {
    let state = state();
    let (agent_dir, hub_dir) = (state.path().join("agent"), state.path().join("hub"));
    let address = free_address();
    let backend = format!("hub+http://{address}");
    let hub_arguments = ["hub", "--listen", &address, "--data-dir", hub_dir.to_str().unwrap()];
    let _hub = Daemon::start(&hub_arguments, &agent_dir, Stdio::null());
    until("the hub is healthy", || is_healthy(&address));
    // The first run waits for a file, so that its directory can be removed meanwhile.
    let script = state.path().join("run.sh");
    let (held, release) = (state.path().join("held"), state.path().join("release"));
    let text = format!(
        "#!/bin/sh\n[ -e {0} ] && exit 0\n: >{0}\nuntil [ -e {1} ]; do sleep 0.05; done\n",
        held.display(),
        release.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let arguments =
        ["agent", "--backend", &backend, "--run-cmd", script.to_str().unwrap(), "--runs-per-minute", "600"];
    let mut agent = Daemon::start(&arguments, &agent_dir, Stdio::null());
    until("the agent listens", || agent_dir.join("agent.sock").exists().then_some(()));

    let wait = ["--wait", "--timeout", "25s"];
    let running = std::thread::spawn({
        let (address, agent_dir) = (address.clone(), agent_dir.clone());
        move || fire(&address, &agent_dir, &wait)
    });
    until("the run is held", || held.exists().then_some(()));
    remove(&agent_dir.join("runs"));
    fs::write(&release, "").unwrap();
    assert!(running.join().unwrap().success(), "a run whose files were removed ends well");

    for name in ["runs", "outbox", "outbox/quarantined"] {
        remove(&agent_dir.join(name));
        assert!(fire(&address, &agent_dir, &wait).success(), "without {name}");
        assert!(agent_dir.join(name).exists() || name.starts_with("outbox"), "{name}");
    }
    for name in ["ended", "agent.sock", "fires"] {
        let _ = fs::remove_file(agent_dir.join(name));
        assert!(fire(&address, &agent_dir, &wait).success(), "without {name}");
    }
    until("the agent listens again", || agent_dir.join("agent.sock").exists().then_some(()));
    assert!(agent_dir.join("ended").exists());
    assert!(agent.stop().success());
}

/// C11: without its lock another agent could run there.
#[test]
fn an_agent_whose_lock_or_directory_is_gone_ends_and_says_so() {
    for removes_all in [true, false] {
        let state = state();
        let agent_dir = state.path().join("agent");
        let arguments = ["agent", "--backend", "hub+http://127.0.0.1:9", "--run-cmd", "/bin/true"];
        let (mut log, writer) = io::pipe().unwrap();
        let mut agent = Daemon::start(&arguments, &agent_dir, writer);
        until("the agent listens", || agent_dir.join("agent.sock").exists().then_some(()));
        if removes_all {
            remove(&agent_dir);
        } else {
            fs::remove_file(agent_dir.join("agent.lock")).unwrap();
        }
        assert_eq!(agent.ended().code(), Some(1));
        let mut text = String::new();
        log.read_to_string(&mut text).unwrap();
        assert!(text.contains("was removed or replaced while the agent used it"), "{text}");
    }
}
