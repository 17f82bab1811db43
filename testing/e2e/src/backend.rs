//! Real backends on free loopback ports.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::binary::program;
use crate::free_port;
use crate::pki::{Authority, OPERATOR, SERVER, Ssl};
use crate::polling::eventually;
use crate::process::{Process, explain};

/// The backend that a scenario runs on: with TLS, as a fleet has it, or over plain links on loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendKind {
    /// `trigger hub`, to which each node shows a certificate of the tests' Puppet CA
    Hub,
    /// etcd v3 with such certificates
    Etcd,
    /// `trigger hub` without TLS, which knows no clients
    PlainHub,
    /// etcd v3 without TLS
    PlainEtcd,
}

impl BackendKind {
    /// Returns whether it is a hub.
    pub fn is_hub(self) -> bool {
        matches!(self, Self::Hub | Self::PlainHub)
    }

    /// Returns whether its nodes need certificates.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Hub | Self::Etcd)
    }

    /// Returns the URL of such a server at `HOST:PORT`, or of several, separated by commas.
    pub fn url(self, places: &str) -> String {
        let scheme = match self {
            Self::Hub => "hub+https",
            Self::Etcd => "etcds",
            Self::PlainHub => "hub+http",
            Self::PlainEtcd => "etcd",
        };
        format!("{scheme}://{places}")
    }

    /// Returns the name of this machine that its URLs have: with TLS, a name in the server's certificate.
    pub fn host(self) -> &'static str {
        if self.is_tls() { "localhost" } else { "127.0.0.1" }
    }
}

/// A backend, which is killed when it is dropped.
#[derive(Debug)]
pub struct Backend {
    kind: BackendKind,
    port: u16,
    peer_port: u16,
    directory: PathBuf,
    /// The server's certificate; absent without TLS.
    ssl: Option<Ssl>,
    /// What its configuration has besides: lines below `[hub]`, or arguments of etcd.
    more: Vec<String>,
    /// The certificate with which the harness itself asks the server, which is good whatever that of the server is.
    own: Ssl,
    process: Process,
}

impl Backend {
    /// Starts a backend whose data lies in `directory`, and waits until it serves.
    pub fn start(kind: BackendKind, directory: &Path) -> Self {
        let ssl = kind.is_tls().then(|| Authority::puppet().server(&directory.join("ssl")));
        Self::start_with(kind, directory, ssl)
    }

    /// Starts such a backend with this certificate.
    pub fn start_with(kind: BackendKind, directory: &Path, ssl: Option<Ssl>) -> Self {
        let (port, peer_port) = (free_port(), free_port());
        std::fs::create_dir_all(directory).expect("a directory for the backend");
        let process = launch(kind, port, peer_port, directory, ssl.as_ref(), &[]);
        let own = Ssl::at(&directory.join("harness"), SERVER);
        if ssl.is_some() {
            Authority::puppet().server(own.directory());
        }
        let (directory, more) = (directory.to_owned(), Vec::new());
        let mut backend = Self { kind, port, peer_port, directory, ssl, more, own, process };
        backend.wait_until_it_serves();
        backend
    }

    /// Returns the URL for `--backend`.
    pub fn url(&self) -> String {
        self.kind.url(&format!("{}:{}", self.kind.host(), self.port))
    }

    /// Returns its kind.
    pub fn kind(&self) -> BackendKind {
        self.kind
    }

    /// Returns the port on which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the files of the server's certificate; panics if it has none.
    pub fn ssl(&self) -> &Ssl {
        self.ssl.as_ref().expect("a backend with TLS")
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
        self.process = self.launch();
        self.wait_until_it_serves();
    }

    /// Starts it anew with more lines below `[hub]`, or more arguments of etcd.
    pub fn restart_with(&mut self, more: &[String]) {
        self.kill();
        self.more = more.to_vec();
        self.restart();
    }

    fn launch(&self) -> Process {
        launch(self.kind, self.port, self.peer_port, &self.directory, self.ssl.as_ref(), &self.more)
    }

    /// Returns what it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Asks it to stop, and returns its exit code.
    pub fn stop(&mut self) -> i32 {
        self.process.terminate();
        self.process.wait()
    }

    /// Starts a hub again after [`Self::stop`] that serves, but may not be healthy.
    pub fn restart_unhealthy(&mut self) {
        self.process = self.launch();
        eventually("a hub that listens", || {
            TcpStream::connect(("127.0.0.1", self.port)).map(drop).map_err(|_| self.process.log())
        });
    }

    /// Returns the status and the document with which a hub answers `/healthz`.
    pub fn health(&self) -> (u16, Value) {
        self.exchange("GET", "/healthz", "")
    }

