//! The backend of a trial: the hub, or three members of etcd. What can be done to it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use trigger_e2e::{Backend, BackendKind, Cluster, program};

use crate::fault::Victims;
use crate::stored::{PREFIX, keys_in};

/// A backend that faults happen to.
pub(crate) struct FaultyBackend {
    server: Server,
    /// What ended without being asked to.
    deaths: Vec<String>,
}

enum Server {
    /// One process; whether it should live.
    Hub(Box<Backend>, bool),
    /// Three.
    Etcd(Cluster),
}

impl FaultyBackend {
    /// Starts one whose data lies in `directory`.
    pub(crate) fn start(kind: BackendKind, directory: &Path) -> Self {
        let server = match kind {
            BackendKind::Hub => Server::Hub(Box::new(Backend::start(kind, directory)), true),
            BackendKind::Etcd => Server::Etcd(Cluster::start(directory)),
        };
        Self { server, deaths: Vec::new() }
    }

    /// Where it listens.
    pub(crate) fn ports(&self) -> Vec<u16> {
        match &self.server {
            Server::Hub(hub, _) => vec![hub.port()],
            Server::Etcd(cluster) => cluster.ports(),
        }
    }

    /// The members that a fault is for now: the leader changes. None while no leader is known.
    pub(crate) fn members(&self, victims: Victims) -> Option<Vec<usize>> {
        let Server::Etcd(cluster) = &self.server else { return Some(vec![0]) };
        Some(match victims {
            Victims::All => cluster.members().collect(),
            Victims::Leader => vec![cluster.leader()?],
            Victims::Member(member) => vec![member],
            Victims::AllBut(spared) => cluster.members().filter(|member| *member != spared).collect(),
        })
    }

    /// The members' names; the hub needs none.
    pub(crate) fn names(&self, members: &[usize]) -> String {
        match &self.server {
            Server::Hub(..) => String::new(),
            Server::Etcd(_) => {
                members.iter().map(|member| format!("m{}", member + 1)).collect::<Vec<_>>().join(" ")
            }
        }
    }

    /// `kill -9`.
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

    /// Starts killed ones again.
    pub(crate) fn restart(&mut self, members: &[usize]) {
        match &mut self.server {
            Server::Hub(hub, lives) => {
                hub.restart();
                *lives = true;
            }
            Server::Etcd(cluster) => members.iter().for_each(|member| cluster.restart(*member)),
        }
    }

    /// SIGSTOP.
    pub(crate) fn pause(&mut self, members: &[usize]) {
        self.look_for_deaths();
        match &mut self.server {
            Server::Hub(hub, _) => hub.process().pause(),
            Server::Etcd(cluster) => members.iter().for_each(|member| cluster.pause(*member)),
        }
    }

    /// SIGCONT.
    pub(crate) fn go_on(&mut self, members: &[usize]) {
        match &mut self.server {
            Server::Hub(hub, _) => hub.process().go_on(),
            Server::Etcd(cluster) => members.iter().for_each(|member| cluster.go_on(*member)),
        }
    }

    /// Copies the hub's data; where to. Nothing for etcd.
    pub(crate) fn back_up(&self, number: usize) -> Result<Option<PathBuf>, String> {
        let Server::Hub(hub, _) = &self.server else { return Ok(None) };
        let file = hub.data_dir().with_file_name(format!("backup-{number}.db"));
        let mut command = Command::new(program());
        command.args(["hub", "backup", "--config", "/dev/null", "--data-dir"]).arg(hub.data_dir()).arg(&file);
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() { Ok(Some(file)) } else { Err(format!("{output:?}")) }
    }

    /// Stops the hub and starts it with the data of a backup, as the operating guide says. The keys that it had
    /// when it had stopped and the backup does not have: neither can change any more.
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

    /// Heals whatever is not, and waits until all of it serves.
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

    /// What ended without being asked to, up to now.
    pub(crate) fn deaths(&mut self) -> Vec<String> {
        self.look_for_deaths();
        self.deaths.clone()
    }

    /// Notes what has ended without being asked to; it counts as killed from here on.
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

    /// The deliveries that still wait for a node; an error if no server can answer.
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
