//! The testbed of a trial: a real backend and twenty real agents in one scratch directory, each node behind links of
//! its own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Handle;
use trigger_e2e::{Authority, BackendKind, Node, OPERATOR, eventually_within};
use trigger_pki::{LazyPki, TlsFiles};
use trigger_store::backend::Backend;
use trigger_store::credentials::Credentials;
use trigger_store::store::Store;
use trigger_store::url::BackendUrl;

use crate::backend::FaultyBackend;
use crate::fleet::{DIRECT, NODES, certname, groups_of};
use crate::link::{Link, Mode};

/// The time that the fleet may take to become quiet. It is generous, since it bounds a failure and measures nothing.
pub(crate) const QUIET_TIMEOUT: Duration = Duration::from_secs(240);

/// A backend and the nodes around it.
pub(crate) struct Testbed {
    kind: BackendKind,
    directory: PathBuf,
    backend: Mutex<FaultyBackend>,
    nodes: Vec<Mutex<Node>>,
    /// For each node a link to each of the backend's ports; empty for nodes that connect to it directly.
    links: Vec<Vec<Link>>,
    /// An operator without an agent, who queries the backend without any link in between.
    observer: Mutex<Node>,
    runtime: Handle,
    /// The keys that a restored hub had lost.
    forgotten: Mutex<BTreeSet<String>>,
    /// Sentences about processes that ended without a fault.
    deaths: Mutex<Vec<String>>,
}

impl Testbed {
    /// Starts a backend and twenty agents, and waits until all are registered: from then on they are members of their
    /// groups.
    pub(crate) fn start(kind: BackendKind, directory: &Path, runtime: &Handle) -> anyhow::Result<Self> {
        let backend = FaultyBackend::start(kind, &directory.join("backend"));
        let ports = backend.ports();
        let run_command = std::env::current_exe().context("cannot find the path of this program")?;
        let (mut nodes, mut links) = (Vec::new(), Vec::new());
        for index in 0..NODES {
            let wires = if DIRECT.contains(&index) { &[][..] } else { &ports };
            let wires: Vec<Link> =
                wires.iter().map(|port| Link::to(*port, runtime)).collect::<Result<_, _>>()?;
            let seen = if wires.is_empty() { ports.clone() } else { wires.iter().map(Link::port).collect() };
            let home = directory.join(certname(index));
            std::fs::create_dir_all(&home)?;
            let mut node = node_of(kind, &certname(index), &home, &seen);
            node.set("run_cmd", &format!("\"'{}' run '{}'\"", run_command.display(), home.display()));
            node.set("groups", &format!("{:?}", groups_of(index)));
            // The rate limit on runs has tests of its own; here it would only reduce their number.
            node.set("runs_per_minute", "600");
            node.launch_agent();
            nodes.push(Mutex::new(node));
            links.push(wires);
        }
        let home = directory.join("observer");
        std::fs::create_dir_all(&home)?;
        let observer = Mutex::new(node_of(kind, OPERATOR, &home, &ports));
        let testbed = Self {
            kind,
            directory: directory.to_owned(),
            backend: Mutex::new(backend),
            nodes,
            links,
            observer,
            runtime: runtime.clone(),
            forgotten: Mutex::default(),
            deaths: Mutex::default(),
        };
        testbed.wait_until_all_are_connected();
        Ok(testbed)
    }

    /// Returns a node's directory.
    pub(crate) fn directory_of(&self, node: usize) -> PathBuf {
        self.directory.join(certname(node))
    }

    /// Returns the command `trigger ARGUMENTS` on a node.
    pub(crate) fn command(&self, node: usize, arguments: &[String]) -> Command {
        command(&lock(&self.nodes[node]), arguments)
    }

    /// Returns the command `trigger ARGUMENTS` past all links, as an operator.
    pub(crate) fn observe(&self, arguments: &[String]) -> Command {
        command(&lock(&self.observer), arguments)
    }

    /// Opens the backend past all links, as an operator.
    pub(crate) fn store(&self) -> Result<Arc<dyn Store>, String> {
        let observer = lock(&self.observer);
        let ssl = observer.ssl();
        let files =
            TlsFiles { certificate: ssl.certificate(), key: ssl.key(), ca: ssl.ca(), crl: Some(ssl.crl()) };
        let tls = self.kind.is_tls().then(|| LazyPki::new(files));
        let backend = url(self.kind, &self.backend().ports()).parse().map_err(|error| format!("{error}"));
        let backend = backend.and_then(|url: BackendUrl| {
            Backend::open(&url, &Credentials { tls }).map_err(|error| error.to_string())
        })?;
        backend.store().cloned().ok_or_else(|| "the backend keeps nothing".to_owned())
    }