    /// Returns the path of its data.
    pub fn data_dir(&self) -> PathBuf {
        data_dir(&self.directory)
    }

    /// Stores a value under a key, without any of Trigger's checks.
    pub fn put(&self, key: &str, value: &str) {
        if self.kind.is_hub() {
            let (status, reply) =
                self.post("/v1/put", &json!({ "entries": [{ "key": key, "value": value }] }));
            assert_eq!(status, 200, "{reply}");
        } else {
            self.etcdctl(&["put", "--", key, value]);
        }
    }

    /// Stores a value with the certificate of a node, past that node's own program.
    ///
    /// # Errors
    /// What the backend says where it refuses; a hub's answer begins with its status.
    pub fn put_as(&self, ssl: &Ssl, key: &str, value: &str) -> Result<(), String> {
        if !self.kind.is_hub() {
            return self.etcdctl_as(ssl, &["put", "--", key, value]).map(drop);
        }
        let entries = json!({ "entries": [{ "key": key, "value": value }] });
        match self.post_as(ssl, "/v1/put", &entries) {
            (200, _) => Ok(()),
            (status, reply) => Err(format!("{status} {reply}")),
        }
    }

    /// Removes a key, as an operator would.
    pub fn delete(&self, key: &str) {
        if self.kind.is_hub() {
            let (status, reply) = self.post("/v1/delete", &json!({ "keys": [key] }));
            assert_eq!(status, 200, "{reply}");
        } else {
            self.etcdctl(&["del", "--", key]);
        }
    }

    /// Returns the value under a key, if there is one.
    pub fn get(&self, key: &str) -> Option<String> {
        if self.kind.is_hub() {
            let (status, reply) = self.post("/v1/read", &json!({ "ranges": [{ "key": key }] }));
            assert_eq!(status, 200, "{reply}");
            return reply["entries"][0]["value"].as_str().map(str::to_owned);
        }
        let value = self.etcdctl(&["get", "--print-value-only", "--", key]);
        (!value.is_empty()).then(|| value.trim_end_matches('\n').to_owned())
    }

