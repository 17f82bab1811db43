//! The log of the daemons: nothing waits for it, and nothing in it controls a terminal or makes lines of its own (C8).

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::path::Path;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::daemon::{Daemon, fire, free_address, is_healthy, until};
use crate::state;

/// A pipe into which not one more byte fits.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'.'; 4096]).is_ok() {}
    while writer.write(b".").is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

#[test]
fn daemons_work_and_stop_although_their_log_is_not_read() {
    let state = state();
    let (agent_dir, hub_dir) = (state.path().join("agent"), state.path().join("hub"));
    let address = free_address();
    let backend = format!("hub+http://{address}");
    let (_unread, log) = full_pipe();
    let hub_arguments = ["hub", "--listen", &address, "--data-dir", hub_dir.to_str().unwrap()];
    let mut hub = Daemon::start(&hub_arguments, &agent_dir, log);
    until("the hub is healthy", || is_healthy(&address));
    let (mut unread, log) = full_pipe();
    let arguments = ["agent", "--backend", &backend, "--run-cmd", "/bin/true", "--runs-per-minute", "600"];
    let mut agent = Daemon::start(&arguments, &agent_dir, log);
    for _ in 0..3 {
        assert!(fire(&address, &agent_dir, &["--wait", "--timeout", "25s"]).success(), "a run, and its end");
    }
    assert!(agent.stop().success());
    assert!(hub.stop().success());
    drop(agent);
    let mut text = String::new();
    unread.read_to_string(&mut text).unwrap();
    assert!(!text.contains("run ended"), "the pipe was full until the end");
}

#[test]
fn a_daemon_that_fails_ends_although_its_log_is_not_read() {
    let state = state();
    let (_unread, log) = full_pipe();
    let mut hub = Daemon::start(&["hub", "--tls=false", "--listen", "192.0.2.1:80"], state.path(), log);
    assert_eq!(hub.ended().code(), Some(3));
}

#[test]
fn a_daemon_that_ends_has_written_its_log() {
    let state = state();
    let (mut log, writer) = io::pipe().unwrap();
    let mut hub = Daemon::start(&["hub", "--tls=false", "--listen", "192.0.2.1:80"], state.path(), writer);
    assert_eq!(hub.ended().code(), Some(3));
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    assert!(text.contains("error: refusing to listen on 192.0.2.1:80"), "{text}");
}

#[test]
fn a_line_of_the_log_is_one_line_whatever_it_repeats() {
    let state = state();
    let config = state.path().join("trigger.toml");
    std::fs::write(&config, "certname = \"web01.example.com\"\n").unwrap();
    let data = state.path().join("data\u{1b}[2J\nERROR forged\u{202e}");
    let (mut log, writer) = io::pipe().unwrap();
    let arguments = ["hub", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
    let mut hub = Daemon::start(&arguments, state.path(), writer);
    let mut text = String::new();
    until("the hub is ready", || {
        let mut bytes = [0; 4096];
        let count = log.read(&mut bytes).unwrap();
        text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        text.contains("hub is ready").then_some(())
    });
    assert!(hub.stop().success());
    log.read_to_string(&mut text).unwrap();
    assert!(text.contains(r"data\u{1b}[2J ERROR forged\u{202e}"), "{text}");
    assert!(!text.contains(['\u{1b}', '\u{202e}']) && !text.contains("\nERROR"), "{text}");
}

/// Starts a hub, removes a part of its data directory, and returns its exit code and its log.
fn hub_after(state: &Path, remove: impl FnOnce(&Path)) -> (Option<i32>, String) {
    let data = state.join("data");
    let arguments = ["hub", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
    let (mut log, writer) = io::pipe().unwrap();
    let mut hub = Daemon::start(&arguments, state, writer);
    let mut text = String::new();
    until("the hub is ready", || {
        let mut bytes = [0; 4096];
        let count = log.read(&mut bytes).unwrap();
        text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        text.contains("hub is ready").then_some(())
    });
    remove(&data);
    let code = hub.ended().code();
    log.read_to_string(&mut text).unwrap();
    (code, text)
}

fn check_data_gone(remove: impl FnOnce(&Path)) {
    let state = state();
    let (code, text) = hub_after(state.path(), remove);
    assert_eq!(code, Some(5));
    assert!(
        text.contains("error: ") && text.contains("was removed or replaced while the hub used it"),
        "{text}"
    );
    let data = state.path().join("data");
    let arguments = ["hub", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
    let (mut log, writer) = io::pipe().unwrap();
    let mut hub = Daemon::start(&arguments, state.path(), writer);
    assert_eq!(hub.ended().code(), Some(5), "it is not started again by a service manager");
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    assert!(text.contains("to begin with an empty one"), "{text}");
}

#[test]
fn a_hub_whose_data_are_gone_ends_with_a_code_of_its_own_and_stays_so() {
    check_data_gone(|data| std::fs::remove_file(data.join("hub.sqlite")).unwrap());
    check_data_gone(|data| std::fs::remove_dir_all(data).unwrap());
}

#[test]
fn a_hub_whose_lock_is_gone_is_started_again_by_a_service_manager() {
    let state = state();
    let (code, text) = hub_after(state.path(), |data| std::fs::remove_file(data.join("hub.lock")).unwrap());
    assert_eq!(code, Some(1));
    assert!(text.contains("the database is untouched: start the hub again"), "{text}");
}