    /// Locks the backend.
    pub(crate) fn backend(&self) -> MutexGuard<'_, FaultyBackend> {
        lock(&self.backend)
    }

    /// Locks a node.
    pub(crate) fn node(&self, node: usize) -> MutexGuard<'_, Node> {
        lock(&self.nodes[node])
    }

    /// Returns the runtime for the trial's asynchronous work.
    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Cuts or heals a node's links: all of them, or the one to a given member. The node must have links.
    pub(crate) fn wire(&self, node: usize, member: Option<usize>, mode: Mode) {
        let wires = &self.links[node];
        assert!(!wires.is_empty(), "{} has no wires of its own", certname(node));
        match member {
            Some(member) => wires[member % wires.len()].set(mode),
            None => wires.iter().for_each(|wire| wire.set(mode)),
        }
    }

    /// Sends SIGKILL to a node's agent.
    pub(crate) fn kill_agent(&self, node: usize) {
        self.living(node).kill_agent();
    }

    /// Starts the agent of a node whose agent was killed.
    pub(crate) fn launch_agent(&self, node: usize) {
        self.node(node).launch_agent();
    }

    /// Stops an agent and starts another one.
    pub(crate) fn restart_agent(&self, node: usize) {
        let mut node = self.living(node);
        node.agent().terminate();
        let code = node.agent().wait();
        node.launch_agent();
        if code != 0 {
            lock(&self.deaths)
                .push(format!("the agent of {} was asked to stop and ended with {code}", node.certname()));
        }
    }

    /// Sends SIGSTOP to an agent; fails if another lane has killed it.
    pub(crate) fn pause_agent(&self, node: usize) -> Result<(), String> {
        let mut node = self.living(node);
        if !node.has_agent() {
            return Err(format!("the agent of {} is dead", node.certname()));
        }
        node.agent().pause();
        Ok(())
    }

    /// Sends SIGCONT to an agent, unless it was killed meanwhile.
    pub(crate) fn agent_goes_on(&self, node: usize) {
        let mut node = self.node(node);
        if node.has_agent() {
            node.agent().go_on();
        }
    }

    /// Returns a node whose agent is alive: an agent that ended without a fault is recorded, and another one is
    /// started.
    fn living(&self, node: usize) -> MutexGuard<'_, Node> {
        let mut node = self.node(node);
        if let Some(death) = node.death_of_agent() {
            lock(&self.deaths).push(death);
            node.launch_agent();
        }
        node
    }

    /// Heals whatever a failed lane left behind, and waits until the backend serves.
    pub(crate) fn heal(&self) {
        self.links.iter().flatten().for_each(|wire| wire.set(Mode::Open));
        self.backend().heal();
        for node in 0..NODES {
            let mut node = self.node(node);
            match node.has_agent() {
                true => node.agent().go_on(),
                false => node.launch_agent(),
            }
        }
    }

    /// Records keys that a restored hub had lost.
    pub(crate) fn note_forgotten(&self, keys: BTreeSet<String>) {
        lock(&self.forgotten).extend(keys);
    }

    /// Returns all keys that a restored hub had lost.
    pub(crate) fn forgotten(&self) -> BTreeSet<String> {
        lock(&self.forgotten).clone()
    }

    /// Returns the processes that ended without a fault up to now, and the panics.
    pub(crate) fn deaths(&self) -> Vec<String> {
        (0..NODES).for_each(|node| drop(self.living(node)));
        let mut deaths = lock(&self.deaths).clone();
        deaths.extend(self.backend().deaths());
        deaths.extend(self.panics());
        deaths
    }

    fn panics(&self) -> Vec<String> {
        let agents = (0..NODES).map(|node| self.directory_of(node).join("agent.log"));
        let hub = self.directory.join("backend/log");
        agents.chain([hub]).flat_map(|log| panics_in(&log)).collect()
    }

    fn wait_until_all_are_connected(&self) {
        for node in 0..NODES {
            eventually_within(QUIET_TIMEOUT, &format!("{} connected", certname(node)), || {
                let answer = self.node(node).trigger(&["queue", "--output", "json"]);
                let queue = &answer.json;
                let is_ready = queue["agent_running"] == true
                    && queue["disconnected"].is_null()
                    && queue["blocked"].is_null();
                if is_ready { Ok(()) } else { Err(format!("{answer:?}")) }
            });
        }
    }
}

/// Returns the lines of a log that report a panic.
fn panics_in(log: &Path) -> Vec<String> {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter(|line| line.contains("panicked at"));
    lines.map(|line| format!("{} says: {line}", log.display())).collect()
}

fn command(node: &Node, arguments: &[String]) -> Command {
    node.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Makes a node, with TLS and signatures if the backend has TLS.
fn node_of(kind: BackendKind, certname: &str, home: &Path, ports: &[u16]) -> Node {
    let mut node = Node::new(certname, home, &url(kind, ports));
    if kind.is_tls() {
        let ssl = Authority::puppet().node(certname, &node.path("ssl"));
        node.has_certificate(&ssl);
    }
    node
}

fn url(kind: BackendKind, ports: &[u16]) -> String {
    let places: Vec<String> = ports.iter().map(|port| format!("{}:{port}", kind.host())).collect();
    kind.url(&places.join(","))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
