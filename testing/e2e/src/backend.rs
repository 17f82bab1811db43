//! Real backends on free loopback ports.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::binary::program;
use crate::polling::eventually;
use crate::process::{Process, explain};

/// The range from which ports are drawn.
const PORTS: std::ops::Range<u16> = 10_000..32_768;

/// The backend that a scenario runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendKind {
    /// `trigger hub`
    Hub,
    /// etcd v3
    Etcd,
}

/// A backend, which is killed when it is dropped.
#[derive(Debug)]
pub struct Backend {
    kind: BackendKind,
    port: u16,
    peer_port: u16,
    directory: PathBuf,
    process: Process,
}

impl Backend {
    /// Starts a backend whose data lies in `directory`, and waits until it serves.
    pub fn start(kind: BackendKind, directory: &Path) -> Self {
        let (port, peer_port) = (free_port(), free_port());
        std::fs::create_dir_all(directory).expect("a directory for the backend");
        let process = launch(kind, port, peer_port, directory);
        let mut backend = Self { kind, port, peer_port, directory: directory.to_owned(), process };
        backend.wait_until_it_serves();
        backend
    }

    /// Returns the URL for `--backend`.
    pub fn url(&self) -> String {
        match self.kind {
            BackendKind::Hub => format!("hub+http://127.0.0.1:{}", self.port),
            BackendKind::Etcd => format!("etcd://127.0.0.1:{}", self.port),
        }
    }

    /// Returns its kind.
    pub fn kind(&self) -> BackendKind {
        self.kind
    }

    /// Returns the port on which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Sends SIGKILL; its data and its port stay.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again after [`Self::kill`], with its data and its port.
    pub fn restart(&mut self) {
        self.process = launch(self.kind, self.port, self.peer_port, &self.directory);
        self.wait_until_it_serves();
    }

    /// Asks it to stop, and returns its exit code.
    pub fn stop(&mut self) -> i32 {
        self.process.terminate();
        self.process.wait()
    }

    /// Starts a hub again after [`Self::stop`] that serves, but may not be healthy.
    pub fn restart_unhealthy(&mut self) {
        self.process = launch(self.kind, self.port, self.peer_port, &self.directory);
        eventually("a hub that listens", || {
            TcpStream::connect(("127.0.0.1", self.port)).map(drop).map_err(|_| self.process.log())
        });
    }

    /// Returns the status and the document with which a hub answers `/healthz`.
    pub fn health(&self) -> (u16, Value) {
        self.exchange(&format!(
            "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\n\r\n",
            self.port
        ))
    }

    /// Returns the path of its data.
    pub fn data_dir(&self) -> PathBuf {
        data_dir(&self.directory)
    }

    /// Stores a value under a key, without any of Trigger's checks.
    pub fn put(&self, key: &str, value: &str) {
        match self.kind {
            BackendKind::Hub => {
                let (status, reply) =
                    self.post("/v1/put", &json!({ "entries": [{ "key": key, "value": value }] }));
                assert_eq!(status, 200, "{reply}");
            }
            BackendKind::Etcd => drop(self.etcdctl(&["put", "--", key, value])),
        }
    }

    /// Removes a key, as an operator would.
    pub fn delete(&self, key: &str) {
        match self.kind {
            BackendKind::Hub => {
                let (status, reply) = self.post("/v1/delete", &json!({ "keys": [key] }));
                assert_eq!(status, 200, "{reply}");
            }
            BackendKind::Etcd => drop(self.etcdctl(&["del", "--", key])),
        }
    }

    /// Returns the value under a key, if there is one.
    pub fn get(&self, key: &str) -> Option<String> {
        match self.kind {
            BackendKind::Hub => {
                let (status, reply) = self.post("/v1/read", &json!({ "ranges": [{ "key": key }] }));
                assert_eq!(status, 200, "{reply}");
                reply["entries"][0]["value"].as_str().map(str::to_owned)
            }
            BackendKind::Etcd => {
                let value = self.etcdctl(&["get", "--print-value-only", "--", key]);
                (!value.is_empty()).then(|| value.trim_end_matches('\n').to_owned())
            }
        }
    }

    /// Sends a request to the hub's HTTP API and returns the status and the document of the answer.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.port,
            body.len()
        );
        self.exchange(&format!("{head}{body}"))
    }

    fn exchange(&self, request: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a connection to the hub");
        stream.write_all(request.as_bytes()).expect("a request to the hub");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("the hub's answer");
        let text = String::from_utf8_lossy(&bytes);
        let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, serde_json::from_str(body).unwrap_or_default())
    }

    fn etcdctl(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(format!("127.0.0.1:{}", self.port));
        command.args(arguments);
        let output = command.output();
        let output = output.unwrap_or_else(|error| panic!("{}", explain(&command, "etcd-client", &error)));
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn wait_until_it_serves(&mut self) {
        eventually("a backend that serves", || {
            let log = self.process.log();
            if let Some(code) = self.process.exit() {
                panic!("the backend ended with {code}; its log:\n{log}");
            }
            match self.kind {
                BackendKind::Hub => {
                    if TcpStream::connect(("127.0.0.1", self.port)).is_err() {
                        return Err(log);
                    }
                    if self.health().0 == 200 { Ok(()) } else { Err(log) }
                }
                // etcd listens from its first moment, but serves only once it reports so.
                BackendKind::Etcd => {
                    let mut command = Command::new("etcdctl");
                    command.env("ETCDCTL_API", "3").args(["--command-timeout", "2s", "--endpoints"]);
                    command.arg(format!("127.0.0.1:{}", self.port)).args(["get", "/"]);
                    let output = command.output();
                    let output =
                        output.unwrap_or_else(|error| panic!("{}", explain(&command, "etcd-client", &error)));
                    if output.status.success() { Ok(()) } else { Err(log) }
                }
            }
        });
    }
}

fn data_dir(directory: &Path) -> PathBuf {
    directory.join("data")
}

fn launch(kind: BackendKind, port: u16, peer_port: u16, directory: &Path) -> Process {
    let log = directory.join("log");
    match kind {
        BackendKind::Hub => {
            let mut command = Command::new(program());
            command.args(["hub", "--listen", &format!("127.0.0.1:{port}"), "--config", "/dev/null"]);
            command.arg("--data-dir").arg(data_dir(directory));
            Process::start(&mut command, &log, "trigger")
        }
        BackendKind::Etcd => {
            let (client, peer) =
                (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
            let mut command = Command::new("etcd");
            command.arg("--data-dir").arg(data_dir(directory)).args(["--name", "only"]);
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command.args(["--initial-cluster", &format!("only={peer}")]);
            // A single member need not wait a second to elect itself.
            command.args(["--heartbeat-interval", "50", "--election-timeout", "250"]);
            Process::start(&mut command, &log, "etcd-server")
        }
    }
}

/// Returns a loopback port that nothing listens on. It has five digits, and lies below the ephemeral ports: a client
/// could take one of those while its server is killed, and the server could not start again.
pub fn free_port() -> u16 {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(PORTS)).find(is_free).expect("a free port")
}