    /// Sends a request to the hub's HTTP API and returns the status and the document of the answer. With TLS it is the
    /// hub's own certname that asks.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.exchange("POST", path, &body.to_string())
    }

    /// Sends such a request with the certificate of a node.
    pub fn post_as(&self, ssl: &Ssl, path: &str, body: &Value) -> (u16, Value) {
        self.exchange_over_tls(ssl, "POST", path, &body.to_string())
    }

    fn exchange(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        if self.kind.is_tls() {
            return self.exchange_over_tls(&self.own, method, path, body);
        }
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\nContent-Length: \
             {}\r\nConnection: close\r\n\r\n{body}",
            self.port,
            body.len()
        );
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("a connection to the hub");
        stream.write_all(request.as_bytes()).expect("a request to the hub");
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("the hub's answer");
        let text = String::from_utf8_lossy(&bytes);
        let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, serde_json::from_str(body).unwrap_or_default())
    }

    /// The status is 0 if there is no connection.
    fn exchange_over_tls(&self, ssl: &Ssl, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut command = Command::new("curl");
        // The server's certificate may be a bad one, which is what a test is about.
        command.args(["--silent", "--insecure", "--request", method]);
        // The body may be larger than an argument. curl reads it whole before it connects.
        command.args([
            "--header",
            "Content-Type: application/json",
            "--header",
            "Expect:",
            "--data-binary",
            "@-",
        ]);
        command.args(["--write-out", "\n%{http_code}"]);
        command.arg("--cert").arg(ssl.certificate()).arg("--key").arg(ssl.key());
        command.arg(format!("https://localhost:{}{path}", self.port));
        let curl = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut curl = curl.unwrap_or_else(|error| panic!("{}", explain(&command, "curl", &error)));
        // It may have ended before, because of a file that it cannot read.
        let _ = curl.stdin.take().map(|mut stdin| stdin.write_all(body.as_bytes()));
        let output = curl.wait_with_output().expect("the output of curl");
        let said = String::from_utf8_lossy(&output.stdout);
        let (body, status) = said.rsplit_once('\n').unwrap_or(("", "0"));
        (status.parse().unwrap_or_default(), serde_json::from_str(body).unwrap_or_default())
    }

    /// Returns `etcdctl` for this server.
    fn etcdctl_command(&self) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3");
        etcd_client(&mut command, self.port, self.kind.is_tls().then_some(&self.own));
        command
    }

    fn etcdctl(&self, arguments: &[&str]) -> String {
        let mut command = self.etcdctl_command();
        said(command.args(arguments)).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Runs `etcdctl ARGUMENTS` with the certificate of a node.
    ///
    /// # Errors
    /// What it says where it fails.
    pub fn etcdctl_as(&self, ssl: &Ssl, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new("etcdctl");
        said(command.envs(self.etcdctl_settings(ssl)).args(arguments))
    }

    /// Returns the variables with which `etcdctl` has the certificate of a node.
    pub fn etcdctl_settings(&self, ssl: &Ssl) -> Vec<(&'static str, String)> {
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        vec![
            ("ETCDCTL_API", "3".to_owned()),
            ("ETCDCTL_ENDPOINTS", format!("https://localhost:{}", self.port)),
            ("ETCDCTL_CACERT", path(ssl.ca())),
            ("ETCDCTL_CERT", path(ssl.certificate())),
            ("ETCDCTL_KEY", path(ssl.key())),
            ("ETCDCTL_DIAL_TIMEOUT", "2s".to_owned()),
            ("ETCDCTL_COMMAND_TIMEOUT", "5s".to_owned()),
        ]
    }

    fn wait_until_it_serves(&mut self) {
        eventually("a backend that serves", || {
            let log = self.process.log();
            if let Some(code) = self.process.exit() {
                panic!("the backend ended with {code}; its log:\n{log}");
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_err() {
                return Err(log);
            }
            let serves = if self.kind.is_hub() {
                self.health().0 == 200
            } else {
                // etcd listens from its first moment, but serves only once it reports so.
                let mut command = self.etcdctl_command();
                command.args(["--command-timeout", "2s", "get", "/"]);
                let output = command.output();
                let output =
                    output.unwrap_or_else(|error| panic!("{}", explain(&command, "etcd-client", &error)));
                output.status.success()
            };
            if serves { Ok(()) } else { Err(log) }
        });
    }
}

/// What `etcdctl` prints, or the error that it prints.
fn said(command: &mut Command) -> Result<String, String> {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{}", explain(command, "etcd-client", &error)));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn data_dir(directory: &Path) -> PathBuf {
    directory.join("data")
}

fn launch(
    kind: BackendKind,
    port: u16,
    peer_port: u16,
    directory: &Path,
    ssl: Option<&Ssl>,
    more: &[String],
) -> Process {
    let log = directory.join("log");
    if kind.is_hub() {
        let mut command = Command::new(program());
        let config = directory.join("trigger.toml");
        let settings = ssl.map_or_else(String::new, |ssl| {
            format!("tls = {}\n[hub]\ntls = true\noperators = ['{OPERATOR}']\n", ssl.table())
        });
        let more = more.iter().map(|line| format!("{line}\n"));
        std::fs::write(&config, settings + &more.collect::<String>()).expect("a configuration of the hub");
        command.args(["hub", "--listen", &format!("127.0.0.1:{port}"), "--config"]).arg(config);
        command.arg("--data-dir").arg(data_dir(directory));
        return Process::start(&mut command, &log, "trigger");
    }
    let mut command = Command::new("etcd");
    command.arg("--data-dir").arg(data_dir(directory)).args(["--name", "only"]);
    let peer = etcd_server(&mut command, port, peer_port, ssl);
    command.args(["--initial-cluster", &format!("only={peer}")]).args(more);
    // A single member need not wait a second to elect itself.
    command.args(["--heartbeat-interval", "50", "--election-timeout", "250"]);
    Process::start(&mut command, &log, "etcd-server")
}

/// Gives an etcd its ports and, with a certificate, TLS for its clients, who need certificates then. Returns the URL
/// for its peers.
pub(crate) fn etcd_server(command: &mut Command, port: u16, peer_port: u16, ssl: Option<&Ssl>) -> String {
    let scheme = if ssl.is_some() { "https" } else { "http" };
    let (client, peer) = (format!("{scheme}://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    if let Some(ssl) = ssl {
        command.arg("--cert-file").arg(ssl.certificate()).arg("--key-file").arg(ssl.key());
        command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(ssl.ca());
    }
    peer
}

/// Makes `etcdctl` ask the etcd on a port of this machine, with TLS if it has a certificate for that.
pub(crate) fn etcd_client(command: &mut Command, port: u16, ssl: Option<&Ssl>) {
    command.arg("--endpoints");
    match ssl {
        None => command.arg(format!("127.0.0.1:{port}")),
        Some(ssl) => {
            command.arg(format!("https://localhost:{port}")).arg("--insecure-skip-tls-verify");
            command.arg("--cert").arg(ssl.certificate()).arg("--key").arg(ssl.key())
        }
    };
}
