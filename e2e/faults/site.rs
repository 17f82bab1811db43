//! The place of a trial: a real backend and twenty real agents in one scratch folder, each behind wires of
//! its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use tokio::runtime::Handle;
use trigger_e2e::{BackendKind, Node, eventually_within};

use crate::carrier::Carrier;
use crate::fleet::{DIRECT, NODES, certname, groups_of};
use crate::link::{Link, Mode};
use crate::settle::PATIENCE;

/// A backend and the nodes around it.
pub(crate) struct Site {
    folder: PathBuf,
    backend: Mutex<Carrier>,
    nodes: Vec<Mutex<Node>>,
    /// For each node a wire to each of the backend's ports; none for those that talk to it directly.
    links: Vec<Vec<Link>>,
    /// Asks without being part of anything, and past all wires.
    observer: Mutex<Node>,
}

impl Site {
    /// Starts a backend and twenty agents, and waits until all are registered: from then on they are members
    /// of their groups.
    pub(crate) fn start(kind: BackendKind, folder: &Path, runtime: &Handle) -> anyhow::Result<Self> {
        let backend = Carrier::start(kind, &folder.join("backend"));
        let ports = backend.ports();
        let run_command = std::env::current_exe().context("cannot tell the path of this program")?;
        let (mut nodes, mut links) = (Vec::new(), Vec::new());
        for index in 0..NODES {
            let wires = if DIRECT.contains(&index) { &[][..] } else { &ports };
            let wires: Vec<Link> =
                wires.iter().map(|port| Link::to(*port, runtime)).collect::<Result<_, _>>()?;
            let seen = if wires.is_empty() { ports.clone() } else { wires.iter().map(Link::port).collect() };
            let home = folder.join(certname(index));
            std::fs::create_dir_all(&home)?;
            let mut node = Node::new(&certname(index), &home, &url(kind, &seen));
            node.set("run_cmd", &format!("\"'{}' run '{}'\"", run_command.display(), home.display()));
            node.set("groups", &format!("{:?}", groups_of(index)));
            // The limit on runs has tests of its own; here it would only make them fewer.
            node.set("runs_per_minute", "600");
            node.launch_agent();
            nodes.push(Mutex::new(node));
            links.push(wires);
        }
        let home = folder.join("observer");
        std::fs::create_dir_all(&home)?;
        let observer = Mutex::new(Node::new("observer", &home, &url(kind, &ports)));
        let site = Self { folder: folder.to_owned(), backend: Mutex::new(backend), nodes, links, observer };
        site.wait_until_all_are_connected();
        Ok(site)
    }

    /// A node's folder.
    pub(crate) fn folder_of(&self, node: usize) -> PathBuf {
        self.folder.join(certname(node))
    }

    /// `trigger ARGUMENTS` on a node.
    pub(crate) fn command(&self, node: usize, arguments: &[String]) -> Command {
        command(&lock(&self.nodes[node]), arguments)
    }

    /// `trigger ARGUMENTS` past all wires, of nobody.
    pub(crate) fn observe(&self, arguments: &[String]) -> Command {
        command(&lock(&self.observer), arguments)
    }

    /// The backend.
    pub(crate) fn backend(&self) -> MutexGuard<'_, Carrier> {
        lock(&self.backend)
    }

    /// A node.
    pub(crate) fn node(&self, node: usize) -> MutexGuard<'_, Node> {
        lock(&self.nodes[node])
    }

    /// Cuts or heals a node's wires: all of them, or the one to a certain member. A node without wires of
    /// ours lends its place to another.
    pub(crate) fn wire(&self, node: usize, member: Option<usize>, mode: Mode) {
        let wires = &self.links[node % DIRECT.start];
        match member {
            Some(member) => wires[member % wires.len()].set(mode),
            None => wires.iter().for_each(|wire| wire.set(mode)),
        }
    }

    fn wait_until_all_are_connected(&self) {
        for node in 0..NODES {
            eventually_within(PATIENCE, &format!("{} connected", certname(node)), || {
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

fn command(node: &Node, arguments: &[String]) -> Command {
    node.command(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn url(kind: BackendKind, ports: &[u16]) -> String {
    let places: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    match kind {
        BackendKind::Hub => format!("hub+http://{}", places.join(",")),
        BackendKind::Etcd => format!("etcd://{}", places.join(",")),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
