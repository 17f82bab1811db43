//! An etcd server with both APIs: the original watches keys of v2, Trigger keys of v3.

use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use trigger_pki::TlsFiles;

use crate::free_port::free_port;
use crate::process::{Background, run, wait_for};
use crate::scratch::Scratch;

/// The value that the original's provider wrote under a node's key.
const VALUE: &str = r#"{"uuid":"0f8f6f4e-6f4e-4d5c-9f5a-2f1d3f0e9b11","tags":[],"ttl":5}"#;
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// One etcd server with both APIs.
pub(crate) struct Etcd {
    pub(crate) process: Background,
    /// `HOST:PORT`.
    pub(crate) address: String,
    peer: String,
    name: String,
    tls: Option<TlsFiles>,
}

/// Starts a server on free ports, with its data under this name.
pub(crate) fn start(scratch: &Scratch, name: &str) -> Result<Etcd> {
    let free = || format!("127.0.0.1:{}", free_port());
    start_at(scratch, name, free(), free(), None)
}

/// Starts a server that asks its clients for certificates, and serves no keys of v2.
pub(crate) fn start_with_tls(scratch: &Scratch, name: &str, tls: TlsFiles) -> Result<Etcd> {
    let free = || format!("127.0.0.1:{}", free_port());
    start_at(scratch, name, free(), free(), Some(tls))
}

/// Starts a server at these addresses, with the data under this name if there is any already.
fn start_at(
    scratch: &Scratch,
    name: &str,
    address: String,
    peer_address: String,
    tls: Option<TlsFiles>,
) -> Result<Etcd> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let (client, peer) = (format!("{scheme}://{address}"), format!("http://{peer_address}"));
    let mut command = Command::new("etcd");
    command
        .args(["--name", "bench", "--enable-v2", "--log-level", "error", "--data-dir"])
        .arg(scratch.path(name))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("bench={peer}")])
        .stdout(scratch.log(name)?)
        .stderr(scratch.log(name)?);
    if let Some(files) = &tls {
        command.arg("--cert-file").arg(&files.certificate).arg("--key-file").arg(&files.key);
        command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(&files.ca);
    }
    let etcd = Etcd {
        process: Background::start(command)?,
        address,
        peer: peer_address,
        name: name.to_owned(),
        tls,
    };
    wait_for("the start of etcd", START_TIMEOUT, || match &etcd.tls {
        Some(_) => TcpStream::connect(&etcd.address).is_ok(),
        None => run(etcd.v2().arg("ls")).is_ok(),
    })?;
    Ok(etcd)
}

impl Etcd {
    /// Kills the server. The closure that is returned starts it again with its data.
    pub(crate) fn kill(self) -> impl FnOnce(&Scratch) -> Result<Self> {
        let Self { process, address, peer, name, tls } = self;
        drop(process);
        move |scratch| start_at(scratch, &name, address, peer, tls)
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "etcds" } else { "etcd" }, self.address)
    }

    /// Returns the command that fires an event at the node with this key.
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
