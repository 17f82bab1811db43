//! The original: `while true; do etcdctl watch KEY && tsp -- CMD; done`, fed by `etcdctl set`, on the v2 API.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;

use crate::process::{Background, living_children, run, wait_for};
use crate::scratch::{Scratch, free_port};
use crate::trigger::{Program, Stamps};

/// What the original's provider wrote under a node's key.
const VALUE: &str = r#"{"uuid":"0f8f6f4e-6f4e-4d5c-9f5a-2f1d3f0e9b11","tags":[],"ttl":5}"#;
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// A watch that was started is at work after this time; it says nothing when it is.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);

/// One etcd with both APIs.
pub(crate) struct Etcd {
    pub(crate) process: Background,
    /// `HOST:PORT`.
    pub(crate) address: String,
    peer: String,
}

pub(crate) fn start_etcd(scratch: &Scratch, name: &str) -> Result<Etcd> {
    let free = || Ok::<_, anyhow::Error>(format!("127.0.0.1:{}", free_port()?));
    start_etcd_at(scratch, name, free()?, free()?)
}

/// At these addresses, with the data under this name where there is any already.
fn start_etcd_at(scratch: &Scratch, name: &str, address: String, peer_address: String) -> Result<Etcd> {
    let (client, peer) = (format!("http://{address}"), format!("http://{peer_address}"));
    let mut command = Command::new("etcd");
    command
        .args(["--name", "bench", "--enable-v2", "--log-level", "error", "--data-dir"])
        .arg(scratch.path(name))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("bench={peer}")])
        .stdout(scratch.log(name)?)
        .stderr(scratch.log(name)?);
    let etcd = Etcd { process: Background::start(command)?, address, peer: peer_address };
    wait_for("the start of etcd", START_TIMEOUT, || run(etcd.v2().arg("ls")).is_ok())?;
    Ok(etcd)
}

impl Etcd {
    /// Kills it and starts it again with its data.
    pub(crate) fn kill(self) -> impl FnOnce(&Scratch, &str) -> Result<Self> {
        let Self { process, address, peer } = self;
        drop(process);
        |scratch, name| start_etcd_at(scratch, name, address, peer)
    }

    /// What fires an event at the node with this key.
    pub(crate) fn set(&self, key: &str) -> Command {
        let mut command = self.v2();
        command.args(["set", key, VALUE]).stdout(Stdio::null());
        command
    }

    fn v2(&self) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "2").args(["--endpoints", &format!("http://{}", self.address)]);
        command
    }
}

/// The loop on one node.
pub(crate) struct Loop {
    shell: Background,
    pub(crate) stamps: Stamps,
}

impl Loop {
    /// Watches `key`; `flags` tell `etcdctl` where etcd is.
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

    /// The `etcdctl watch` that runs now.
    pub(crate) fn watcher(&self) -> Option<u32> {
        let is_watch = |pid: &u32| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"etcdctl\0"))
        };
        living_children(self.shell.pid()).into_iter().find(is_watch)
    }
}

/// One node with the loop, and what fires at it.
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

    /// What fires an event.
    pub(crate) fn fire(&self) -> Command {
        self.set("node.example.com")
    }

    /// What fires an event at any node.
    pub(crate) fn set(&self, certname: &str) -> Command {
        self.etcd.set(&key(certname))
    }
}

/// What the loop of a node watches.
pub(crate) fn key(certname: &str) -> String {
    format!("/puppet_trigger/events/{certname}")
}
