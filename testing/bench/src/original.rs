//! The original: `while true; do etcdctl watch KEY && tsp -- CMD; done`, fed by `etcdctl set`, on the v2 API.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::etcd::Etcd;
use crate::process::{Background, living_children, wait_for};
use crate::scratch::Scratch;
use crate::trigger::{Program, Stamps};

const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The time after which a watch that was started is active; the watch itself does not report that.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);

/// The loop of one node.
pub(crate) struct Loop {
    shell: Background,
    pub(crate) stamps: Stamps,
}

impl Loop {
    /// Watches `key`; `flags` are the options with which `etcdctl` finds etcd.
    pub(crate) fn start(
        scratch: &Scratch,
        program: &Program,
        name: &str,
        flags: &[&str],
        key: &str,
    ) -> Result<Self> {
        let stamps = Stamps::new(scratch.path(&format!("{name}.stamps")));
        let mut shell = Command::new("bash");
        shell
            .args([
                "-c",
                r#"while true; do etcdctl "${@:5}" watch "$1" && tsp -- "$2" "$3" "$4"; done"#,
                "loop",
            ])
            .arg(key)
            .arg(&program.stamp)
            .arg(stamps.path())
            .arg(Stamps::RUN_MS)
            .args(flags)
            .env("ETCDCTL_API", "2")
            .env("TS_SOCKET", scratch.path(&format!("{name}.tsp")))
            .env("TMPDIR", scratch.directory(&format!("{name}-output"))?)
            .stdout(scratch.log(name)?)
            .stderr(scratch.log(name)?);
        let watching = Self { shell: Background::start(shell)?, stamps };
        wait_for("the start of the original's watch", START_TIMEOUT, || watching.watcher().is_some())?;
        Ok(watching)
    }

    /// Returns the process id of the current `etcdctl watch`.
    pub(crate) fn watcher(&self) -> Option<u32> {
        let is_watch = |pid: &u32| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"etcdctl\0"))
        };
        living_children(self.shell.pid()).into_iter().find(is_watch)
    }
}

/// One node with the loop, and the server through which events are fired at it.
pub(crate) struct Original<'a> {
    etcd: &'a Etcd,
    node: Loop,
}

impl<'a> Original<'a> {
    pub(crate) fn start(scratch: &Scratch, etcd: &'a Etcd, program: &Program) -> Result<Self> {
        let url = format!("http://{}", etcd.address);
        let node =
            Loop::start(scratch, program, "original", &["--endpoints", &url], &key("node.example.com"))?;
        std::thread::sleep(CONNECT_TIMEOUT);
        Ok(Self { etcd, node })
    }

    pub(crate) fn stamps(&self) -> &Stamps {
        &self.node.stamps
    }

    pub(crate) fn watcher(&self) -> Option<u32> {
        self.node.watcher()
    }

    /// Returns the command that fires an event.
    pub(crate) fn fire(&self) -> Command {
        self.set("node.example.com")
    }

    /// Returns the command that fires an event at any node.
    pub(crate) fn set(&self, certname: &str) -> Command {
        self.etcd.set(&key(certname))
    }
}

/// Returns the key that a node's loop watches.
pub(crate) fn key(certname: &str) -> String {
    format!("/puppet_trigger/events/{certname}")
}
