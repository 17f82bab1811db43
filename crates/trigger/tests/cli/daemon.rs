//! Daemons as processes of their own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use snapbox::cmd::cargo_bin;

/// How long a test waits before it fails.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A daemon that is killed if the test ends before it.
pub(crate) struct Daemon(Child);

impl Daemon {
    pub(crate) fn start(arguments: &[&str], state: &Path, log: impl Into<Stdio>) -> Self {
        Self::start_after("umask 022", arguments, state, log)
    }

    /// Starts it with what a shell command has set.
    pub(crate) fn start_after(
        setting: &str,
        arguments: &[&str],
        state: &Path,
        log: impl Into<Stdio>,
    ) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("{setting} && exec \"$0\" \"$@\"")]).arg(cargo_bin!("trigger"));
        command
            .args(arguments)
            .env_clear()
            .env("TRIGGER_CONFIG", "/dev/null")
            .env("TRIGGER_REQUIRE_SIGNATURE", "false")
            .env("TRIGGER_LOG", "debug");
        command.env("TRIGGER_STATE_DIR", state).env("TRIGGER_CERTNAME", "web01.example.com");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self(command.spawn().unwrap())
    }

    /// Asks it to stop, and waits for its end.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    pub(crate) fn ended(&mut self) -> ExitStatus {
        until("the daemon ends", || self.0.try_wait().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

pub(crate) fn is_healthy(address: &str) -> Option<()> {
    get(address, "/healthz")?.starts_with("HTTP/1.1 200").then_some(())
}

/// The hub's whole answer, if there is one.
pub(crate) fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Returns whether an event is committed at once, and not only spooled.
pub(crate) fn is_committed(address: &str, state: &Path) -> bool {
    let mut command = Command::new(cargo_bin!("trigger"));
    command.args(["fire", "x", "--host", "web01.example.com", "--backend", &format!("hub+http://{address}")]);
    command
        .args(["--output", "json"])
        .env_clear()
        .env("TRIGGER_CONFIG", "/dev/null")
        .env("TRIGGER_REQUIRE_SIGNATURE", "false");
    command.env("TRIGGER_STATE_DIR", state).env("TRIGGER_CERTNAME", "web01.example.com");
    String::from_utf8(command.output().unwrap().stdout).unwrap().contains(r#""state":"committed""#)
}

pub(crate) fn fire(address: &str, state: &Path, arguments: &[&str]) -> ExitStatus {
    let mut command = Command::new(cargo_bin!("trigger"));
    command.args(["fire", "x", "--host", "web01.example.com", "--backend", &format!("hub+http://{address}")]);
    command
        .args(arguments)
        .env_clear()
        .env("TRIGGER_CONFIG", "/dev/null")
        .env("TRIGGER_REQUIRE_SIGNATURE", "false");
    command.env("TRIGGER_STATE_DIR", state).env("TRIGGER_CERTNAME", "web01.example.com");
    command.stdout(Stdio::null()).status().unwrap()
}
