//! The backend of a trial, either the hub or three members of etcd, and the faults that can be injected into it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use trigger_e2e::{Backend, BackendKind, Cluster, program};

use crate::fault::Victims;
use crate::stored::{PREFIX, keys_in};

/// A backend that faults are injected into.
pub(crate) struct FaultyBackend {
    server: Server,
    /// Sentences about members that ended without a fault.
    deaths: Vec<String>,
}

enum Server {
    /// One hub, and whether it should be running.
    Hub(Box<Backend>, bool),
    /// Three members of etcd.
    Etcd(Cluster),
}

impl FaultyBackend {
    /// Starts a backend whose data lies in `directory`.
    pub(crate) fn start(kind: BackendKind, directory: &Path) -> Self {
        let server = if kind.is_hub() {
            Server::Hub(Box::new(Backend::start(kind, directory)), true)
        } else {
            Server::Etcd(Cluster::start(kind, directory))
        };
        Self { server, deaths: Vec::new() }
    }

    /// Returns the ports on which it listens.
    pub(crate) fn ports(&self) -> Vec<u16> {
        match &self.server {
            Server::Hub(hub, _) => vec![hub.port()],
            Server::Etcd(cluster) => cluster.ports(),
        }
    }

    /// Returns the members that a fault applies to now, since the leader changes. `None` while no leader is known.
    pub(crate) fn members(&self, victims: Victims) -> Option<Vec<usize>> {
        let Server::Etcd(cluster) = &self.server else { return Some(vec![0]) };
        Some(match victims {
            Victims::All => cluster.members().collect(),
            Victims::Leader => vec![cluster.leader()?],
            Victims::Member(member) => vec![member],
            Victims::AllBut(spared) => cluster.members().filter(|member| *member != spared).collect(),
        })
    }

    /// Returns the members' names; empty for the hub.
    pub(crate) fn names(&self, members: &[usize]) -> String {
        match &self.server {
            Server::Hub(..) => String::new(),
            Server::Etcd(_) => {
                members.iter().map(|member| format!("m{}", member + 1)).collect::<Vec<_>>().join(" ")
            }
        }
    }

    /// Sends SIGKILL to the members.
    pub(crate) fn kill(&mut self, members: &[usize]) {
        self.look_for_deaths();
        match &mut self.server {
            Server::Hub(hub, lives) => {
                hub.kill();
                *lives = false;
            }
            Server::Etcd(cluster) => members.iter().for_each(|member| cluster.kill(*member)),
        }
    }

    /// Starts killed members again.
    pub(crate) fn restart(&mut self, members: &[usize]) {
        match &mut self.server {
            Server::Hub(hub, lives) => {
                hub.restart();
                *lives = true;
            }
            Server::Etcd(cluster) => members.iter().for_each(|member| cluster.restart(*member)),
        }
    }

    /// Sends SIGSTOP to the members.
    pub(crate) fn pause(&mut self, members: &[usize]) {
        self.look_for_deaths();
        match &mut self.server {
            Server::Hub(hub, _) => hub.process().pause(),
            Server::Etcd(cluster) => members.iter().for_each(|member| cluster.pause(*member)),
        }
    }

    /// Sends SIGCONT to the members.
    pub(crate) fn go_on(&mut self, members: &[usize]) {
        match &mut self.server {
            Server::Hub(hub, _) => hub.process().go_on(),
            Server::Etcd(cluster) => members.iter().for_each(|member| cluster.go_on(*member)),
        }
    }

    /// Copies the hub's data and returns the path of the copy; does nothing for etcd.
    pub(crate) fn back_up(&self, number: usize) -> Result<Option<PathBuf>, String> {
        let Server::Hub(hub, _) = &self.server else { return Ok(None) };
        let file = hub.data_dir().with_file_name(format!("backup-{number}.db"));
        let mut command = Command::new(program());
        command.args(["hub", "backup", "--config", "/dev/null", "--data-dir"]).arg(hub.data_dir()).arg(&file);
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() { Ok(Some(file)) } else { Err(format!("{output:?}")) }
    }

    /// Stops the hub and starts it with the data of a backup, as the operating guide says. Returns the keys that the
    /// hub had when it stopped and that the backup lacks; neither set can change any more.
    pub(crate) fn restore(&mut self, backup: &Path) -> Result<BTreeSet<String>, String> {
        self.look_for_deaths();
        let Server::Hub(hub, _) = &mut self.server else { return Ok(BTreeSet::new()) };
        hub.process().terminate();
        let code = hub.process().wait();
        if code != 0 {
            self.deaths.push(format!("the hub was asked to stop and ended with {code}"));
        }
        let file = hub.data_dir().join("hub.sqlite");
        let forgotten =
            keys_in(&file).and_then(|had| keys_in(backup).map(|has| had.difference(&has).cloned().collect()));
        let restored = std::fs::copy(backup, &file).map_err(|error| error.to_string());
        hub.restart();
        restored.and(forgotten)
    }

    /// Makes etcd forget all changes before its latest one; does nothing to a hub.
    pub(crate) fn compact(&self) -> Result<(), String> {
        match &self.server {
            Server::Hub(..) => Ok(()),
            Server::Etcd(cluster) => cluster.compact(),
        }
    }

    /// Heals every member that is killed or paused, and waits until all of them serve.
    pub(crate) fn heal(&mut self) {
        self.look_for_deaths();
        match &mut self.server {
            Server::Hub(hub, lives) => {
                if *lives {
                    hub.process().go_on();
                } else {
                    hub.restart();
                    *lives = true;
                }
            }
            Server::Etcd(cluster) => {
                for member in cluster.members() {
                    cluster.go_on(member);
                    cluster.restart(member);
                }
                cluster.wait_until_it_serves();
            }
        }
    }

    /// Returns the sentences about members that have ended without a fault up to now.
    pub(crate) fn deaths(&mut self) -> Vec<String> {
        self.look_for_deaths();
        self.deaths.clone()
    }

    /// Records the members that have ended without a fault; from here on they count as killed.
    fn look_for_deaths(&mut self) {
        match &mut self.server {
            Server::Hub(hub, lives) => {
                if *lives && let Some(code) = hub.process().exit() {
                    *lives = false;
                    let log = hub.process().latest_log();
                    self.deaths.push(format!("the hub ended with {code}; its log:\n{log}"));
                }
            }
            Server::Etcd(cluster) => self.deaths.extend(cluster.deaths()),
        }
    }

    /// Returns the deliveries that are still pending for a node, or an error if no server can answer.
    pub(crate) fn pending(&self) -> Result<Vec<String>, String> {
        let deliveries = format!("{PREFIX}deliveries/");
        match &self.server {
            Server::Hub(_, false) => Err("the hub is dead, so what is pending is unknown".to_owned()),
            Server::Hub(hub, true) => {
                let (_, reply) = hub.post("/v1/read", &json!({ "ranges": [{ "prefix": deliveries }] }));
                let entries = reply["entries"].as_array().ok_or_else(|| reply.to_string())?;
                Ok(entries.iter().filter_map(|entry| entry["key"].as_str()).map(str::to_owned).collect())
            }
            Server::Etcd(cluster) => cluster.keys(&deliveries),
        }
    }
}
