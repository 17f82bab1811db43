//! Real servers for tests: started on free loopback ports with a directory of their own, gone when dropped.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use trigger_pki::TlsFiles;

#[path = "../../../../testing/free_port.rs"]
mod free_port;
pub(crate) use free_port::free_port;

/// How long a server may take to serve. Generous: it bounds a failure, it measures nothing.
const TIMEOUT: Duration = Duration::from_secs(30);

/// One member of an etcd cluster; mostly the only one.
pub(crate) struct EtcdServer {
    child: Child,
    data: tempfile::TempDir,
    client_port: u16,
    tls_port: Option<u16>,
    flags: Vec<String>,
}

impl EtcdServer {
    /// Starts a cluster of one and waits until it serves. Panics, never skips, where there is no `etcd`.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        // Alone it need not wait a second to elect itself.
        let alone = ["--heartbeat-interval", "50", "--election-timeout", "250"];
        let server = Self::launch(&[free_port()], 0, None, &[&alone, flags].concat());
        server.serves().await
    }

    /// As [`Self::start`], with TLS on a port of its own. Clients there have to present a certificate.
    pub(crate) async fn start_with_tls(files: &TlsFiles, flags: &[&str]) -> Self {
        let alone = ["--heartbeat-interval", "50", "--election-timeout", "250", "--client-cert-auth"];
        let path = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
        let [certificate, key, ca] = [&files.certificate, &files.key, &files.ca].map(|file| path(file));
        let tls = ["--cert-file", &certificate, "--key-file", &key, "--trusted-ca-file", &ca];
        let server =
            Self::launch(&[free_port()], 0, Some(free_port()), &[alone.as_slice(), &tls, flags].concat());
        server.serves().await
    }

    /// Starts a cluster of three and waits until all of it serves.
    pub(crate) async fn start_three() -> [Self; 3] {
        let peers = [free_port(), free_port(), free_port()];
        let [a, b, c] = [0, 1, 2].map(|member| Self::launch(&peers, member, None, &[]));
        [a.serves().await, b.serves().await, c.serves().await]
    }

    /// Starts it again on its data and ports, after [`Self::kill`].
    pub(crate) async fn restart(mut self) -> Self {
        self.child = spawn(&self.data, &self.flags);
        self.serves().await
    }

    fn launch(peer_ports: &[u16], member: usize, tls_port: Option<u16>, flags: &[&str]) -> Self {
        let data = tempfile::tempdir().expect("a temporary directory");
        let client_port = free_port();
        let client = format!("http://127.0.0.1:{client_port}");
        let peer = format!("http://127.0.0.1:{}", peer_ports[member]);
        let name = format!("member{member}");
        let cluster = peer_ports.iter().enumerate();
        let cluster = cluster.map(|(member, port)| format!("member{member}=http://127.0.0.1:{port}"));
        let cluster = cluster.collect::<Vec<_>>().join(",");
        let own = ["--name", &name, "--initial-cluster", &cluster];
        let tls = tls_port.map_or_else(String::new, |port| format!(",https://127.0.0.1:{port}"));
        let listen = format!("{client}{tls}");
        let client = ["--listen-client-urls", &listen, "--advertise-client-urls", &client];
        let peer = ["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer];
        let flags: Vec<String> =
            own.iter().chain(&client).chain(&peer).chain(flags).map(|&flag| flag.to_owned()).collect();
        let child = spawn(&data, &flags);
        Self { child, data, client_port, tls_port, flags }
    }

    /// `HOST:PORT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// `HOST:PORT` of its port with TLS.
    pub(crate) fn tls_endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.tls_port.expect("a server with TLS"))
    }

    /// A client without anything of ours in between.
    pub(crate) async fn raw(&self) -> etcd_client::Client {
        etcd_client::Client::connect([self.endpoint()], None).await.expect("a raw client")
    }

    /// Makes it silent: its connections stay open, nothing answers.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on after [`Self::stop`].
    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it as a crash does; its data stays.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("an etcd to kill");
        self.child.wait().expect("an etcd to reap");
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("an etcd to signal");
    }

    async fn serves(mut self) -> Self {
        let began = Instant::now();
        loop {
            let options = etcd_client::ConnectOptions::new().with_timeout(Duration::from_secs(2));
            let client = etcd_client::Client::connect([self.endpoint()], Some(options)).await;
            if client.expect("a raw client").get("/", None).await.is_ok() {
                return self;
            }
            let ended = self.child.try_wait().expect("the state of etcd");
            if ended.is_some() || began.elapsed() > TIMEOUT {
                let log = std::fs::read_to_string(self.data.path().join("log")).unwrap_or_default();
                panic!("etcd does not serve ({ended:?}); its log:\n{log}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(data: &tempfile::TempDir, flags: &[String]) -> Child {
    let log = File::create(data.path().join("log")).expect("a log file");
    let spawned = Command::new("etcd")
        .arg("--data-dir")
        .arg(data.path().join("data"))
        .args(flags)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn();
    match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            panic!("this test needs the program 'etcd': apt-get install etcd-server")
        }
        Err(error) => panic!("cannot start etcd: {error}"),
    }
}
