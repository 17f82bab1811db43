//! The backend of a trial: the hub, or three members of etcd. What can be done to it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use trigger_e2e::{Backend, BackendKind, Cluster, program};

use crate::plan::Victims;

/// Where Trigger keeps pending deliveries.
const DELIVERIES: &str = "/puppet_trigger/events/hosts/";

/// A backend that faults happen to.
pub(crate) enum Carrier {
    /// One process.
    Hub(Box<Backend>),
    /// Three.
    Etcd(Cluster),
}

impl Carrier {
    /// Starts one whose data lies in `folder`.
    pub(crate) fn start(kind: BackendKind, folder: &Path) -> Self {
        match kind {
            BackendKind::Hub => Self::Hub(Box::new(Backend::start(kind, folder))),
            BackendKind::Etcd => Self::Etcd(Cluster::start(folder)),
        }
    }

    /// Where it listens.
    pub(crate) fn ports(&self) -> Vec<u16> {
        match self {
            Self::Hub(hub) => vec![hub.port()],
            Self::Etcd(cluster) => cluster.ports(),
        }
    }

    /// The members that are meant now: who leads changes.
    pub(crate) fn members(&self, victims: Victims) -> Vec<usize> {
        match (self, victims) {
            (Self::Hub(_), _) => vec![0],
            (Self::Etcd(cluster), Victims::All) => cluster.members().collect(),
            (Self::Etcd(cluster), Victims::Leader) => vec![cluster.leader().unwrap_or_default()],
            (Self::Etcd(_), Victims::Member(member)) => vec![member],
            (Self::Etcd(cluster), Victims::AllBut(spared)) => {
                cluster.members().filter(|member| *member != spared).collect()
            }
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, members: &[usize]) {
        match self {
            Self::Hub(hub) => hub.kill(),
            Self::Etcd(cluster) => members.iter().for_each(|member| cluster.kill(*member)),
        }
    }

    /// Starts killed ones again.
    pub(crate) fn restart(&mut self, members: &[usize]) {
        match self {
            Self::Hub(hub) => hub.restart(),
            Self::Etcd(cluster) => members.iter().for_each(|member| cluster.restart(*member)),
        }
    }

    /// SIGSTOP.
    pub(crate) fn pause(&mut self, members: &[usize]) {
        match self {
            Self::Hub(hub) => hub.process().pause(),
            Self::Etcd(cluster) => members.iter().for_each(|member| cluster.pause(*member)),
        }
    }

    /// SIGCONT.
    pub(crate) fn go_on(&mut self, members: &[usize]) {
        match self {
            Self::Hub(hub) => hub.process().go_on(),
            Self::Etcd(cluster) => members.iter().for_each(|member| cluster.go_on(*member)),
        }
    }

    /// Makes etcd forget its history; the hub keeps none.
    pub(crate) fn compact(&self) -> Result<(), String> {
        match self {
            Self::Hub(_) => Ok(()),
            Self::Etcd(cluster) => cluster.compact().map(drop),
        }
    }

    /// Copies the hub's data; where to. Nothing for etcd.
    pub(crate) fn back_up(&self, number: usize) -> Result<Option<PathBuf>, String> {
        let Self::Hub(hub) = self else { return Ok(None) };
        let file = hub.data_dir().with_file_name(format!("backup-{number}.db"));
        let mut command = Command::new(program());
        command.args(["hub", "backup", "--config", "/dev/null", "--data-dir"]).arg(hub.data_dir()).arg(&file);
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() { Ok(Some(file)) } else { Err(format!("{output:?}")) }
    }

    /// Stops the hub and starts it with the data of a backup, as the operating guide says.
    pub(crate) fn restore(&mut self, backup: &Path) -> std::io::Result<()> {
        let Self::Hub(hub) = self else { return Ok(()) };
        hub.process().terminate();
        hub.process().wait();
        std::fs::copy(backup, hub.data_dir().join("hub.sqlite"))?;
        hub.restart();
        Ok(())
    }

    /// Waits until all of it serves.
    pub(crate) fn wait_until_it_serves(&mut self) {
        if let Self::Etcd(cluster) = self {
            cluster.wait_until_it_serves();
        }
    }

    /// The deliveries that still wait for a node.
    pub(crate) fn pending(&self) -> Result<Vec<String>, String> {
        match self {
            Self::Hub(hub) => {
                let (_, reply) = hub.post("/v1/read", &json!({ "ranges": [{ "folder": DELIVERIES }] }));
                let entries = reply["entries"].as_array().ok_or_else(|| reply.to_string())?;
                Ok(entries.iter().filter_map(|entry| entry["key"].as_str()).map(str::to_owned).collect())
            }
            Self::Etcd(cluster) => cluster.keys(DELIVERIES),
        }
    }
}
